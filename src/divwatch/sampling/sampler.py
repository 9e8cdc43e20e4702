"""A look's completions, on all ranks: agree that it can be taken, share it out, generate, meet on rank 0.

Between the two meetings a rank may fail alone: it comes to the second one with its reason, and all ranks give the look
up. A failure inside a forward that is itself a collective ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from divwatch.config import WatchConfig
from divwatch.errors import DivwatchError, one_line, reason_of
from divwatch.panel.length import token_limit
from divwatch.records import Completion, Prompt
from divwatch.sampling.isolation import untouched
from divwatch.sampling.memory import free_bytes
from divwatch.sampling.plan import Row, share_out
from divwatch.sampling.ranks import ALONE, Ranks, raise_if_failed
from divwatch.sampling.request import Request, make_request
from divwatch.sampling.tokens import tokenizer_of
from divwatch.sampling.weights import Source, fits, reading

Embeddings = tuple[list[bytes], np.ndarray]
# Called on each rank with its own rows and their new token ids.
Keep = Callable[[Request, Sequence[Row], Sequence[Sequence[int]]], None]


class LookEnds(RuntimeError):
    """One rank failed while the others wait inside a collective. The run must end."""


class Part(NamedTuple):
    """What a rank brings to the second meeting."""

    completions: list[Completion]
    embeddings: Embeddings | None = None
    reason: str | None = None


def sample(
    source: Source,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    config: WatchConfig,
    seed: int,
    progress: Callable[[int], Any] = lambda done: None,
    ranks: Ranks = ALONE,
) -> list[Completion]:
    """`config.samples` completions for each prompt, grouped by prompt in the order given; on other ranks than 0 none.

    A collective: every rank calls it with the same arguments. `progress` is called with the number of completions of
    each finished batch of this rank. Leaves model and random state untouched. Raises LookFailed on every rank
    where one failed, and LookEnds on a rank that failed inside a forward that others take part in.
    """
    return _sample(source, tokenizer, prompts, config, seed, progress, ranks)[0]


class Sampler:
    """`sample` bound to a trainer. On an accelerator each rank also embeds its own completions."""

    def __init__(self, trainer: Any, config: WatchConfig, ranks: Ranks) -> None:
        self.trainer, self.config, self.ranks = trainer, config, ranks
        self._tokenizer = tokenizer_of(trainer)
        self._engine: Any = None
        self._lengths: dict[int, list[int]] = {}
        # On a CPU the scoring process encodes.
        self._encoder: Any = None if trainer.args.device.type == "cpu" else _load_encoder(config, trainer.args.device)

    def sample(
        self,
        prompts: Sequence[Prompt],
        config: WatchConfig,
        step: int,
        progress: Callable[[int], Any],
        keep: Keep | None = None,
    ) -> tuple[list[Completion], Embeddings | None]:
        """The completions of the look at `step`, and embeddings for `RunDirectory.write_embeddings` where it computed any.

        keep: gets the tokens that this rank sampled. Looks draw with the same random numbers; where `config.coupled` is
        false, with independent ones.
        """
        source = Source(self.trainer.model_wrapped, self.trainer.accelerator)
        if self.config.backend == "vllm" and self._engine is None:
            from divwatch.sampling.vllm import Engine

            longest = max(token_limit(prompt, config.max_new_tokens) for prompt in prompts)
            self._engine = Engine(self.trainer, max(longest, self.config.full_tokens or 0))
        return _sample(
            source,
            self._tokenizer,
            prompts,
            config,
            look_seed(config, step),
            progress,
            self.ranks,
            self._embed if self._encoder is not None else None,
            self._engine,
            keep,
            self._lengths,
        )

    def encoder(self) -> Any:
        """The encoder on this rank's device, loaded on first use; None if no metric needs one."""
        return self._encoder or _load_encoder(self.config, self.trainer.args.device)

    def _embed(self, completions: Sequence[Completion]) -> Embeddings:
        from divwatch.metrics.encoder import text_key
        from divwatch.verify.thinking import final_answer

        texts = sorted({a for c in completions if (a := final_answer(c.text))})
        return [text_key(text) for text in texts], self._encoder.encode(texts)


def look_seed(config: WatchConfig, step: int) -> int:
    """The seed of the look at `step`: where looks are coupled, that of every look."""
    return config.seed * 1_000_003 + (0 if config.coupled else step)


def _load_encoder(config: WatchConfig, device: Any) -> Any:
    """The encoder, or None if no metric needs one."""
    from divwatch.metrics.encoder import load_encoder
    from divwatch.metrics.scoring import needs_encoder

    return load_encoder(config.encoder, device=str(device)) if needs_encoder(config.metrics) else None


