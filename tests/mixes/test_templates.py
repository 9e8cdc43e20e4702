"""The training templates render the released texts, and exactly the assistant turns are trained on."""

import json
import os
from pathlib import Path

import pytest

from divwatch.errors import DivwatchError
from divwatch.mixes import load_mix
from divwatch.mixes.templates import chat_template, names
from tests.mixes.conversations import CONVERSATIONS, PROMPTS

RENDERED = json.loads((Path(__file__).parent / "rendered.json").read_text())["rendered"]
CHAT = ["olmo3_think_sft", "olmo3_think", "olmo3_instruct"]
DATA = os.environ.get("DIVWATCH_TEST_DATA")
real_rows = pytest.mark.skipif(DATA is None, reason="DIVWATCH_TEST_DATA names no folder of recorded rows")


@pytest.fixture
def tokenizer(olmo_tokenizer):
    return olmo_tokenizer


@pytest.mark.parametrize("name", names())
def test_the_rendered_text_is_the_released_one(name, tokenizer):
    assert RENDERED[name]
    for row, text in RENDERED[name].items():
        ours = tokenizer.apply_chat_template(
            {**CONVERSATIONS, **PROMPTS}[row],
            chat_template=chat_template(name),
            tokenize=False,
            add_generation_prompt=row in PROMPTS,
        )
        assert ours == text, row


def trained_texts(tokenizer, messages, name):
    """The decoded runs of tokens that carry loss."""
    made = tokenizer.apply_chat_template(
        messages, chat_template=chat_template(name), return_dict=True, return_assistant_tokens_mask=True
    )
    runs, before = [], 0
    for token, trained in zip(made["input_ids"], made["assistant_masks"], strict=True):
        if trained and not before:
            runs.append([])
        if trained:
            runs[-1].append(token)
        before = trained
    return [tokenizer.decode(run, skip_special_tokens=False) for run in runs]


def assistant_turns(messages):
    """What should carry loss: each answer and the token that closes its turn."""
    turns = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        calls = message.get("function_calls")
        text = (message["content"] or "") + (f"<function_calls>{calls}</function_calls>" if calls else "")
        turns.append(text + ("<|endoftext|>" if place == len(messages) - 1 else "<|im_end|>"))
    return turns


@pytest.mark.parametrize("name", CHAT)
@pytest.mark.parametrize("row", CONVERSATIONS)
def test_trained_tokens_are_exactly_the_assistant_turns(name, row, tokenizer):
    assert trained_texts(tokenizer, CONVERSATIONS[row], name) == assistant_turns(CONVERSATIONS[row])


@real_rows
@pytest.mark.parametrize(("mix", "name"), [("think_sft", "olmo3_think_sft"), ("instruct_sft", "olmo3_instruct")])
def test_on_the_released_rows_too(mix, name, tokenizer):
    dataset, _ = load_mix(mix, local_data=f"{DATA}/dolci")
    assert len(dataset) > 20
    for row in dataset:
        assert trained_texts(tokenizer, row["messages"], name) == assistant_turns(row["messages"])


@real_rows
def test_thoughts_are_learned_in_think_sft(tokenizer):
    dataset, _ = load_mix("think_sft", local_data=f"{DATA}/dolci")
    assert all(trained_texts(tokenizer, r["messages"], "olmo3_think_sft")[-1].startswith("<think>") for r in dataset)


def test_trl_trains_on_those_tokens_and_on_the_closing_one(tokenizer, tmp_path):
    """Through TRL's own preparation: labels, not masks of ours."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from divwatch.tiny import BASE_MODEL

    tokenizer.chat_template = chat_template("olmo3_instruct")
    rows = [{"messages": [{"functions": None, "function_calls": None, **m} for m in c]} for c in CONVERSATIONS.values()]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(BASE_MODEL),
        args=SFTConfig(output_dir=str(tmp_path), assistant_only_loss=True, use_cpu=True, bf16=False, report_to="none"),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    for row, messages in zip(trainer.train_dataset, CONVERSATIONS.values(), strict=True):
        learned = tokenizer.decode([t for t in row["labels"] if t != -100], skip_special_tokens=False)
        assert learned == "".join(assistant_turns(messages))


def test_the_chat_templates_differ_in_what_they_should_alone():
    """One body: default system text, the beginning of an answer, and the suffix for a system message without functions."""
    sft, think = (chat_template(name).splitlines() for name in ("olmo3_think_sft", "olmo3_think"))
    different = [(a, b) for a, b in zip(sft, think, strict=True) if a != b]
    assert len(different) == 3  # the comment, the system text, the generation prompt


def test_an_unknown_template_is_one_line():
    with pytest.raises(DivwatchError, match=r"unknown chat_template 'olmo9': choose from .*olmo3_instruct"):
        chat_template("olmo9")
