"""The text a model is given: chat or plain, thinking as trained or switched off; and prompts that do not fit."""

import json
from dataclasses import replace

import pytest
from datasets import Dataset

from divwatch.errors import DivwatchError
from divwatch.panel import fingerprint, load_panel
from divwatch.panel.form import (
    answer_opening,
    at_full_length,
    fixed_form,
    in_form,
    in_forms,
    opens_thought,
    prompt_text,
    stop_strings,
    within_context,
)
from divwatch.records import Prompt
from divwatch.verify.thinking import final_answer

TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
ASKS = "{% if add_generation_prompt %}<|im_start|>assistant\n"
PLAIN = f"{TURNS}{ASKS}{{% endif %}}"
THINKS = f"{TURNS}{ASKS}<think>{{% endif %}}"  # as Olmo 3 Think ends
THINKS_NEWLINE = f"{TURNS}{ASKS}<think>\n{{% endif %}}"
CLOSED = f"{TURNS}{ASKS}<think>\n\n</think>\n\n{{% endif %}}"  # as a template whose reasoning is off already

ASKED = Prompt("a", "gsm8k", "Why?", [{"role": "user", "content": "Why?"}], stop=("\nQuestion:",))
TEXT = Prompt("b", "mine", "Once upon a time", stop=("\n",))
HEAD = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def tokenizer():
    from transformers import AutoTokenizer

    from divwatch.tiny import BASE_MODEL

    return AutoTokenizer.from_pretrained(BASE_MODEL)


@pytest.mark.parametrize(
    ("template", "trained", "off"),
    [
        (PLAIN, HEAD, HEAD + "<think>\n</think>\n"),
        (THINKS, HEAD + "<think>", HEAD + "<think>\n</think>\n"),
        (THINKS_NEWLINE, HEAD + "<think>\n", HEAD + "<think>\n</think>\n"),
        (CLOSED, HEAD + "<think>\n\n</think>\n\n", HEAD + "<think>\n\n</think>\n\n"),
    ],
)
def test_thinking_off_is_an_empty_thought_whatever_the_template_opens(tokenizer, template, trained, off):
    tokenizer.chat_template = template
    assert prompt_text(tokenizer, ASKED) == trained
    assert prompt_text(tokenizer, ASKED, "off") == off
    assert opens_thought(trained) == (template in (THINKS, THINKS_NEWLINE))
    assert not opens_thought(off)
    assert final_answer(off + "Because.") == "Because."


def test_plain_form_is_the_text_alone(tokenizer):
    assert prompt_text(tokenizer, ASKED, form="plain") == "Why?"
    assert prompt_text(tokenizer, ASKED, "off", "plain") == "Why?<think>\n</think>\n"
    assert prompt_text(tokenizer, TEXT, form="chat") == prompt_text(tokenizer, TEXT, form="plain") == TEXT.text


def test_a_thought_in_the_question_is_not_one_of_the_models(tokenizer):
    prompt = Prompt("c", "mine", "Close <think>", [{"role": "user", "content": "Close <think>"}])
    assert not opens_thought(prompt_text(tokenizer, prompt))


def test_stop_strings_hold_in_plain_form_only():
    assert stop_strings(ASKED, "plain") == ("\nQuestion:",)
    assert stop_strings(ASKED, "chat") == ()
    assert stop_strings(TEXT, "chat") == ("\n",)


def test_auto_is_chat_where_there_is_a_template(tokenizer):
    assert fixed_form("auto", tokenizer) == "chat"
    assert fixed_form("plain", tokenizer) == "plain"
    tokenizer.chat_template = None
    assert fixed_form("auto", tokenizer) == "plain"
    with pytest.raises(DivwatchError, match="watch_form is chat but the tokenizer has no chat template"):
        fixed_form("chat", tokenizer)
    with pytest.raises(DivwatchError, match="watch_form is 'loud'"):
        fixed_form("loud", tokenizer)


def test_a_form_that_a_prompt_does_not_have_is_one_line(tokenizer):
    long = Prompt("d", "mine", "Why?", [{"role": "system", "content": "Be brief."}, *ASKED.messages])
    with pytest.raises(DivwatchError, match="'d' is a conversation of 2 turns, which has no plain form"):
        prompt_text(tokenizer, long, form="plain")
    tokenizer.chat_template = None
    with pytest.raises(DivwatchError, match="'a' is a conversation but the tokenizer has no chat template"):
        prompt_text(tokenizer, ASKED)


