"""Decoding over a prompt's keys stored once: the same tokens as over repeated ones, on the models that allow it."""

import gc
from dataclasses import replace

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig

from divwatch.config import WatchConfig
from divwatch.panel import choose
from divwatch.sampling import in_process, untouched
from divwatch.sampling.decode import decode, supports_prefix
from divwatch.sampling.decoding import Decoding
from divwatch.sampling.graph import Recorder, is_recordable
from divwatch.sampling.noise import token_seeds
from divwatch.sampling.nucleus import draw, draw_without_sync
from divwatch.sampling.plan import Need, Row, count_that_fit, stored_tokens
from divwatch.sampling.prefix import PrefixLayer, kernels_work
from divwatch.sampling.request import make_request
from divwatch.tiny.panel import panel

CPU = torch.device("cpu")
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))
PROMPTS = [[5, 6, 7], list(range(2, 42)), [9] * 20]
OWNERS = [0, 1, 0, 2, 1, 2, 2, 0]
LIMITS = [100, 100, 30, 100, 7, 100, 1, 100]
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 50,
    "max_position_embeddings": 512, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 2,
}  # fmt: skip
FITS = {
    "Olmo3": {"hidden_size": 64, "num_key_value_heads": 4, "sliding_window": 400},
    "Llama": {"hidden_size": 64, "num_key_value_heads": 2},
    "Qwen3": {"num_key_value_heads": 1, "head_dim": 16},
    "Qwen3Moe": {"num_key_value_heads": 2, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2},
    "GPTNeoX": {},
}
FALLS_BACK = {
    "Olmo3": {"num_key_value_heads": 2, "sliding_window": 64},
    "Gemma2": {"num_key_value_heads": 2, "head_dim": 16},
    "GptOss": {"num_key_value_heads": 2, "head_dim": 16, "num_local_experts": 4, "sliding_window": 400},
    "Bloom": {"n_head": 4},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32},
}


def make_model(kind, sizes, dtype=torch.float32, device="cpu", sharpness=20):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **sizes})
    model = AutoModelForCausalLM.from_config(config).to(device, dtype).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(sharpness)  # choices that rounding cannot change
    return model


def tokens_of(model, mode, how=None, limits=LIMITS, device="cpu"):
    how = replace(how or Decoding(0.7, 0.9, [1, 3], 100, 10, (4, 5)), mode=mode)
    seeds = token_seeds(0, [("p", k) for k in range(len(OWNERS))], how.limit)
    with torch.no_grad():
        return decode(model, PROMPTS, OWNERS, seeds, limits, how, torch.device(device), lambda row, ids: row % 2 == 0)


def caches_of(model, seen):
    return model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(type(kwargs["past_key_values"]).__name__), with_kwargs=True
    )


@pytest.mark.parametrize("kind", FITS)
def test_a_shared_prefix_gives_the_tokens_of_repeated_keys(kind):
    """Padded prompts, unequal limits, thoughts closed by force, rows and then whole prompts leaving."""
    model, seen = make_model(kind, FITS[kind]), []
    expected = tokens_of(model, "eager")
    attention = model.config._attn_implementation
    with caches_of(model, seen):
        assert tokens_of(model, "shared") == expected
    assert len({len(row) for row in expected}) > 4
    assert set(seen) == {"DynamicCache", "PrefixCache"}
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("kind", ["Olmo3", "Llama"])
def test_a_shared_prefix_in_bf16(kind):
    """Both round, in another order: where two tokens are about equally probable a row may part."""
    model = make_model(kind, FITS[kind], torch.bfloat16, sharpness=1)
    pairs = zip(tokens_of(model, "shared"), tokens_of(model, "eager"), strict=True)
    assert sum(a == b for a, b in pairs) >= 7


@pytest.mark.parametrize("kind", FALLS_BACK)
def test_a_model_that_does_not_fit_repeats_the_keys(kind):
    model = make_model(kind, FALLS_BACK[kind])
    attention = model.config._attn_implementation
    assert tokens_of(model, "shared") == tokens_of(model, "eager")
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("mode", ["shared", "captured"])
def test_near_zero_temperature_gives_what_generate_gives(mode):
    model = make_model("Llama", FITS["Llama"])
    made = tokens_of(model, mode, Decoding(1e-6, 0.5, [1], 70), [70] * 8)
    asked = GenerationConfig(do_sample=False, max_new_tokens=70, eos_token_id=1, pad_token_id=0)
    for owner, prompt in enumerate(PROMPTS):
        expected = model.generate(torch.tensor([prompt]), generation_config=asked)[0, len(prompt) :].tolist()
        assert all(row == expected for row, of in zip(made, OWNERS, strict=True) if of == owner)


