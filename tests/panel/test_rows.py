"""What a look asks is what TRL trains on: rows in every format, read by real trainers and by the monitor."""

import copy
import json

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from divwatch import DiversityCallback, DivwatchError, WatchConfig
from divwatch.panel import fingerprint, load_panel
from divwatch.panel.form import prompt_text
from divwatch.panel.rows import COLUMNS, Unaskable, to_prompt
from divwatch.panel.sources import from_dataset
from divwatch.records import Prompt
from divwatch.sampling.request import make_request
from divwatch.sampling.tokens import tokenizer_of
from tests.training import common, load_model, load_tokenizer

TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTOOLS{% for t in tools %} {{ t['function']['name'] }}{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% elif m['content'] %}{% for p in m['content'] %}{{ p['text'] }}"
    "{% endfor %}{% endif %}{% for c in m['tool_calls'] or [] %}CALL {{ c['function'] | tojson }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
)
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city.", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}


def user(content):
    return {"role": "user", "content": content}


def said(content, **more):
    return {"role": "assistant", "content": content, **more}


CALLED = said(None, tool_calls=[CALL])
RESULT = {"role": "tool", "name": "weather", "content": "sunny"}
PARTS = [{"type": "text", "text": "Name a colour"}, {"type": "text", "text": ", please."}]
THINKING = {"chat_template_kwargs": {"enable_thinking": True}}


@pytest.fixture(scope="module")
def tokenizer():
    own = load_tokenizer()
    own.chat_template = TEMPLATE
    return own


def make_sft_trainer(tmp_path, tokenizer, rows, **changes):
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(
        model=load_model(),
        args=SFTConfig(**common(tmp_path, 1, **changes)),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
    )


def asked(trainer, tokenizer, **settings):
    """The token ids that a look gives the model for each prompt."""
    callback = DiversityCallback(trainer, WatchConfig(**settings))
    prompts = callback.recorder.panel.candidates
    return make_request(trainer.model, tokenizer, prompts, callback.config, 0, torch.device("cpu")).encoded


@pytest.mark.parametrize(
    ("row", "holds"),
    [
        ({"messages": [user("Rome?"), said("Sunny.")], "tools": [WEATHER]}, "TOOLS weather"),
        ({"messages": [user("Rome?"), said("Sunny.")], "tools": json.dumps([WEATHER])}, "TOOLS weather"),
        ({"messages": [user("Rome?"), CALLED, RESULT, said("Sunny.")]}, "tool\nsunny"),
        ({"messages": [user(PARTS), said([{"type": "text", "text": "red"}])]}, "Name a colour, please."),
        ({"prompt": [user("Rome?"), CALLED, RESULT], "completion": [said("Sunny.")], "tools": [WEATHER]}, "CALL"),
        ({"prompt": [user("Why?")], "completion": [said("So.")], **THINKING}, "<think>"),
        ({"prompt": "Once upon", "completion": " a time"}, "Once upon"),
        ({"text": "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n"}, "user\nWhy?"),
        ({"conversations": [{"from": "user", "value": "Why?"}, {"from": "assistant", "value": "So."}]}, "user\nWhy?"),
        ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}, "human\nWhy?"),
    ],
)
def test_sft_trains_on_what_a_look_asks(tmp_path, tokenizer, row, holds):
    trainer = make_sft_trainer(tmp_path, tokenizer, Dataset.from_list([row, row]))
    (ids,) = asked(trainer, tokenizer)
    assert holds in tokenizer.decode(ids)
    trained = trainer.eval_dataset[0]["input_ids"]
    if row.get("chat_template_kwargs") is None and "conversations" not in row:
        assert ids == trained[: len(ids)]
    else:  # the end of the generation prompt is not part of a finished conversation
        shared = tokenizer.decode(ids).rpartition("<|im_start|>")[0]
        assert tokenizer.decode(trained).startswith(shared)


@pytest.mark.parametrize(
    "row",
    [
        {
            "prompt": [user("Rome?")],
            "chosen": [said("Sun.")],
            "rejected": [said("No.")],
            "tools": json.dumps([WEATHER]),
        },
        {
            "chosen": [user("Rome?"), CALLED, RESULT, said("Sun.")],
            "rejected": [user("Rome?"), CALLED, RESULT, said("No.")],
        },
        {"chosen": [user(PARTS), said(PARTS[:1])], "rejected": [user(PARTS), said(PARTS[1:])], "tools": [WEATHER]},
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"prompt": "The sky", "chosen": " is blue.", "rejected": " is green."},
    ],
)
def test_dpo_trains_on_what_a_look_asks(tmp_path, tokenizer, row):
    from trl import DPOConfig, DPOTrainer

    rows = Dataset.from_list([row, row])
    trainer = DPOTrainer(
        model=load_model(),
        args=DPOConfig(**common(tmp_path, 1)),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
    )
    (ids,) = asked(trainer, tokenizer)
    trained = trainer.eval_dataset[0]["prompt_ids"]
    assert ids[: len(trained)] == trained
    assert ids[len(trained) :] == [] or isinstance(row.get("chosen"), str)  # words may merge with the answer's


