"""A prompt's keys and values stored once for all its samples, and attention over them and each row's own.

A row attends to the L tokens of its prompt and to its own new tokens. The prompt's part is one product per prompt for
all its samples; the own part is a product per row; the two are joined by their log-sum-exp. So memory and traffic for
the prompts do not grow with the number of samples.

transformers hands keys and values to a cache and what the cache returns to the attention function that the config
names. `PrefixLayer.update` returns the layer itself, and `attend` knows what to do with it. All shapes stay the same
from step to step, nothing waits for the device, and what changes is written into tensors that stay where they are: a
step can be captured in a CUDA graph.

Letters: P prompts, R rows, G rows of the largest group, L prompt tokens, T own tokens, S of them attended to, H heads
of keys, M heads of queries per head of keys, d numbers a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from divwatch.errors import one_line
from divwatch.sampling.log import warn_once
from divwatch.sampling.memory import is_out_of_memory

# No mask function goes by this name, so that transformers makes no mask and passes None.
NAME = "divwatch_prefix"
# What models pass beside queries, keys and values that changes nothing here.
HARMLESS = {
    "position_ids", "cache_position", "position_embeddings", "use_cache", "output_attentions", "output_hidden_states",
    "output_router_logits", "return_dict", "deterministic", "is_causal", "sliding_window",
}  # fmt: skip


class Unsupported(Exception):
    """The model does something that attention over a shared prefix does not know. The message names it."""


class PrefixLayer(CacheLayerMixin):
    """One layer: prompt keys and values [P, H, L, d], own ones [R, H, T, d]."""

    is_sliding = False
    keys: Any
    values: Any

    def __init__(self, batch: PrefixCache, keys: Any, values: Any) -> None:
        super().__init__()
        self.batch = batch
        self.keys, self.values = keys, values
        rows, room = len(batch.owners), batch.room
        self.own_keys = keys.new_zeros((rows, keys.shape[1], room, keys.shape[3]))
        self.own_values = values.new_zeros((rows, values.shape[1], room, values.shape[3]))
        self.is_initialized = True

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Writes the new states [R, H, 1, d] at the batch's slot. Returns the layer twice, for `attend`."""
        if key_states.shape[2] != 1 or len(key_states) != len(self.own_keys):
            raise Unsupported(f"keys of shape {tuple(key_states.shape)}")
        self.own_keys.index_copy_(2, self.batch.slot, key_states.to(self.own_keys.dtype))
        self.own_values.index_copy_(2, self.batch.slot, value_states.to(self.own_values.dtype))
        return self, self

    def select(self, rows: Any, prompts: Any, width: int) -> None:
        """Keeps `rows` of the own states, `prompts` (None: all) and the last `width` tokens of the prompts."""
        self.own_keys = self.own_keys.index_select(0, rows)
        self.own_values = self.own_values.index_select(0, rows)
        if prompts is not None:
            self.keys = self.keys[:, :, -width:].index_select(0, prompts)
            self.values = self.values[:, :, -width:].index_select(0, prompts)

    def lazy_initialization(self, key_states: Any, value_states: Any) -> None:
        raise Unsupported("a cache layer that starts empty")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        raise Unsupported("a mask of the model's own")

    def get_seq_length(self) -> int:
        raise Unsupported("positions of the model's own")

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # its name in older releases


