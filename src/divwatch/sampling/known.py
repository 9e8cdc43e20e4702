"""Which models read a prompt once for all its rows: those that keep all their state in cache layers of known kinds.

Rows of any other cache are never selected: such a model is decoded by its own `generate`.
"""

from __future__ import annotations

import inspect
from typing import Any

from divwatch.errors import one_line

# Kinds of cache layers by name, exactly: a subclass may hold further states. Older releases lack some.
KINDS = {
    "DynamicLayer", "DynamicSlidingWindowLayer", "DynamicIndexedLayer", "DummyLayer", "LinearAttentionLayer",
    "LinearAttentionAndFullAttentionLayer", "LinearAttentionAndSlidingWindowAttentionLayer",
}  # fmt: skip
# What `decode` calls a model with.
ARGUMENTS = {"input_ids", "position_ids", "attention_mask", "past_key_values", "use_cache", "logits_to_keep"}


class UnknownCache(Exception):
    """The rows of this model's states cannot be selected. The message says why."""


def check_model(model: Any) -> None:
    """Raises UnknownCache for a model that is known, before any forward, not to keep its states in layers of `KINDS`."""
    from transformers import DynamicCache

    if uses_prompt_learning(model):
        raise UnknownCache("prompt learning adds virtual tokens to each prompt")
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    supports = getattr(base, "_supports_default_dynamic_cache", None)
    if supports is not None and not supports():
        raise UnknownCache(f"{type(base).__name__} has a cache of its own")
    # The class's: what wraps a model's `forward` may hide its parameters.
    parameters = inspect.signature(type(base).forward).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    missing = ARGUMENTS - set(parameters)
    if "past_key_values" in missing or (missing and not takes_any):
        raise UnknownCache(f"{type(base).__name__} takes no {', '.join(sorted(missing))}")
    try:
        layers = DynamicCache(config=model.config).layers
    except Exception as error:
        raise UnknownCache(f"its config names no known cache layers ({one_line(error)})") from error
    _check_kinds(layers)


def has_known_cache(model: Any) -> bool:
    """Whether `check_model` accepts the model."""
    try:
        check_model(model)
    except UnknownCache:
        return False
    return True


def check_filled(cache: Any, rows: int) -> None:
    """Raises UnknownCache if a filled DynamicCache has other states than those of `rows` rows in layers of `KINDS`."""
    from transformers import DynamicCache

    if extra := set(vars(cache)) - set(vars(DynamicCache())):
        raise UnknownCache(f"its cache has other states ({', '.join(sorted(extra))})")
    _check_kinds(cache.layers)
    for layer in cache.layers:
        if any(len(state) != rows for state in layer_states(layer)):
            raise UnknownCache(f"a {type(layer).__name__} does not hold one state per row")


def layer_states(layer: Any) -> list[Any]:
    """The tensors of a cache layer, the rows in their first dimension."""
    named = [getattr(layer, "keys", None), getattr(layer, "values", None)]
    for states in (getattr(layer, "conv_states", None), getattr(layer, "recurrent_states", None)):
        named += list(states.values()) if isinstance(states, dict) else [states]
    return [state for state in named if state is not None and state.numel()]


def uses_prompt_learning(model: Any) -> bool:
    """Whether a PEFT adapter puts virtual tokens before each prompt (prompt tuning, p-tuning, prefix tuning)."""
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


def states_in_modules(model: Any) -> list[tuple[Any, dict[str, Any]]]:
    """Plain tensor attributes of each module, None included: states that some models keep beside their cache."""
    import torch

    return [
        (module, {k: v for k, v in vars(module).items() if v is None or isinstance(v, torch.Tensor)})
        for module in model.modules()
    ]


def changes_in_modules(model: Any, before: list[tuple[Any, dict[str, Any]]]) -> str | None:
    """The first attribute that holds another tensor than `before`, by name; None if there is none."""
    for (module, now), (_, then) in zip(states_in_modules(model), before, strict=True):
        for name, value in now.items():
            if value is not None and value is not then.get(name):
                return f"{type(module).__name__}.{name}"
    return None


def restore_modules(before: list[tuple[Any, dict[str, Any]]]) -> None:
    """Puts back what `states_in_modules` returned; tensors that have come since are removed."""
    import torch

    for module, states in before:
        for name in [n for n, v in vars(module).items() if isinstance(v, torch.Tensor) and n not in states]:
            del vars(module)[name]
        vars(module).update(states)


def _check_kinds(layers: list[Any]) -> None:
    for layer in layers:
        if type(layer).__name__ not in KINDS or not type(layer).__module__.startswith("transformers.cache_utils"):
            raise UnknownCache(f"a cache layer of type {type(layer).__name__}")
        if not isinstance(getattr(layer, "conv_states", {}), dict):
            raise UnknownCache("an older release of transformers keeps linear attention's states in another form")
