"""Sampling: a model, a tokenizer or a memory that fails in a look. One process here; tests/launched has the ranks."""

import json

import pytest
import torch

from divwatch.errors import DivwatchError
from divwatch.sampling import in_process
from tests.faults.test_storage import clean_next_start
from tests.faults.undisturbed import At, before_the_look, cell, statuses
from tests.training import lora_trainer, sft_trainer

ALL_OK = [(step, "ok") for step in range(4)]


def failed_at(*steps):
    return [(step, "failed" if step in steps else "ok") for step in range(4)]


def in_looks(trainer, steps, what):
    """Calls `what(logits)` on the model's output in the looks of these steps; it may raise or return other logits."""

    def hook(module, inputs, output):
        if not trainer.model.training and trainer.state.global_step in steps:
            return what(output)
        return None

    return trainer.model.get_output_embeddings().register_forward_hook(hook)


def raising(error):
    def what(_):
        raise error

    return what


def spoiled(value, everywhere):
    def what(logits):
        made = logits.clone()
        if everywhere:
            made[:] = value
        else:
            made[0, -1, 5] = value
        return made

    return what


RAISED = [
    cell("exception in the first look", [0], RuntimeError("planted"), "RuntimeError: planted"),
    cell("exception in the last look", [3], RuntimeError("planted"), "RuntimeError: planted", slow=True),
    cell("exception in every look", [0, 1, 2, 3], RuntimeError("planted"), "RuntimeError: planted", slow=True),
    cell(
        "out of memory in the first look, however small the batch",
        [0],
        torch.OutOfMemoryError("CUDA out of memory"),
        "OutOfMemoryError",
    ),
    cell(
        "out of memory in the last look, however small the batch",
        [3],
        torch.OutOfMemoryError("CUDA out of memory"),
        "OutOfMemoryError",
        slow=True,
    ),
    cell("out of memory on the CPU (MemoryError)", [2], MemoryError("planted"), "MemoryError", slow=True),
    cell(
        "a CUDA error in a look",
        [2],
        RuntimeError("CUDA error: an illegal memory access\nmore lines"),
        "illegal memory",
        slow=True,
    ),
    cell("an exception without a message", [2], AssertionError(), "AssertionError", slow=True),
]


@pytest.mark.parametrize(("steps", "error", "says"), RAISED)
def test_a_model_that_raises(tmp_path, survive, steps, error, says):
    """The look is failed with its reason, the others are whole, the next start is clean."""
    store = survive(lambda trainer: in_looks(trainer, steps, raising(error)) and None)
    assert statuses(store) == failed_at(*steps)
    assert says in store.looks()[steps[0]]["reason"]
    assert "\n" not in store.looks()[steps[0]]["reason"]
    clean_next_start(tmp_path)


def test_batches_are_made_smaller(survive, monkeypatch):
    """The look is taken in smaller batches, and draws the same."""
    real = in_process.decode_batch

    def plant(trainer):
        def decode(model, request, batch, any_rank):
            if trainer.state.global_step == 2 and len(batch) > 4:
                raise torch.OutOfMemoryError("planted")
            return real(model, request, batch, any_rank)

        monkeypatch.setattr(in_process, "decode_batch", decode)

    assert statuses(survive(plant)) == ALL_OK


NOT_FINITE = [
    cell("all logits NaN in a look", float("nan"), True),
    cell("one logit NaN in a look", float("nan"), False, slow=True),
    cell("all logits infinite in a look", float("inf"), True, slow=True),
    cell("one logit infinite in a look", float("inf"), False, slow=True),
    cell("all logits minus infinity in a look", float("-inf"), True, slow=True),
]


@pytest.mark.parametrize(("value", "everywhere"), NOT_FINITE)
def test_logits_that_are_not_finite(survive, value, everywhere):
    """The look is failed and says that the logits are not finite."""
    store = survive(lambda trainer: in_looks(trainer, [2], spoiled(value, everywhere)) and None)
    assert statuses(store) == failed_at(2)
    assert "not finite" in store.looks()[2]["reason"]


def never_ending(trainer):
    stop = trainer.processing_class.eos_token_id

    def what(logits):
        made = logits.clone()
        made[..., stop] = float("-inf")
        return made

    return in_looks(trainer, [1, 2], what)


def silent(trainer):
    stop = trainer.processing_class.eos_token_id

    def what(logits):
        made = torch.full_like(logits, -1e4)
        made[..., stop] = 0.0
        return made

    return in_looks(trainer, [1, 2], what)


def rambling(trainer):
    """One token for ever."""

    def what(logits):
        made = torch.full_like(logits, -1e4)
        made[..., 7] = 0.0
        return made

    return in_looks(trainer, [1, 2], what)


@pytest.mark.parametrize(
    "plant",
    [
        cell("a model that never stops", never_ending),
        cell("a model that says nothing", silent, slow=True),
        cell("a model that repeats one token without end", rambling, slow=True),
    ],
)
def test_outputs_that_are_no_answers(survive, plant):
    """The look is on record as not comparable, bounded by the token limit; later looks are."""
    store = survive(lambda trainer: plant(trainer) and None)
    assert statuses(store) == [(0, "ok"), (1, "not_comparable"), (2, "not_comparable"), (3, "ok")]
    looks = store.looks()
    assert looks[1]["finished_share"] == 0
    assert f"{looks[1]['usable_share']:.0%} of the outputs are finished" in looks[1]["reason"]


