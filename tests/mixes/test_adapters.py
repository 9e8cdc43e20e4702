"""Every trap of the released rows: handled, and counted under a name. The rows here are the project's own."""

import base64
import json
import pickle
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from divwatch.mixes import adapters
from divwatch.mixes.adapters import Dropped, preference, reference_of, reinforcement, supervised


def user(text="Why is the sky blue?", **more):
    return {"role": "user", "content": text, **more}


def assistant(text="Air scatters blue light most.", **more):
    return {"role": "assistant", "content": text, **more}


def adapt(adapter, row):
    mended = []
    return adapter(row, mended.append), mended


def why(adapter, row):
    with pytest.raises(Dropped) as dropped:
        adapter(row, [].append)
    return str(dropped.value)


# SFT


def test_plain_and_tool_conversations_keep_what_the_template_renders():
    system = {
        "role": "system",
        "content": "You call functions.",
        "functions": '[{"name": "f"}]',
        "function_calls": None,
    }
    call = {"role": "assistant", "content": None, "functions": None, "function_calls": "f(x=1)"}
    result = {"role": "environment", "content": "2", "functions": None, "function_calls": None}
    row, mended = adapt(supervised, {"id": "1", "messages": [system, user(), call, result, assistant()]})
    assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant", "environment", "assistant"]
    assert row["messages"][0]["functions"] == '[{"name": "f"}]'
    assert row["messages"][2] == {"role": "assistant", "content": None, "functions": None, "function_calls": "f(x=1)"}
    assert mended == []


def test_turns_after_the_last_answer_are_cut():
    row, mended = adapt(supervised, {"messages": [user(), assistant(), user("And red?")]})
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
    assert mended == [adapters.CUT_AFTER_ANSWER]


def test_trl_prompt_completion_rows_are_taken_too():
    row, _ = adapt(supervised, {"prompt": [user()], "completion": [assistant()]})
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([user()], adapters.NO_ANSWER),
        ([], adapters.NO_ANSWER),
        (None, adapters.NO_ANSWER),
        ([user(), assistant("")], adapters.EMPTY_ANSWER),
        ([user(), assistant(" \n")], adapters.EMPTY_ANSWER),
        ([user(None), assistant()], adapters.NO_CONTENT),
        ([user(), assistant(None)], adapters.NO_CONTENT),
        ([user(), assistant(), "... [16 more items omitted, 21 total]"], adapters.NO_MESSAGE),
        ([user(), {"content": "no role"}], adapters.NO_MESSAGE),
    ],
)
def test_sft_rows_that_teach_nothing(messages, reason):
    assert why(supervised, {"messages": messages}) == reason


# preference


def test_a_string_prompt_beside_whole_conversations():
    row = {
        "prompt": "Why is the sky blue?",
        "chosen": [user(), assistant()],
        "rejected": [user(), assistant("No idea.")],
    }
    made, mended = adapt(preference, row)
    assert made == {"prompt": [user()], "chosen": [assistant()], "rejected": [assistant("No idea.")]}
    assert mended == [adapters.STRING_PROMPT]


def test_extra_message_fields_go_and_many_turns_stay():
    noise = {"hashed_ip": None, "header": None, "tool_calls": None}
    talk = [user(**noise), assistant(**noise), user("And red?", **noise)]
    row = {
        "chosen": [*talk, assistant("At dusk.", **noise)],
        "rejected": [*talk, assistant("Never.", **noise)],
        "prompt_id": "multiturn_self_talk_gpt_1",
    }
    made, mended = adapt(preference, row)
    assert made["prompt"] == [user(), assistant(), user("And red?")]
    assert (made["chosen"], made["rejected"]) == ([assistant("At dusk.")], [assistant("Never.")])
    assert mended == [adapters.EXTRA_FIELDS]


def test_trl_preference_rows_pass():
    row = {"prompt": [user()], "chosen": [assistant()], "rejected": [assistant("No.")]}
    assert adapt(preference, row) == (row, [])


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ([user(), assistant()], [user(), assistant()], adapters.IDENTICAL),
        ([user(), assistant()], [user("Why?"), assistant("No.")], adapters.DIFFERENT_PROMPTS),
        ([user(), assistant()], [user(), assistant(), user("?"), assistant()], adapters.DIFFERENT_PROMPTS),
        ([assistant()], [assistant("No.")], adapters.DIFFERENT_PROMPTS),
        ([user(), assistant()], [user(), assistant(" ")], adapters.EMPTY_ANSWER),
        ([user(), assistant()], [user()], adapters.NO_ANSWER),
        (None, [user(), assistant()], adapters.NO_ANSWER),
        ([user(), "... [3 more items omitted]"], [user(), assistant()], adapters.NO_MESSAGE),
    ],
)
def test_pairs_without_a_signal(chosen, rejected, reason):
    assert why(preference, {"chosen": chosen, "rejected": rejected}) == reason


# RL


def rl(**changes):
    return {"prompt": "user: What is 2 + 3?", "dataset": ["math"], "ground_truth": ["5"], **changes}


