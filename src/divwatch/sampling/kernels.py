"""Attention of one new token a row in two Triton kernels, for CUDA devices: prompts first, own tokens after.

The first reads a prompt's keys and values once for 16 queries of its rows; the second goes on from its result with the
row's own tokens, and reads no more of them than there are. Scores and sums are fp32 and stay in registers.
Letters as in prefix.py.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

# Queries that share a load of the prompt's keys: the smallest tile of the tensor cores.
TILE = 16
# Of keys that a program holds at once, bytes (prompts) and numbers (own tokens), and the warps that share them.
PROMPT_BYTES, PROMPT_WARPS = 16384, 4
# Own tokens: the fastest of 12 pairs at one shape on one card (NVIDIA H200, bf16, 16 prompts x 16 rows x 256 own tokens,
# 32 heads of 128): 344 us for both kernels, 480 with (4096, 4). The prompts' pairs were within 6 %.
OWN_NUMBERS, OWN_WARPS = 2048, 2


# Specialised kernels would be compiled anew when shapes change, which must not happen while a step is recorded.
@triton.jit(do_not_specialize=["group", "width"])
def _prompt_kernel(
    query, keys, values, members, starts, output, mass, scale, group, width,
    HEADS: tl.constexpr, TIMES: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    prompt, head, tile = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    lane = tile * TILE + tl.arange(0, TILE)  # a query of the group: member and query head
    member = lane // TIMES
    row = tl.load(members + prompt * group + member, mask=member < group, other=-1)
    there = row >= 0
    place = (row * HEADS + head) * TIMES + lane % TIMES
    column = tl.arange(0, D)
    queries = tl.load(query + place[:, None] * D + column[None, :], mask=there[:, None], other=0.0)
    first = (prompt * HEADS + head).to(tl.int64) * width
    top = tl.full([TILE], -float("inf"), tl.float32)
    total = tl.zeros([TILE], tl.float32)
    sums = tl.zeros([TILE, D], tl.float32)
    for start in range(tl.load(starts + prompt), width, BLOCK):
        token = start + tl.arange(0, BLOCK)
        inside = token < width
        at = (first + token)[:, None] * D + column[None, :]
        key = tl.load(keys + at, mask=inside[:, None], other=0.0)
        scores = tl.dot(queries, tl.trans(key), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, -float("inf"))
        new = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp(top - new)
        weights = tl.exp(scores - new[:, None])
        value = tl.load(values + at, mask=inside[:, None], other=0.0)
        total = total * shrink + tl.sum(weights, 1)
        sums = sums * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        top = new
    tl.store(output + place[:, None] * D + column[None, :], sums / total[:, None], mask=there[:, None])
    tl.store(mass + place, top + tl.log(total), mask=there)


@triton.jit(do_not_specialize=["room"])
def _own_kernel(
    query, keys, values, slot, alive, before, mass, output, scale, room,
    HEADS: tl.constexpr, TIMES: tl.constexpr, LANES: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64)  # row and head of keys
    # A row that has stopped keeps the prompt's part, and costs no reading until it leaves the batch.
    count = tl.load(alive + pair // HEADS) * (tl.load(slot) + 1).to(tl.int32)
    lane, column = tl.arange(0, LANES), tl.arange(0, D)
    there = lane < TIMES
    place = pair * TIMES + lane
    at = place[:, None] * D + column[None, :]
    queries = tl.load(query + at, mask=there[:, None], other=0.0).to(tl.float32) * scale
    # The prompt's part as a state of the running softmax: its log-sum-exp is the maximum, its weights sum to one.
    top = tl.load(mass + place, mask=there, other=0.0)
    total = tl.full([LANES], 1.0, tl.float32)
    sums = tl.load(before + at, mask=there[:, None], other=0.0)
    first = pair * room
    for start in range(0, count, BLOCK):
        token = start + tl.arange(0, BLOCK)
        inside = token < count
        where = (first + token)[:, None] * D + column[None, :]
        key = tl.load(keys + where, mask=inside[:, None], other=0.0).to(tl.float32)
        value = tl.load(values + where, mask=inside[:, None], other=0.0).to(tl.float32)
        scores = tl.sum(queries[:, None, :] * key[None, :, :], 2)
        scores = tl.where(inside[None, :], scores, -float("inf"))
        new = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp(top - new)
        weights = tl.exp(scores - new[:, None])
        total = total * shrink + tl.sum(weights, 1)
        sums = sums * shrink[:, None] + tl.sum(weights[:, :, None] * value[None, :, :], 1)
        top = new
    tl.store(output + at, (sums / total[:, None]).to(output.dtype.element_ty), mask=there[:, None])


def attention(query: Any, layer: Any, scale: float) -> Any:
    """Attention of `query` [R, H * M, d] to the prompts' and the rows' own tokens of a PrefixLayer. Same shape."""
    batch = layer.batch
    prompts, heads, width, size = layer.keys.shape
    rows, room = layer.own_keys.shape[0], layer.own_keys.shape[2]
    times = query.shape[1] // heads
    query = query.contiguous()
    before = query.new_empty(query.shape, dtype=torch.float32)
    mass = query.new_empty(query.shape[:2], dtype=torch.float32)
    output = torch.empty_like(query)
    block = max(16, PROMPT_BYTES // (size * query.element_size()))
    _prompt_kernel[(prompts, heads, triton.cdiv(batch.group * times, TILE))](
        query, layer.keys, layer.values, batch.table, batch.starts, before, mass, scale, batch.group, width,
        HEADS=heads, TIMES=times, D=size, TILE=TILE, BLOCK=block, num_warps=PROMPT_WARPS,
    )  # fmt: skip
    lanes = triton.next_power_of_2(times)
    _own_kernel[(rows * heads,)](
        query, layer.own_keys, layer.own_values, batch.slot, batch.alive, before, mass, output, scale, room,
        HEADS=heads, TIMES=times, LANES=lanes, D=size, BLOCK=max(16, OWN_NUMBERS // (lanes * size)), num_warps=OWN_WARPS,
    )  # fmt: skip
    return output
