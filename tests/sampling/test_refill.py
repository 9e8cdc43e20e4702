"""Rows that are interrupted and continued in another batch have the tokens of rows decoded to their end, in less work."""

import threading
from contextlib import contextmanager

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from divwatch.config import WatchConfig
from divwatch.panel import choose
from divwatch.records import Prompt
from divwatch.sampling import Source, in_process, sample
from divwatch.sampling.decoding import Decoding
from divwatch.sampling.plan import Row
from divwatch.sampling.ranks import Ranks
from divwatch.sampling.request import Request
from divwatch.sampling.sampler import Sampler
from divwatch.tiny.panel import panel
from tests.training import load_model, load_tokenizer, sft_trainer

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 2,
}  # fmt: skip
HALVES = {"layer_types": ["linear_attention", "full_attention"]}
DELTA = {
    "head_dim": 8, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}  # fmt: skip
MODELS = {
    "Llama": {},
    "Olmo3": {"sliding_window": 16},
    "Qwen3_5Text": {**HALVES, **DELTA},
    "Mamba": {"state_size": 8, "expand": 2, "time_step_rank": 4},
}
LIMIT = 160
ROWS = [Row(i, k) for i in range(4) for k in range(6)]


def make_model(kind):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **MODELS[kind]})
    return AutoModelForCausalLM.from_config(config).double().eval()  # choices that rounding does not change


def make_request(mode="eager", close=()):
    """Prompts of four lengths; 1 of 50 tokens ends an answer, and one prompt's answers are cut early."""
    prompts = [Prompt(str(i), "test", "") for i in range(4)]
    how = Decoding(1.0, 1.0, [1], LIMIT, 20 if close else None, close, mode)
    ids = [[5, 6, 7], list(range(2, 42)), [9] * 20, [8] * 3]
    ends = [()] * 4
    return Request(Words(), prompts, ids, [True] * 4, [LIMIT, LIMIT, 70, LIMIT], ends, how, 0, torch.device("cpu"))


class Words:
    def decode(self, ids, skip_special_tokens=True):
        return "".join("</think>" if i == 7 else f"{i} " for i in ids)


def generated(model, request, refill, rows=ROWS):
    """(completions, rows of each forward of one token a row)."""
    sizes = []

    def count(module, args, kwargs):
        if kwargs["input_ids"].shape[1] == 1:
            sizes.append(len(kwargs["input_ids"]))

    with torch.no_grad(), model.register_forward_pre_hook(count, with_kwargs=True):
        return in_process.generate(model, request, rows, lambda done: None, refill), sizes


@pytest.fixture(scope="module")
def to_the_end():
    return generated(make_model("Llama"), make_request(), refill=False)[0]


@pytest.fixture
def little_room(monkeypatch):
    monkeypatch.setattr(in_process, "CPU_TOKENS", 1600)


@pytest.mark.usefixtures("little_room")
@pytest.mark.parametrize("kind", MODELS)
def test_tokens_are_equal_and_forwards_fewer(kind):
    model, request = make_model(kind), make_request()
    rows = ROWS[::6] if kind == "Mamba" else ROWS
    expected, apart = generated(model, request, False, rows)
    refilled, sizes = generated(model, request, True, rows)
    assert refilled == expected
    for one, other in zip(refilled, expected, strict=True):
        assert one.entropy == pytest.approx(other.entropy, abs=1e-4)
    if kind == "Mamba":  # rows of its cache are not selected, so its batches are decoded to their end
        assert sizes == apart
    else:
        assert len(sizes) < len(apart)


@pytest.mark.usefixtures("little_room")
def test_tokens_are_equal_over_a_shared_prefix():
    model = make_model("Llama").float()
    expected, apart = generated(model, make_request("shared"), refill=False)
    refilled, sizes = generated(model, make_request("shared"), refill=True)
    assert sum(a == b for a, b in zip(refilled, expected, strict=True)) >= 23
    assert len(sizes) < len(apart)


@pytest.mark.usefixtures("little_room")
def test_thoughts_are_closed_where_they_would_be():
    model, request = make_model("Llama"), make_request(close=(4, 7, 6))
    expected, _ = generated(model, request, refill=False)
    assert generated(model, request, refill=True)[0] == expected
    assert any(ids[20:23] == [4, 7, 6] for ids in expected)