def without_pad(trainer):
    trainer.processing_class.pad_token = None


def without_eos(trainer):
    trainer.processing_class.eos_token = None
    trainer.model.generation_config.eos_token_id = None


def without_template(trainer):
    trainer.processing_class.chat_template = None


def broken_template(trainer):
    trainer.processing_class.chat_template = "{{ raise_exception('planted') }}"


def template_that_breaks_later(trainer):
    before_the_look(trainer, 2, lambda: broken_template(trainer))


def failing_decode(trainer):
    def decode(*_, **__):
        raise UnicodeDecodeError("utf-8", b"x", 0, 1, "planted")

    before_the_look(trainer, 2, lambda: setattr(trainer.processing_class, "decode", decode))


def left_padding(trainer):
    trainer.processing_class.padding_side = "left"


TOKENIZERS = [
    cell("tokenizer without a pad token", without_pad, ALL_OK),
    cell("tokenizer and model without an end token", without_eos, failed_at(0, 1, 2, 3), slow=True),
    cell(
        "tokenizer that loses its template in the middle",
        lambda t: before_the_look(t, 2, lambda: without_template(t)),
        None,
        slow=True,
    ),
    cell("template that raises from the third look on", template_that_breaks_later, failed_at(2, 3), slow=True),
    cell("tokenizer that cannot decode from the third look on", failing_decode, failed_at(2, 3), slow=True),
    cell("tokenizer that pads on the left", left_padding, ALL_OK, slow=True),
]


@pytest.mark.parametrize(("plant", "expected"), TOKENIZERS)
def test_a_tokenizer_that_lacks_something(survive, plant, expected):
    """Looks are whole where they can be, failed with the reason where not; the tokenizer is left as it was."""
    seen = {}

    def planted(trainer):
        plant(trainer)
        seen["tokenizer"], seen["side"] = trainer.processing_class, trainer.processing_class.padding_side

    found = statuses(survive(planted))
    assert [step for step, _ in found] == [0, 1, 2, 3]
    assert expected is None or found == expected
    assert seen["tokenizer"].padding_side == seen["side"]


@pytest.mark.slow
def test_no_template_from_the_start(tmp_path):
    """Prompts of one turn are asked in plain form; every look is on record."""
    import divwatch
    from divwatch.store.run_directory import RunDirectory

    trainer = sft_trainer(tmp_path, steps=2)
    trainer.processing_class.chat_template = None
    from tests.faults.undisturbed import QUICK

    divwatch.watch(trainer, **QUICK)
    trainer.train()
    store = RunDirectory.of(tmp_path)
    assert [step for step, _ in statuses(store)] == [0, 1, 2]
    assert store.info()["form"] == "plain"


def write_panel(path, texts):
    path.write_text("".join(json.dumps({"prompt": text, "id": str(i)}) + "\n" for i, text in enumerate(texts)))
    return str(path)


@pytest.mark.slow
def test_prompts_that_are_too_long(tmp_path, survive):
    """They are left out, with a line that says so; the others are watched."""
    path = write_panel(tmp_path / "panel.jsonl", ["word " * 5000, *(f"Tell me {i}." for i in range(5))])
    store = survive(panel=path, held_out="off", min_usable=0)
    assert statuses(store) == ALL_OK
    assert len(store.info()["panel"]["prompts"]) == 5


@pytest.mark.slow
def test_only_prompts_that_are_too_long(tmp_path, survive):
    """Refused before the first step, in one line."""
    path = write_panel(tmp_path / "panel.jsonl", ["word " * 5000, "word " * 6000])
    with pytest.raises(DivwatchError, match="leave no room") as error:
        survive(panel=path, held_out="off")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_limit_beyond_the_context(survive):
    """Refused before the first step, in one line."""
    with pytest.raises(DivwatchError, match="leave no room"):
        survive(max_new_tokens=1_000_000)


def adapter_off(trainer):
    before_the_look(trainer, 2, trainer.model.base_model.disable_adapter_layers)
    trainer.callback_handler.callbacks.append(At(2, trainer.model.base_model.enable_adapter_layers))


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        cell("LoRA: adapters switched off at a look", adapter_off, ALL_OK),
        cell(
            "LoRA: exception in a look",
            lambda t: in_looks(t, [2], raising(RuntimeError("planted"))) and None,
            failed_at(2),
            slow=True,
        ),
    ],
)
def test_lora(survive, plant, expected):
    """Adapters are after the look as they were before it."""
    assert statuses(survive(plant, kind=lora_trainer)) == expected


@pytest.mark.slow
def test_modes_are_kept(survive):
    """Every module's mode is as it was."""
    seen = []

    def plant(trainer):
        part = trainer.model.model.layers[0]

        def freeze():
            part.eval()
            seen.append([m.training for m in trainer.model.modules()])

        def check():
            seen.append([m.training for m in trainer.model.modules()])
            part.train()

        before_the_look(trainer, 2, freeze)
        trainer.callback_handler.callbacks.append(At(2, check))

    assert statuses(survive(plant)) == ALL_OK
    assert seen[0] == seen[1]
    assert not all(seen[0])