def test_a_lora_model_shares_prefixes_too():
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model, seen = peft.get_peft_model(make_model("Llama", FITS["Llama"]), lora).eval(), []
    expected = tokens_of(model, "eager")
    with caches_of(model.get_base_model(), seen):
        assert tokens_of(model, "shared") == expected
    assert "PrefixCache" in seen


def test_the_attention_comes_back_also_after_an_error():
    model = make_model("Llama", FITS["Llama"])
    attention, calls = model.config._attn_implementation, []

    def fail(module, args):
        calls.append(module.config._attn_implementation)
        if len(calls) == 5:
            raise ZeroDivisionError

    with model.register_forward_pre_hook(fail), pytest.raises(ZeroDivisionError):
        tokens_of(model, "shared")
    assert calls[-1] != attention == model.config._attn_implementation


def test_a_batch_leaves_its_keys_to_nobody():
    """They are most of the memory: the next batch must have it without a garbage collection."""
    model = make_model("Llama", FITS["Llama"])
    gc.collect()
    gc.disable()
    try:
        tokens_of(model, "shared")
        assert not [thing for thing in gc.get_objects() if isinstance(thing, PrefixLayer)]
    finally:
        gc.enable()


def test_weights_and_modes_stay(base):
    model, tokenizer = base
    before = {name: p.clone() for name, p in model.state_dict().items()}
    generated(model, tokenizer, "shared")
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def generated(model, tokenizer, mode, progress=lambda done: None):
    prompts = choose(panel(), 12, 0)
    request = make_request(model, tokenizer, prompts, WatchConfig(samples=4, max_new_tokens=32), 0, model.device)
    request = replace(request, how=replace(request.how, mode=mode))
    rows = [Row(i, k) for i in range(12) for k in range(4)]
    with untouched(model, model.device), torch.no_grad():
        return in_process.generate(model, request, rows, progress)


def test_the_panel_of_the_embedded_base_has_the_same_completions(base):
    assert generated(*base, "shared") == generated(*base, "eager")


@pytest.mark.parametrize("at", [1, 2, 20])
def test_running_out_of_memory_at_any_step_halves_the_batch(base, at):
    """At the first step over the shared prefix, where a step would be recorded, and in the middle."""
    model, sizes, calls = base[0], [], []
    expected = generated(*base, "eager")

    def fail(module, args, kwargs):
        calls.append(len(kwargs["input_ids"]))
        if kwargs["input_ids"].shape == (48, 1) and calls.count(48) == at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with model.register_forward_pre_hook(fail, with_kwargs=True):
        made = generated(*base, "shared", sizes.append)
    assert made == expected
    if at < 20:
        assert len(sizes) > 1
        assert max(sizes) < 48


def test_prompts_count_once_where_they_are_shared():
    needs = [Need(i, length, 100) for i, length in enumerate([300, 300, 290, 280]) for _ in range(16)]
    apart, shared = count_that_fit(needs, 3000), count_that_fit(needs, 3000, shared=True)
    assert shared > 2 * apart
    assert stored_tokens(needs[:shared], shared=True) <= 3000


@pytest.mark.parametrize("kind", FITS | FALLS_BACK)
def test_what_is_expected_of_a_model_agrees_with_its_config(kind):
    if kind in FITS:
        assert supports_prefix(make_model(kind, FITS[kind]), 140)
    if kind in ("Olmo3", "Gemma2", "Bloom"):
        assert not supports_prefix(make_model(kind, FALLS_BACK[kind]), 140)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("count", [1, 7, 300])