def test_grpo_gives_every_prompt_the_trainers_tools_and_template_arguments(tmp_path, tokenizer):
    from trl import GRPOConfig, GRPOTrainer

    rows = Dataset.from_list([{"prompt": [user("Rome?")], "tools": json.dumps([WEATHER])}] * 4)
    trainer = GRPOTrainer(
        model=load_model(),
        args=GRPOConfig(
            **common(tmp_path, 1, num_generations=4, max_completion_length=8),
            chat_template_kwargs={"enable_thinking": True},
        ),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
    )
    (ids,) = asked(trainer, tokenizer)
    assert ids == trainer._tokenize_prompts([[user("Rome?")]])[0][0]
    assert tokenizer.decode(ids).endswith("<think>\n")


def test_grpo_with_tools_that_are_functions_shows_them_in_every_prompt(tmp_path):
    """With the chat template that TRL gives the trainer in place of the tokenizer's."""
    from trl import GRPOConfig, GRPOTrainer
    from trl.chat_template_utils import qwen3_chat_template

    def weather(city: str) -> str:
        """Weather of a city.

        Args:
            city: Its name.
        """
        return "sunny"

    own = load_tokenizer()
    own.chat_template = qwen3_chat_template
    rows = Dataset.from_list([{"prompt": [user("Rome?")]}] * 4)
    trainer = GRPOTrainer(
        model=load_model(),
        args=GRPOConfig(**common(tmp_path, 1, num_generations=4, max_completion_length=8)),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=own,
        tools=[weather],
    )
    (ids,) = asked(trainer, tokenizer_of(trainer), max_new_tokens=4)
    assert trainer.chat_template != own.chat_template
    assert ids == trainer._tokenize_prompts([[user("Rome?")]])[0][0]
    assert "Weather of a city." in own.decode(ids)


def test_a_look_in_training_asks_with_tools(tmp_path, tokenizer):
    """The model itself sees them, at the look before the first step and after a resume."""
    import divwatch

    row = {"messages": [user("Rome?"), said("Sunny.")], "tools": json.dumps([WEATHER])}
    rows = Dataset.from_list([row] * 4)
    for resume in (False, True):
        trainer = make_sft_trainer(
            tmp_path, tokenizer, rows, max_steps=2 if resume else 1, save_strategy="steps", save_steps=1
        )
        divwatch.watch(
            trainer,
            samples=2,
            max_new_tokens=4,
            metrics=["ead"],
            held_out="off",
            background=False,
            on_error="raise",
            every=1,
        )
        seen = []

        def note_inputs(model, args, kwargs, seen=seen):
            if not model.training:
                seen.append(tokenizer.decode(kwargs["input_ids"][0]))

        trainer.model.register_forward_pre_hook(note_inputs, with_kwargs=True)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1") if resume else None)
        assert any("TOOLS weather" in text for text in seen)


def test_tools_and_template_arguments_tell_prompts_apart_and_old_fingerprints_stay():
    row = {"messages": [user("Why?"), said("So.")]}
    bare = row | {"tools": None, "chat_template_kwargs": None}
    rows = [bare, bare | {"tools": [WEATHER]}, bare | THINKING, bare]
    plain, *others = from_dataset(Dataset.from_list(rows))
    assert len({fingerprint([p]) for p in (plain, *others)}) == 3
    narrow = Prompt("eval/0", "eval", "Why?", [user("Why?")])
    wide = Prompt("eval/0", "eval", "Why?", [user("Why?") | {"tool_calls": None}])  # as a table pads its turns
    assert fingerprint([narrow]) == fingerprint([wide]) == fingerprint([plain])