class PrefixCache(Cache):
    """The layers of a batch and what they share.

    owners: [R] for each row the prompt it answers.
    slot:   [1] the own token that the next step writes.
    span:   own tokens that a step reads, S: at least slot + 1, and the same for many steps.
    kernels: the module with kernels for this device (`kernels.py`), or None: attention by batched products.
    """

    def __init__(self, filled: Any, mask: Any, owners: Sequence[int], room: int) -> None:
        """filled: a DynamicCache with the prompts' states, left-padded; mask: [P, L], 1 for tokens, 0 for padding."""
        self.owners = list(owners)
        self.room = self.span = room
        self.device = mask.device
        self.slot = torch.zeros(1, dtype=torch.long, device=self.device)
        self.unwritten = torch.zeros(room, dtype=torch.bool, device=self.device)
        self.padding = mask == 0
        self.alive: Any = None
        self.kernels: Any = None
        self._group()
        super().__init__(layers=[PrefixLayer(self, layer.keys, layer.values) for layer in filled.layers])

    def use_kernels(self, queries: int) -> bool:
        """Uses the Triton kernels if they support all layers, `queries` of a row to each head of keys."""
        layers: list[Any] = self.layers
        shapes = {(layer.keys.shape[3], layer.values.shape[3], layer.keys.dtype) for layer in layers}
        if self.device.type == "cuda" and len(shapes) == 1 and kernels_work(self.device, *shapes.pop(), queries):
            from divwatch.sampling import kernels

            self.kernels = kernels
        return self.kernels is not None

    def begin(self, slot: Any, alive: Any) -> None:
        """Call at the start of each step. slot: [1]; alive: [R] whether a row goes on; what others attend to is open."""
        self.slot.copy_(slot)
        self.alive = alive.int()
        if not self.kernels:
            self.unwritten = torch.arange(self.span, device=self.device) > self.slot

    def free(self) -> None:
        """Call when the batch is done: layers and cache name each other, so that nothing else frees them at once."""
        self.layers.clear()

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all other rows, and prompts and padding that no row needs any more."""
        owners = [self.owners[row] for row in rows]
        prompts = sorted(set(owners))
        place = {prompt: i for i, prompt in enumerate(prompts)}
        self.owners = [place[owner] for owner in owners]
        drop = len(prompts) < len(self.padding)
        chosen = torch.tensor(prompts, device=self.device) if drop else None
        if drop:
            self.padding = self.padding[chosen]
            width = int((~self.padding).sum(-1).max())
            self.padding = self.padding[:, -width:]
        kept = torch.tensor(list(rows), device=self.device)
        layers: list[Any] = self.layers
        for layer in layers:
            layer.select(kept, chosen, self.padding.shape[1])
        self._group()

    def _group(self) -> None:
        """Rows by prompt: `table` [P, G], short groups filled up with -1; `members` [P * G], there filled up with any row;
        a row's `places` [R] therein. `starts` [P]: where a prompt's tokens start."""
        groups: list[list[int]] = [[] for _ in range(len(self.padding))]
        for row, owner in enumerate(self.owners):
            groups[owner].append(row)
        size = max(map(len, groups))
        table = [group + [-1] * (size - len(group)) for group in groups]
        places = [0] * len(self.owners)
        for i, group in enumerate(groups):
            for j, row in enumerate(group):
                places[row] = i * size + j
        self.group = size
        self.table = torch.tensor(table, dtype=torch.int32, device=self.device)
        self.members = self.table.flatten().clamp(min=0).long()
        self.places = torch.tensor(places, device=self.device)
        self.starts = self.padding.sum(-1, dtype=torch.int32)


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Any, None]:
    """transformers' attention interface for one new token a row.

    query: [R, H * M, 1, d]; key and value: the layer. Returns [R, 1, H * M, d of values].
    """
    unknown = sorted(name for name, value in kwargs.items() if value is not None and name not in HARMLESS)
    if attention_mask is not None:
        unknown.append("attention_mask")
    if unknown or not isinstance(key, PrefixLayer) or kwargs.get("is_causal") is False or dropout:
        raise Unsupported(f"attention with {', '.join(unknown) or 'other keys'}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    attention = key.batch.kernels.attention if key.batch.kernels else attention_by_products
    with torch.autocast(query.device.type, enabled=False):  # it would round the scores
        output = attention(query[:, :, 0].to(key.keys.dtype), key, scale)
    return output.to(query.dtype)[:, None], None


def attention_by_products(query: Any, layer: PrefixLayer, scale: float) -> Any:
    """Attention of `query` [R, H * M, d] to the prompts' and the rows' own tokens, fp32, on any device."""
    shared, shared_mass = _prompt_part(query, layer, scale)
    own, own_mass = _own_part(query, layer, scale)
    return own + (shared - own) * torch.sigmoid(shared_mass - own_mass)[..., None]


def _prompt_part(query: Any, layer: PrefixLayer, scale: float) -> tuple[Any, Any]:
    """Attention of `query` [R, H * M, d] to the prompts' tokens: outputs and log-sum-exp, fp32, by row and query head."""
    batch, (prompts, heads) = layer.batch, layer.keys.shape[:2]
    grouped = query[batch.members].unflatten(0, (prompts, -1)).unflatten(2, (heads, -1))  # [P, G, H, M, d]
    group, times = grouped.shape[1], grouped.shape[3]
    queries = grouped.transpose(1, 2).reshape(prompts * heads, group * times, -1)
    padding = batch.padding[:, None].expand(-1, heads, -1).flatten(0, 1)[:, None]  # [P * H, 1, L]
    output, mass = _attention(queries, layer.keys.flatten(0, 1), layer.values.flatten(0, 1), padding, scale)
    output = output.view(prompts, heads, group, times, -1).transpose(1, 2).flatten(0, 1).flatten(1, 2)
    mass = mass.view(prompts, heads, group, times).transpose(1, 2).flatten(0, 1).flatten(1, 2)
    return output[batch.places], mass[batch.places]


def _own_part(query: Any, layer: PrefixLayer, scale: float) -> tuple[Any, Any]:
    """The same for the rows' own tokens."""
    rows, heads = layer.own_keys.shape[:2]
    span = layer.batch.span
    keys, values = layer.own_keys[:, :, :span].flatten(0, 1), layer.own_values[:, :, :span].flatten(0, 1)
    queries = query.view(rows, heads, -1, query.shape[-1]).flatten(0, 1)
    output, mass = _attention(queries, keys, values, layer.batch.unwritten, scale)
    return output.view(rows, -1, values.shape[-1]), mass.view(rows, -1)


