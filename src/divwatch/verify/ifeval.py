"""IFEval: does an answer follow all of its prompt's instructions? The 25 instructions are those of if-verifiable.

Runs in a separate process (`child_process.py`): for what an instruction leaves open the library draws from Python's global
random state, and language detection draws too. Both are seeded here, so the same answer always gets the same result.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable
from typing import Any

import langdetect
import nltk
from if_verifiable.common import get_loose_transformations
from if_verifiable.ifeval import INSTRUCTION_DICT, instructions_util

from divwatch.records import Verification

langdetect.DetectorFactory.seed = 0


@functools.cache
def _sentences(language: str = "english") -> Any:
    """NLTK's own sentence splitter with the English parameters of nltk_data's punkt_tab, from a package: no download."""
    from punkt import load_model

    model, tokenizer = load_model(language), nltk.tokenize.punkt.PunktSentenceTokenizer()
    for name in ("abbrev_types", "collocations", "sent_starters"):
        setattr(tokenizer._params, name, set(getattr(model, name)))
    tokenizer._params.ortho_context.update(model.ortho_context)
    return tokenizer


# Where the library asks for sentences: by itself, and through nltk.word_tokenize.
instructions_util._get_sentence_tokenizer = _sentences
nltk.tokenize._get_punkt_tokenizer = _sentences


# In three places Google's code decides against the instruction's words. `ifeval_google` alone follows it there.
_LANGUAGE = "language:response_language"  # an answer without a letter has every language
_ENGLISH = {
    "change_case:english_capital": str.isupper,
    "change_case:english_lowercase": str.islower,
}  # capitals confuse it
_PARAGRAPHS = "length_constraints:nth_paragraph_first_word"  # a third newline starts a paragraph
_SHORT = 4  # words, below which the language cannot be detected: English then


def ifeval(answer: str, reference: Any) -> Verification:
    """Strict: the answer as it is follows every instruction.

    The reference is the data set's row: `instruction_id_list`, `kwargs` (a dict an instruction; None values are absent),
    and `prompt`.

    >>> row = {"prompt": "", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    >>> ifeval("No, never.", row).correct, ifeval("Never.", row).correct
    (False, True)
    """
    return Verification(all(_each([answer], reference, _follows)), None)


def ifeval_google(answer: str, reference: Any) -> Verification:
    """Strict as Google's code decides, for a comparison with published scores."""
    return Verification(all(_each([answer], reference, _follows_code)), None)


def ifeval_loose(answer: str, reference: Any) -> Verification:
    """Loose: the answer follows each instruction, as it is or without its first line, last line or asterisks."""
    return Verification(all(_each(get_loose_transformations(answer), reference, _follows)), None)


def _each(variants: list[str], row: Any, follows: Callable[[str, Any, str], bool]) -> list[bool]:
    """Per instruction, whether any of the variants follows it."""
    checkers = zip(row["instruction_id_list"], _checkers(row), strict=True)
    return [any(bool(text.strip()) and follows(name, checker, text) for text in variants) for name, checker in checkers]


def _follows_code(name: str, checker: Any, text: str) -> bool:
    return bool(checker.check_following(text))


def _follows(name: str, checker: Any, text: str) -> bool:
    if name == _LANGUAGE:
        return checker._language in (_language(text), _language(text.lower()) if text.isupper() else None)
    if name in _ENGLISH:
        return _ENGLISH[name](text) and (_language(text.lower()) == "en" or len(text.split()) < _SHORT)
    if name == _PARAGRAPHS:
        text = re.sub(r"\n\s*\n", "\n\n", text.strip())
    return _follows_code(name, checker, text)


def _language(text: str) -> str | None:
    """The language of a text; None if it has no letters."""
    try:
        return str(langdetect.detect(text))
    except langdetect.LangDetectException:
        return None


def _checkers(row: Any) -> list[Any]:
    random.seed(0)
    checkers = []
    for name, arguments in zip(row["instruction_id_list"], row["kwargs"], strict=True):
        if name not in INSTRUCTION_DICT:
            raise ValueError(f"unknown instruction {name!r}")
        values = {key: value for key, value in (arguments or {}).items() if value is not None}
        checker = INSTRUCTION_DICT[name](name)
        checker.build_description(**values)
        if "prompt" in (checker.get_instruction_args() or {}):
            checker.build_description(prompt=row["prompt"])
        if name == "keywords:letter_frequency" and values.get("letter"):
            checker._letter = values["letter"].lower()  # the library replaces '#' or '!' by a random letter
        checkers.append(checker)
    return checkers