def test_prompts_longer_than_the_context_are_left_out_in_one_line(tokenizer):
    _, prompts = load_panel("quick")
    huge = [Prompt("huge", "mine", "word " * 500), *prompts]
    fitting, line = within_context(tokenizer, huge, context=600, new_tokens=256)
    assert fitting == prompts
    assert line.startswith(
        "1 of 97 prompts leave no room for 256 new tokens in a context of 600 (the longest, huge, has"
    )
    assert "\n" not in line
    assert within_context(tokenizer, prompts, context=600, new_tokens=256) == (prompts, None)
    with pytest.raises(DivwatchError, match=r"97 of 97 prompts leave no room .*: lower watch_max_new_tokens"):
        within_context(tokenizer, huge, context=200, new_tokens=200)


def test_a_window_that_nobody_asked_for_gives_way_to_a_long_prompt(tokenizer):
    long = Prompt("long", "mine", "word " * 40)
    length = len(tokenizer(long.text)["input_ids"])
    judged = Prompt("judged", "mine", "word " * 40, verifier="gsm8k", max_new_tokens=384)
    assert within_context(tokenizer, [long], context=length + 300, new_tokens=None) == ([long], None)
    for prompt, context, new_tokens in ((long, 255, None), (long, 300, 384), (judged, 300, None)):
        with pytest.raises(DivwatchError, match="leave no room"):
            within_context(tokenizer, [prompt], context=length + context, new_tokens=new_tokens)


@pytest.mark.parametrize("setting", ["form", "held_out"])
def test_a_wrong_setting_names_the_choices(setting):
    from divwatch.config import WatchConfig

    with pytest.raises(DivwatchError, match=f"^{setting} is 'maybe': choose from"):
        WatchConfig(**{setting: "maybe"})


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [("as-trained", "e79ed0e7c8718d48"), ("off", "8e5b65c60569f4f4"), ("both", "711939c2a2c99cd5")],
)
def test_a_panels_fingerprint_is_that_of_earlier_run_directories(thinking, expected):
    """A resumed run and `measure --like` compare it with what an earlier version wrote."""
    assert fingerprint(in_forms(load_panel("quick")[1], thinking)) == expected


def test_a_prompt_repeated_with_thinking_names_the_prompt_that_it_repeats():
    _, prompts = load_panel("quick")
    both = in_forms(prompts, "both")
    off, trained = both[: len(prompts)], both[len(prompts) :]
    assert [p.id for p in off] == [p.variant_of for p in trained] == [p.id for p in prompts]
    assert {p.variant_of for p in off} == {None}
    assert [p.id for p in at_full_length(both)] == [p.id for p in prompts]
    assert {p.thinking for p in at_full_length(both)} == {"as-trained"}


def test_a_text_of_a_panel_file_is_asked_through_the_template(tmp_path, tokenizer):
    """In chat form a text is a user's turn, with its tools; one that the template has rendered stays as it is."""
    weather = {"type": "function", "function": {"name": "weather", "description": "", "parameters": {}}}
    turns = [{"role": "user", "content": "Why not?"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    lines = [{"prompt": "Why?"}, {"prompt": turns}, {"prompt": rendered}, {"prompt": "Rome?", "tools": [weather]}]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text, asked, as_it_is, with_tools = load_panel(str(file), opening=answer_opening(tokenizer))[1]
    assert prompt_text(tokenizer, text) == tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why?"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt_text(tokenizer, as_it_is) == prompt_text(tokenizer, asked) == rendered
    assert with_tools.tools == [weather]
    plain = in_form([text], "plain")
    assert prompt_text(tokenizer, plain[0], form="plain") == "Why?"
    assert fingerprint(plain) == fingerprint([replace(text, templated=False)]) != fingerprint([text])


def test_a_text_of_an_eval_dataset_is_asked_as_it_is_trained_on(tokenizer):
    rows = Dataset.from_list([{"prompt": "Why?", "completion": " So."}])
    (prompt,) = load_panel(None, rows, opening=answer_opening(tokenizer))[1]
    assert prompt_text(tokenizer, prompt) == "Why?"
