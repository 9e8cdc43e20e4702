"""How much of a text an encoder cannot read: the share of it that its tokenizer turns into unknown tokens.

A WordPiece vocabulary of English turns a whole Thai sentence, or an emoji, into one [UNK]; then different texts have one
embedding and a distance of 0. The share is of characters, not of tokens: one unknown token may stand for a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

KEY = "quality/unknown_tokens"
MOST_UNKNOWN = 0.1  # mean share over the outputs of a prompt, above which its embeddings are not used
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
# A word whose letters are known but which is too long for WordPiece (a hash, a URL) counts as a word of so many letters.
_LONG_WORD = 5


def unreadable_prompts(values: Mapping[str, Any]) -> int:
    """Number of prompts whose metrics of embeddings are missing because the encoder cannot read their outputs."""
    return int(np.sum(np.asarray(values.get(KEY, ()), dtype=float) > MOST_UNKNOWN))


def unknown_shares(tokenizer: Any, texts: Sequence[str], tokens: Any, owner: Sequence[int]) -> np.ndarray:
    """Share of each text, of what is read of it, that is unknown to the tokenizer, [texts], in [0, 1].

    tokens: the tokenizer's output, a row of `input_ids` for each window of a text; owner: the text of each window.
    Byte-level tokenizers know every text. A tokenizer without offsets (a slow one) gives the share of tokens.
    """
    unknown, windows = getattr(tokenizer, "unk_token_id", None), tokens["input_ids"]
    nothing = tokenizer.num_special_tokens_to_add()
    read, lost = np.zeros(len(texts)), np.zeros(len(texts))
    affected = {text for text, ids in zip(owner, windows, strict=True) if unknown in ids}
    for window, text in enumerate(owner):
        if text in affected:
            known_size, unknown_size = _sizes(tokenizer, tokens, window, texts[text], unknown)
            read[text] += known_size + unknown_size
            lost[text] += unknown_size
        elif len(windows[window]) <= nothing and texts[text].strip():
            read[text] = lost[text] = 1.0  # it has no token, such as private characters
    return np.divide(lost, read, out=np.zeros(len(texts)), where=read > 0)


def _sizes(tokenizer: Any, tokens: Any, window: int, text: str, unknown: Any) -> tuple[float, float]:
    """Characters in known and in unknown tokens of a window; numbers of tokens where there are no offsets."""
    if not tokenizer.is_fast:
        ids = tokens["input_ids"][window]
        return len(ids) - tokenizer.num_special_tokens_to_add() - ids.count(unknown), ids.count(unknown)
    encoding, sizes = tokens.encodings[window], [0.0, 0.0]
    for token, (start, end), special in zip(encoding.ids, encoding.offsets, encoding.special_tokens_mask, strict=True):
        if not special:
            sizes[token == unknown] += _unread(tokenizer, text[start:end]) if token == unknown else end - start
    return sizes[0], sizes[1]


def _unread(tokenizer: Any, word: str) -> int:
    """How many characters an unknown token counts as."""
    backend = tokenizer.backend_tokenizer
    longest = getattr(backend.model, "max_input_chars_per_word", None)
    if longest is None or len(word) <= longest:
        return sum(not "\u2500" <= letter <= "\u259f" for letter in word)  # lines of a table or a tree are no text
    letters = set(backend.normalizer.normalize_str(word) if backend.normalizer else word)
    known = all(backend.token_to_id(letter) is not None for letter in letters)
    return min(len(word), _LONG_WORD) if known else len(word)