def test_rows_that_fit_together_are_not_interrupted():
    _, sizes = generated(make_model("Llama"), make_request(), refill=True)
    assert sizes[0] == len(ROWS)
    assert len(sizes) < LIMIT


@pytest.mark.usefixtures("little_room")
@pytest.mark.parametrize("fits", [2, 0])
def test_continued_rows_that_do_not_fit_are_halved_and_at_last_start_over(to_the_end, fits):
    model, request, failures = make_model("Llama"), make_request(), []

    def fail(module, args, kwargs):
        rows, width = kwargs["input_ids"].shape
        if width > 41 and rows > fits:  # no prompt is that long
            failures.append(rows)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with model.register_forward_pre_hook(fail, with_kwargs=True):
        assert generated(model, request, refill=True)[0] == to_the_end
    assert failures


@pytest.mark.usefixtures("little_room")
def test_ranks_in_step_make_as_many_forwards(to_the_end):
    """One rank has long answers, one short ones, one nothing to do."""
    shares = [[row for row in ROWS if row.prompt != 2], [row for row in ROWS if row.prompt == 2], []]
    meeting = threading.Barrier(3, timeout=60)
    values, forwards, completions = [None] * 3, [0] * 3, {}

    class Meeting(Ranks):
        def share(self, value):
            values[self.rank] = value
            meeting.wait()
            shared = list(values)
            meeting.wait()
            return shared

        def any(self, flag, device="cpu"):
            return any(self.share(flag))

    def run(rank):
        model = models[rank]

        def count(*arguments):
            forwards[rank] += 1

        with torch.no_grad(), model.register_forward_pre_hook(count):
            ids = in_process.generate_in_step(model, make_request(), shares[rank], Meeting(rank, 3), lambda done: None)
        completions.update(zip(shares[rank], ids, strict=True))

    models = [make_model("Llama") for _ in range(3)]
    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [completions[row] for row in ROWS] == to_the_end
    assert len(set(forwards)) == 1


@contextmanager
def inputs_of(model):
    """(rows, tokens) of each forward."""
    shapes = []
    with model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    ):
        yield shapes


def test_a_look_at_the_embedded_model_has_the_tokens_that_its_prompts_have_alone():
    """More rows than fit into a batch, with answers of 1 to 300 tokens; three of four layers see a window of 64 tokens."""
    model, tokenizer = load_model(dropout=0.0).double(), load_tokenizer()
    prompts = choose(panel(), 12, 0)
    config = WatchConfig(samples=12, max_new_tokens=256, temperature=2.6, top_p=1.0)
    with inputs_of(model) as shapes:
        together = sample(Source(model), tokenizer, prompts, config, seed=0)
    read = max(len(tokenizer.apply_chat_template(p.messages, add_generation_prompt=True)["input_ids"]) for p in prompts)
    assert max(width for _, width in shapes) > read, "no row was interrupted"
    alone = []
    for prompt in prompts[::3]:  # 12 rows: a batch that nothing waits for
        with inputs_of(model) as shapes:
            alone += sample(Source(model), tokenizer, [prompt], config, seed=0)
        assert all(width == 1 for _, width in shapes[1:])
    compared = [c for c in together if c.prompt_id in {p.id for p in prompts[::3]}]
    assert [(c.text, c.tokens) for c in compared] == [(c.text, c.tokens) for c in alone]
    lengths = sorted(c.tokens for c in together)
    assert lengths[len(lengths) // 2] < 64 < 128 < lengths[-1]


def test_the_next_look_reserves_room_for_the_lengths_of_the_last_one(tmp_path):
    """Its rows fit into one batch, where the first look, which knew the limit alone, needed two or more."""
    trainer = sft_trainer(tmp_path)
    config = WatchConfig(samples=16, max_new_tokens=256)
    sampler, prompts = Sampler(trainer, config, Ranks()), choose(panel(), 12, 0)
    looks = []
    for step in range(2):
        with inputs_of(trainer.model) as shapes:
            completions, _ = sampler.sample(prompts, config, step, lambda done: None)
        looks.append(([c.text for c in completions], max(rows for rows, _ in shapes), len(shapes)))
    (first, rows, forwards), (second, rows_after, forwards_after) = looks
    assert rows < len(first) == rows_after
    assert forwards_after < forwards
    assert sum(one == other for one, other in zip(first, second, strict=True)) >= 0.98 * len(first)