def _sample(
    source: Source,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    config: WatchConfig,
    seed: int,
    progress: Callable[[int], Any],
    ranks: Ranks,
    embed: Callable[[Sequence[Completion]], Embeddings] | None = None,
    engine: Any = None,
    keep: Keep | None = None,
    lengths: dict[int, list[int]] | None = None,
) -> tuple[list[Completion], Embeddings | None]:
    """lengths: by limit, new tokens of this rank's completions at the last look with that limit; read and updated."""
    request, gather = _prepare(source, tokenizer, prompts, config, seed, ranks)
    lengths, limit = {} if lengths is None else lengths, request.how.limit
    request = replace(request, expected=lengths.get(limit, ()))
    shares = share_out(request.lengths, config.samples, ranks.world)
    shares = engine.shares(shares) if engine is not None else shares
    part = _generate(source, request, shares, gather, config, progress, ranks, embed, engine, keep)
    lengths[limit] = [c.tokens for c in part.completions]
    parts = ranks.collect(part)
    raise_if_failed(ranks.from_main([p.reason for p in parts]))
    if not ranks.main:
        return [], None
    by_sample = {(c.prompt_id, c.sample): c for p in parts for c in p.completions}
    return [by_sample[prompt.id, k] for prompt in prompts for k in range(config.samples)], _joined(parts)


def _prepare(
    source: Source, tokenizer: Any, prompts: Sequence[Prompt], config: WatchConfig, seed: int, ranks: Ranks
) -> tuple[Request, bool]:
    """The request, and whether sharded weights are gathered: agreed on before anything is generated."""
    request, reason = None, None
    try:
        sharding = source.sharding
        if sharding is not None and config.backend == "continuous" and config.gather is False:
            raise DivwatchError("watch_backend continuous reads whole weights only: leave watch_gather out")
        request = make_request(source.unwrapped, tokenizer, prompts, config, seed, source.device)
    except Exception as error:
        reason = reason_of(error)
    ranks.agree(reason)
    assert request is not None
    if sharding is None or config.gather is not None:
        return request, config.gather is not False
    return request, fits(source, ranks, free_bytes(source.device))


def _generate(
    source: Source,
    request: Request,
    shares: Sequence[Sequence[Row]],
    gather: bool,
    config: WatchConfig,
    progress: Callable[[int], Any],
    ranks: Ranks,
    embed: Callable[[Sequence[Completion]], Embeddings] | None,
    engine: Any,
    keep: Keep | None,
) -> Part:
    """This rank's part; where it fails alone, the reason."""
    import torch

    rows = shares[ranks.rank]
    alone = engine is None and (source.sharding is None or gather)
    # Up to here and from here on the others may be waiting for this rank inside a collective.
    meeting = ranks.world > 1 and (engine is not None or source.sharding is not None)
    try:
        with untouched(source.unwrapped, source.device), torch.no_grad():
            if engine is not None:
                ids = engine.generate(request, rows, config.samples)
            else:
                with reading(source, gather):
                    if alone:
                        meeting = False
                        ids = _alone(source.unwrapped, request, rows, config, progress)
                        meeting = ranks.world > 1 and source.sharding is not None
                    else:
                        ids = _in_step(source.unwrapped, request, rows, ranks, progress)
        completions = [request.completion(row.prompt, row.sample, new) for row, new in zip(rows, ids, strict=True)]
        if keep is not None:
            keep(request, rows, ids)
        return Part(completions, embed(completions) if embed else None)
    except Exception as error:
        if meeting:
            raise LookEnds(f"rank {ranks.rank} failed where the others wait for it: {one_line(error)}") from error
        return Part([], reason=one_line(error))


def _alone(
    model: Any, request: Request, rows: Sequence[Row], config: WatchConfig, progress: Callable[[int], Any]
) -> list[list[int]]:
    from divwatch.sampling import continuous, in_process

    backend = continuous if config.backend == "continuous" else in_process
    return backend.generate(model, request, rows, progress)


def _in_step(
    model: Any, request: Request, rows: Sequence[Row], ranks: Ranks, progress: Callable[[int], Any]
) -> list[list[int]]:
    from divwatch.sampling import in_process

    return in_process.generate_in_step(model, request, rows, ranks, progress)


def _joined(parts: Sequence[Part]) -> Embeddings | None:
    embedded = [part.embeddings for part in parts if part.embeddings is not None and part.embeddings[0]]
    if not embedded:
        return None
    return [key for keys, _ in embedded for key in keys], np.concatenate([rows for _, rows in embedded])