def test_the_role_prefix_goes_and_lists_of_one_are_opened():
    made, mended = adapt(reinforcement, rl())
    assert made == {"prompt": [user("What is 2 + 3?")], "dataset": "math", "verifier": "math", "reference": '"5"'}
    assert mended == [adapters.ROLE_PREFIX]
    assert adapt(reinforcement, rl(dataset="math", ground_truth="5"))[0] == made


@pytest.mark.parametrize(
    ("prompt", "roles"),
    [
        ("user: Hi\nassistant: Hello\nuser: Bye", ["user", "assistant", "user"]),
        ("system: Be brief.\nuser: Hi", ["system", "user"]),
        ("user: Write a dialogue.\nuser: Hi", ["user"]),  # not a conversation that alternates
        ("user: Hi\nassistant: Hello", ["user"]),
        ("What is 2 + 3?", ["user"]),
        ("user: The letter says\nuser agreement: none", ["user"]),
    ],
)
def test_prompts_of_several_turns(prompt, roles):
    made, _ = adapt(reinforcement, rl(prompt=prompt))
    assert [m["role"] for m in made["prompt"]] == roles
    if roles == ["user"]:
        assert made["prompt"][0]["content"] == prompt.removeprefix("user: ")


@given(st.text(min_size=1).filter(str.strip))
def test_no_word_of_a_single_turn_is_lost(text):
    made, _ = adapt(reinforcement, rl(prompt=f"user: {text}"))
    assert text in "\n".join(f"{m['role']}: {m['content']}" for m in made["prompt"])


def test_messages_are_preferred_and_their_answer_left_out():
    made, _ = adapt(reinforcement, rl(messages=[user(), assistant()]))
    assert made["prompt"] == [user()]


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_pickled_test_cases_are_never_unpickled():
    packed = base64.b64encode(zlib.compress(pickle.dumps(Bomb()))).decode()
    assert why(reinforcement, rl(dataset=["code_stdio"], ground_truth=[packed])) == adapters.PICKLED
    assert why(reinforcement, rl(dataset=["code"], ground_truth=[packed])) == adapters.PICKLED


def test_no_line_of_the_package_can_unpickle():
    from pathlib import Path

    for path in Path(adapters.__file__).parent.rglob("*.py"):
        assert "import pickle" not in path.read_text()
        assert "pickle.load" not in path.read_text()


def test_references_are_what_the_verifiers_take():
    tests = [{"input": "1\n", "output": "2\n"}]
    assert reference_of("code_stdio", json.dumps(tests)) == tests
    assert reference_of("code", json.dumps(["assert f(1) == 2"])) == {"test_list": ["assert f(1) == 2"]}
    constraints = "[{'instruction_id': ['keywords:frequency'], 'kwargs': [{'keyword': 'a', 'frequency': None}]}]"
    made, _ = adapt(reinforcement, rl(dataset=["ifeval"], ground_truth=[constraints]))
    assert (made["dataset"], made["verifier"], made["prompt"][-1]["content"]) == ("ifeval", "ifeval", "What is 2 + 3?")
    assert json.loads(made["reference"]) == {
        "prompt": "What is 2 + 3?",
        "instruction_id_list": ["keywords:frequency"],
        "kwargs": [{"keyword": "a"}],
    }
    assert json.loads(adapt(reinforcement, rl())[0]["reference"]) == "5"
    for name, verifier, reference in (("general-quality", "judge", None), ("general-quality_ref", "judge", "5")):
        row = adapt(reinforcement, rl(dataset=[name]))[0]
        assert (row["verifier"], json.loads(row["reference"])) == (verifier, reference)
    assert adapt(reinforcement, rl(dataset=["new"]))[0]["verifier"] is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset": ["math", "code"], "ground_truth": ["5", "[]"]}, adapters.SEVERAL_VERIFIERS),
        ({"ground_truth": []}, adapters.NO_REFERENCE),
        ({"ground_truth": [None]}, adapters.NO_REFERENCE),
        ({"dataset": ["ifeval"], "ground_truth": ["__import__('os').system('true')"]}, adapters.NO_REFERENCE),
        ({"dataset": ["ifeval"], "ground_truth": ["[{'instruction_id': ['a'], 'kwargs': []}]"]}, adapters.NO_REFERENCE),
        ({"dataset": ["code"], "ground_truth": ["[]"]}, adapters.NO_REFERENCE),
        ({"dataset": ["code"], "ground_truth": ["not json"]}, adapters.NO_REFERENCE),
        ({"prompt": "user: "}, adapters.NO_CONTENT),
        ({"prompt": None}, adapters.NO_CONTENT),
    ],
)  # fmt: skip
def test_rl_rows_that_cannot_be_judged(changes, reason):
    assert why(reinforcement, rl(**changes)) == reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(list(adapters.ADAPTERS.values())), st.data())
def test_no_row_breaks_an_adapter(adapter, data):
    """Any JSON under the columns that are read gives a row or a reason."""
    columns = ["messages", "chosen", "rejected", "prompt", "ground_truth", "dataset"]
    row = {column: data.draw(JSON, label=column) for column in columns}
    with suppress(Dropped):
        assert adapter(row, [].append)


def test_every_verifier_of_the_rl_data_exists():
    from divwatch.verify import NAMES

    assert {verifier for verifier, _ in adapters.RL_DATASETS.values()} - {None} <= set(NAMES)