ODD = [
    {"messages": []},
    {"messages": None},
    {"messages": [user("  ")]},
    {"messages": [said("Hello.")]},
    {"messages": [{"role": "system", "content": "Be brief."}]},
    {"messages": [user(None), said("So.")]},
    {"messages": [user([{"type": "image"}, {"type": "text", "text": "What is it?"}]), said("A cat.")]},
    {"messages": [user("What is it?"), said("A cat.")], "images": ["cat.png"]},
    {"messages": [user("Why?"), said("So.")], "tools": "weather(city)"},
    {"prompt": "", "completion": "So."},
    {"prompt": None},
    {"chosen": [], "rejected": []},
    {"chosen": [1, 2], "rejected": [1, 3]},
    {"messages": "Why?"},
    {"messages": {"role": "user", "content": "Why?"}},
    {"conversations": [{"from": "human"}]},
    {"conversations": ["Why?"]},
    {"prompt": [user("\ud800")]},
    {"prompt": [user("Why?")], "tools": "[" * 100_000},
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_a_row_that_cannot_be_asked_is_left_out_and_counted_in_one_line(odd):
    lines = []
    rows = [{"messages": [user("Why?"), said("So.")]}, odd, {"messages": [user("How?"), said("So.")]}]
    prompts = from_dataset(rows, note=lines.append)
    assert [p.text for p in prompts] == ["Why?", "How?"]
    (line,) = lines
    assert line.startswith("1 of 3 rows of eval_dataset give no prompt and are left out: 1 with ")
    assert line.endswith("first row 1")


def test_an_eval_dataset_with_nothing_to_ask_is_one_line_that_counts_the_reasons():
    with pytest.raises(DivwatchError) as error:
        from_dataset([{"messages": [said("a")]}, {"messages": [said("b")]}, {"messages": [user(" ")]}])
    assert str(error.value).startswith(
        "none of the 3 rows of eval_dataset gives a prompt (2 with no user turn, first row 0,"
    )


def test_odd_lines_of_a_file_are_left_out(tmp_path):
    file, lines = tmp_path / "mine.jsonl", []
    rows = [{"question": "?"}, {"messages": [user("Why?")]}, {"messages": [said("a")]}, {"prompt": " "}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, (prompt,) = load_panel(str(file), note=lines.append)
    assert prompt.id == "mine/1"
    assert lines == [
        f"3 of 4 lines of {file} give no prompt and are left out: 2 with neither 'prompt' nor 'messages' with a text in it, "
        "first line 1, 1 with no user turn, first line 3"
    ]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"input_ids": [[1, 2]], "labels": [[1, 2]]}, "eval_packing=False"),
        ({"text": ["Once upon a time"]}, "split it into 'prompt' and 'completion'"),
        ({"question": ["Why?"], "answer": ["So."]}, "rename the column that holds the prompts to 'prompt'"),
    ],
)
def test_an_eval_dataset_without_prompts_names_the_remedy_for_its_columns(columns, says):
    with pytest.raises(DivwatchError, match=says) as error:
        from_dataset(Dataset.from_dict(columns))
    assert "set watch_panel to quick" in str(error.value)
    assert "\n" not in str(error.value)


REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = {"role": "system", "content": "Be brief."}


def watched_panel(tmp_path, tokenizer, rows, **settings):
    """The callback of an SFT run that watches a panel file of these rows."""
    file = tmp_path / "panel.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainer = make_sft_trainer(tmp_path, tokenizer, Dataset.from_list([{"messages": [user("a"), said("b")]}]))
    return DiversityCallback(trainer, WatchConfig(panel=str(file), **settings))


def test_a_template_that_refuses_system_turns_says_so_when_the_monitor_is_made(tmp_path, tokenizer, capsys):
    refusing = load_tokenizer()
    refusing.chat_template = REFUSES_SYSTEM
    with pytest.raises(DivwatchError, match=r"System role not supported.*put its text into the first user turn"):
        watched_panel(tmp_path, refusing, [{"messages": [SYSTEM, user("Why?")]}])
    callback = watched_panel(tmp_path, refusing, [{"messages": [SYSTEM, user("Why?")]}, {"messages": [user("How?")]}])
    assert [p.text for p in callback.recorder.panel.candidates] == ["How?"]
    assert (
        "divwatch: 1 of 2 prompts are left out: the chat template refuses prompt 'panel/0'" in capsys.readouterr().out
    )


def test_tools_have_no_plain_form(tmp_path, tokenizer):
    rows = [{"messages": [user("Rome?")], "tools": [WEATHER]}]
    with pytest.raises(DivwatchError, match="has tools, which have no plain form"):
        watched_panel(tmp_path, tokenizer, rows, form="plain")
    callback = watched_panel(tmp_path, tokenizer, rows)
    (prompt,) = callback.recorder.panel.candidates
    assert "TOOLS weather" in prompt_text(tokenizer, prompt)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "type", "text"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(COLUMNS), JSON, max_size=4))
def test_any_row_gives_a_prompt_or_its_reason(row):
    before = copy.deepcopy(row)
    try:
        prompt = to_prompt(row, 0, "eval", "<bot>")
        assert prompt.text.strip()
        json.dumps(prompt.to_json())
    except Unaskable:
        pass
    assert row == before