def test_the_draw_without_a_wait_is_the_draw(top_p, count):
    """What it leaves open it says; the rest are the tokens of `draw`. Open rows are rare where top-p is high."""
    left = total = 0
    for seed in range(10):
        logits = torch.randn(count, 40, generator=torch.Generator().manual_seed(seed)) * 3
        seeds = torch.tensor(token_seeds(seed, [("p", k) for k in range(count)], 1)[:, 0])
        tokens, open_, finite = draw_without_sync(logits, seeds, 0.7, top_p)
        expected = draw(logits, seeds, 0.7, top_p)
        assert torch.equal(tokens[~open_], expected[~open_])
        assert bool(finite)
        left, total = left + int(open_.sum()), total + count
    assert left == 0 if top_p >= 0.95 else left < total


def test_the_draw_does_not_depend_on_the_parts_it_is_made_in(monkeypatch):
    from divwatch.sampling import nucleus

    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) * 3
    seeds = torch.tensor(token_seeds(0, [("p", k) for k in range(50)], 1)[:, 0])
    whole, whole_open = draw(logits, seeds, 0.7, 0.6), draw_without_sync(logits, seeds, 0.7, 0.6)
    monkeypatch.setattr(nucleus, "CPU_CHUNK_BYTES", 4 * 40 * 7)
    assert torch.equal(draw(logits, seeds, 0.7, 0.6), whole)
    assert all(map(torch.equal, draw_without_sync(logits, seeds, 0.7, 0.6), whole_open))


def test_the_draw_without_a_wait_says_where_logits_are_not_finite():
    logits = torch.zeros(3, 10)
    logits[1, 4] = float("nan")
    assert not draw_without_sync(logits, torch.ones(3, 2, dtype=torch.int32), 1.0, 0.9)[2]


def test_a_model_with_hooks_is_not_recorded_but_for_those_of_checkpointing():
    model = make_model("Llama", FITS["Llama"])
    assert is_recordable(model)
    model.enable_input_require_grads()
    assert is_recordable(model)
    with model.model.layers[0].register_forward_hook(lambda *arguments: None):
        assert not is_recordable(model)


class Stale(Recorder):
    """Replays a recording that reads what the recorded step read: nothing changes from then on."""

    def __init__(self, device, capture):
        super().__init__(device, capture)
        self.capture = self.runs = 0

    @property
    def recorded(self):
        return self.runs > 1

    def run(self, step):
        self.runs += 1
        if self.runs <= 2:
            step()


def test_a_recording_that_gives_other_logits_than_the_step_is_not_used(monkeypatch, caplog):
    model = make_model("Llama", FITS["Llama"])
    expected = tokens_of(model, "eager")
    monkeypatch.setattr("divwatch.sampling.steps.Recorder", Stale)
    with caplog.at_level("INFO", logger="divwatch"):
        assert tokens_of(model, "captured") == expected
    assert "a replayed step gave other logits than the step itself" in caplog.text


# On a device.


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [16, 64, 128, 256])
@pytest.mark.parametrize("queries", [1, 4, 5])
def test_the_kernels_agree_with_the_products(device, dtype, size, queries):
    assert kernels_work(torch.device(device), size, size, dtype, queries)


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("kind", FITS)
def test_captured_steps_give_the_tokens_of_eager_ones(kind, device):
    model = make_model(kind, FITS[kind], device=device)
    expected = tokens_of(model, "eager", device=device)
    state = torch.cuda.get_rng_state()
    assert tokens_of(model, "captured", device=device) == expected
    assert tokens_of(model, "shared", device=device) == expected
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert torch.cuda.get_sync_debug_mode() == 0


@pytest.mark.parametrize("device", [CUDA])
def test_graphs_are_freed(device):
    model = make_model("Llama", FITS["Llama"], device=device)
    tokens_of(model, "captured", device=device)  # libraries take their workspaces
    gc.collect(), torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    tokens_of(model, "captured", device=device)
    gc.collect(), torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + 2**21


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("when", [1, 2])
def test_a_step_that_cannot_be_recorded_runs_as_it_is(device, when):
    """A wait for the device at the rehearsal, or only while recording; afterwards dropout and allocation work."""
    values, calls = torch.arange(3.0, device=device), []

    def step():
        calls.append(1)
        if len(calls) >= when:
            values.sum().item()
        values.add_(1)

    with Recorder(torch.device("cuda", 0), True) as recorder:
        for _ in range(4):
            recorder.run(step)
        assert not recorder.capture
    torch.nn.functional.dropout(torch.ones(10, device=device))
    torch.cuda.empty_cache()
    assert values.tolist() == [4, 5, 6]
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