def _attention(queries: Any, keys: Any, values: Any, hidden: Any, scale: float) -> tuple[Any, Any]:
    """Queries [B, q, d] over keys [B, k, d], but where `hidden` (broadcast to [B, q, k]): outputs, log-sum-exp [B, q]."""
    scores = _product(queries, keys.transpose(1, 2)).mul_(scale).masked_fill_(hidden, -torch.inf)
    weights = scores.softmax(-1)
    mass = scores.amax(-1) - weights.amax(-1).log()
    return _product(weights.to(values.dtype), values), mass


def _product(left: Any, right: Any) -> Any:
    """Batched product, summed and returned in fp32."""
    if left.dtype == torch.float32:
        return torch.bmm(left, right)
    if left.is_cuda and hasattr(torch.ops.aten.bmm, "dtype"):
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left.float(), right.float())


@cache
def kernels_work(device: Any, size: int, value_size: int, dtype: Any, queries: int) -> bool:
    """Whether the Triton kernels compile for these shapes and agree with the batched products; logged where not.

    size, value_size: numbers a head of keys and of values; queries: of a row to each head of keys.
    """
    if size != value_size or size not in (16, 32, 64, 128, 256) or queries > 8:
        return False
    try:
        from divwatch.sampling import kernels

        layer = _example(device, size, dtype)
        query = torch.linspace(-2, 3, 3 * 2 * queries * size, device=device).cos().view(3, 2 * queries, size).to(dtype)
        with torch.autocast(device.type, enabled=False):
            expected = attention_by_products(query, layer, size**-0.5)
            difference = (kernels.attention(query, layer, size**-0.5).float() - expected).abs().max()
        if not difference < 2e-2:
            raise RuntimeError(f"its results differ by {float(difference):.2g}")
    except Exception as error:
        if is_out_of_memory(error):
            raise
        warn_once(f"attention runs without Triton kernels: {one_line(error)}")
        return False
    return True


def _example(device: Any, size: int, dtype: Any) -> PrefixLayer:
    """Two prompts of 70 and 67 tokens, three rows with 66 own ones, two heads of keys."""
    states = torch.linspace(-5, 5, 2 * 2 * 70 * size, device=device).sin().view(2, 2, 70, size).to(dtype)
    mask = torch.ones(2, 70, device=device)
    mask[1, :3] = 0
    batch = PrefixCache(SimpleNamespace(layers=[]), mask, [0, 1, 0], 80)
    layer = PrefixLayer(batch, states, states.flip(2))
    for buffer, shift in ((layer.own_keys, 0.3), (layer.own_values, 0.7)):
        buffer.copy_(torch.linspace(-4, 6, buffer.numel(), device=device).add(shift).sin().view_as(buffer))
    batch.begin(torch.full_like(batch.slot, 65), torch.ones(3, device=device))
    return layer


def check_attention(model: Any, longest: int) -> None:
    """Raises Unsupported if the model is known not to work with `attend`.

    longest: tokens of the longest prompt and of all that may follow it.
    """
    parts = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    for part in parts:
        if not getattr(part, "_supports_attention_backend", False):
            raise Unsupported(f"{type(part).__name__} does not take an attention function")
    if not parts:
        raise Unsupported(f"{type(model).__name__} is no model of transformers")
    config = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None):
        raise Unsupported("attention with softcap")
    for layer in DynamicCache(config=model.config).layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise Unsupported(f"a cache layer of type {type(layer).__name__}")
        window = getattr(layer, "sliding_window", None)
        if window is not None and longest > window:
            raise Unsupported(f"{longest} tokens are more than the sliding window of {window}")


def check_cache(filled: Any, device: Any) -> None:
    """Raises Unsupported if the prompts' DynamicCache has something else than keys and values on one device."""
    for layer in filled.layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise Unsupported(f"a cache layer of type {type(layer).__name__}")
        if layer.keys is None or layer.keys.dim() != 4 or layer.keys.device != device:
            raise Unsupported("keys and values in another place or shape")


@contextmanager
def prefix_attention(model: Any) -> Iterator[None]:
    """Inside, the model calls `attend`. The implementations that its configs name come back on every way out."""
    if NAME not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    assert NAME not in ALL_MASK_ATTENTION_FUNCTIONS
    configs = {id(config): config for module in model.modules() if (config := getattr(module, "config", None))}
    before = [
        (config, config._attn_implementation_internal)
        for config in configs.values()
        if hasattr(config, "_attn_implementation_internal")
    ]
    try:
        for config, _ in before:
            config._attn_implementation_internal = NAME
        yield
    finally:
        for config, name in before:
            config._attn_implementation_internal = name
