"""Mixes as a recipe loads them: counts on the released rows source by source, draws, one's own YAML, one-line errors."""

import json
import os
from collections import Counter
from copy import copy

import pytest

from divwatch.errors import DivwatchError
from divwatch.mixes import Selection, kind_of, load_mix, source_labels
from divwatch.mixes.definition import find_mix, shipped
from divwatch.mixes.limit import Limit

DATA = os.environ.get("DIVWATCH_TEST_DATA")
real_rows = pytest.mark.skipif(DATA is None, reason="DIVWATCH_TEST_DATA names no folder of recorded rows")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def sft_row(source, text, **more):
    turns = [{"role": "user", "content": f"Say {text}."}, {"role": "assistant", "content": text, **more}]
    return {"id": text, "messages": turns, "source_dataset": source, "domain": "Chat"}


@pytest.fixture
def data(tmp_path):
    """A local instruct_sft.jsonl of the project's own: 60 FLAN, 30 Aya, 10 Wildchat, three of them broken."""
    folder = tmp_path / "dolci"
    folder.mkdir()
    rows = [sft_row("FLAN", f"flan {i}") for i in range(60)] + [sft_row("Aya", f"aya {i}") for i in range(30)]
    rows += [sft_row("Wildchat", f"chat {i}") for i in range(10)]
    for broken in (0, 1, 60):
        rows[broken]["messages"][1]["content"] = ""
    (folder / "instruct_sft.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def load(data, name="instruct_sft", **selection):
    return load_mix(name, 5, selection=Selection(**selection), local_data=str(data))


def said(call, *arguments, **named):
    with pytest.raises(DivwatchError) as error:
        call(*arguments, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


# the shipped mixes


def test_every_shipped_mix_is_read_and_adds_up():
    published = {
        "think_sft": 2268178, "instruct_sft": 2152112, "think_dpo": 150000, "instruct_dpo": 259922,
        "instruct_dpo_by_prompt": 259922, "think_rl": 102014, "instruct_rl": 169964, "rl_zero_math": 13314,
        "rl_zero_code": 13312, "rl_zero_if": 13179, "rl_zero_general": 12841, "rl_zero_mix": 46931,
    }  # fmt: skip
    assert {name: find_mix(name).rows for name in shipped()} == published
    for name in shipped():
        mix = find_mix(name)
        values = [v for s in mix.sources for v in (s.name, *s.values)]
        assert len(values) == len(set(values)), name
        assert all(part.local for part in mix.parts), name
        assert all(part.revision is None or len(part.revision) == 40 for part in mix.parts), name  # a commit, no branch


# (mix, rows read, rows kept, dropped by reason). Counted by hand over the recorded rows.
REAL = [
    ("think_sft", 25, 25, {}),
    ("instruct_sft", 107, 105, {"a turn is no message": 2}),
    ("think_dpo", 50, 50, {}),
    ("instruct_dpo", 24, 12, {"a turn is no message": 10, "chosen and rejected are identical": 2}),
    ("think_rl", 57, 53, {"test cases are pickled, and nothing is unpickled": 4}),
    ("instruct_rl", 59, 59, {}),
    ("rl_zero_math", 30, 30, {}),
    ("rl_zero_code", 5, 1, {"test cases are pickled, and nothing is unpickled": 4}),
    ("rl_zero_if", 4, 4, {}),
    ("rl_zero_general", 18, 18, {}),
    ("rl_zero_mix", 57, 53, {"test cases are pickled, and nothing is unpickled": 4}),
]


@real_rows
@pytest.mark.parametrize(("name", "read", "kept", "dropped"), REAL, ids=[r[0] for r in REAL])
def test_counts_on_the_released_rows(name, read, kept, dropped):
    dataset, report = load_mix(name, local_data=f"{DATA}/dolci")
    assert sum(s.read for s in report.sources.values()) == read
    assert len(dataset) == report.taken == kept
    assert dict(report.total("dropped")) == dropped
    assert Counter(dataset["source"]) == {n: s.taken for n, s in report.sources.items() if s.taken}
    unlisted = set(report.sources) - {s.name for s in find_mix(name).sources}
    assert not unlisted


# What each source loses of the recorded rows, by the data's own columns.
LOST = {
    "think_sft": ({}, ["dataset_source"]),
    "instruct_sft": ({"Tool Use": 2}, ["source_dataset"]),
    "think_dpo": ({}, ["dataset_source"]),
    "instruct_dpo": (
        {"Delta learning": 1, "GPT-judged": 1, "Self-talk": 5, "Synthetic context": 5},
        ["preference_type"],
    ),
    "think_rl": ({"SYNTHETIC-2": 4}, ["original_dataset"]),
    "instruct_rl": ({}, ["original_dataset", "dataset_source"]),
}


@real_rows
@pytest.mark.parametrize("name", LOST)
def test_released_rows_source_by_source(name):
    """Read and kept rows of each source, counted here from the raw file."""
    mix, (lost, columns) = find_mix(name), LOST[name]
    with open(f"{DATA}/dolci/{name}.jsonl") as lines:
        told = [next(row[c] for c in columns if row[c]) for row in map(json.loads, lines)]
    _, report = load_mix(name, local_data=f"{DATA}/dolci")
    assert {n: s.read for n, s in report.sources.items()} == Counter(mix.source_of(value) for value in told)
    assert {n: s.read - s.taken for n, s in report.sources.items() if s.read != s.taken} == lost


@real_rows
def test_rl_rows_have_a_prompt_that_begins_with_the_users_words():
    dataset, report = load_mix("instruct_rl", local_data=f"{DATA}/dolci")
    assert not any(row["prompt"][0]["content"].startswith("user: ") for row in dataset)
    assert report.total("mended") == {"the prefix 'user: ' taken off the prompt": 59}
    assert set(dataset["dataset"]) == {"math", "code", "ifeval", "general-quality", "general-quality_ref"}


# draws


def test_drops_are_counted_by_reason_and_source(data):
    dataset, report = load(data)
    assert (len(dataset), report.sources["FLAN"].taken, report.sources["WildChat"].taken) == (97, 58, 10)
    assert report.lines() == [
        "mix instruct_sft: 97 rows of 3 sources (100 read)",
        "  dropped 3: an assistant turn is empty (FLAN 2, Aya 1)",
    ]
    assert report.sources["Aya"].dropped == {"an assistant turn is empty": 1}
    json.dumps(report.as_dict())


def test_a_draw_keeps_shares_of_the_usable_rows_and_is_nested(data):
    small, report = load(data, rows=20)
    assert {n: s.taken for n, s in report.sources.items()} == {"FLAN": 12, "Aya": 6, "WildChat": 2}
    large, _ = load(data, rows=50)
    texts = [{row["messages"][1]["content"] for row in d} for d in (small, large)]
    assert len(texts[0]) == 20
    assert texts[0] < texts[1]
    assert small["messages"] == load(data, rows=20)[0]["messages"]


@pytest.mark.parametrize(
    ("selection", "taken"),
    [
        ({"drop": ("FLAN",)}, {"Aya": 29, "WildChat": 10}),
        ({"only": ("Wildchat",)}, {"WildChat": 10}),  # the data's own name
        ({"only": ("wildchat", "aya")}, {"Aya": 29, "WildChat": 10}),
        ({"weight": {"FLAN": 0.5}}, {"FLAN": 29, "Aya": 29, "WildChat": 10}),
        ({"weight": {"WildChat": 2.5}, "repeat": True}, {"FLAN": 58, "Aya": 29, "WildChat": 25}),
        ({"weight": {"WildChat": 2}, "rows": 30}, {"FLAN": 17, "Aya": 8, "WildChat": 5}),
    ],
)
def test_arithmetic_on_a_mix(data, selection, taken):
    dataset, report = load(data, **selection)
    assert Counter(dataset["source"]) == taken
    assert {n: s.taken for n, s in report.sources.items() if s.taken} == taken


def test_a_second_run_opens_what_the_first_prepared_and_sees_a_change(data, tmp_path):
    _, first = load(data, rows=20)
    kept = list((tmp_path / "cache/divwatch").iterdir())
    _, second = load(data, rows=20)
    assert second == first
    assert list((tmp_path / "cache/divwatch").iterdir()) == kept
    with open(data / "instruct_sft.jsonl", "a") as file:
        file.write(json.dumps(sft_row("Aya", "one more")) + "\n")
    assert load(data)[1].sources["Aya"].taken == 30


def test_a_failed_preparation_leaves_nothing_behind(data, tmp_path):
    said(load, data, drop=("FLAN", "Aya", "WildChat"))
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_tool_turns_keep_their_fields_on_disk(data):
    row = sft_row("Dolci Instruct Tool Use", "x", function_calls="f(x=1)")
    row["messages"][1]["content"] = None
    with open(data / "instruct_sft.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    dataset, _ = load(data, only=("Tool Use",))
    assert dataset[0]["messages"][1] == {
        "role": "assistant",
        "content": None,
        "functions": None,
        "function_calls": "f(x=1)",
    }


def test_rows_without_room_for_an_answer_are_dropped(data, base):
    tokenizer = base[1]
    long = sft_row("Aya", "word " * 400)
    with open(data / "instruct_sft.jsonl", "a") as file:
        file.write(json.dumps(long) + "\n")
    dataset, report = load_mix("instruct_sft", local_data=str(data), limit=Limit(tokenizer, 256))
    assert report.total("dropped")["no room for an answer within the token limit"] == 1
    assert len(dataset) == 97
    for row in dataset:
        prompt = tokenizer.apply_chat_template(row["messages"][:1], add_generation_prompt=True)["input_ids"]
        assert len(prompt) < 256


# one's own mixes


def test_a_yaml_mix_joins_a_shipped_one_and_a_file(data, tmp_path):
    rows = [{"messages": sft_row("", f"mine {i}")["messages"]} for i in range(5)]
    rows += [{"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Ho"}]}]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    mix = tmp_path / "mine.yaml"
    mix.write_text(
        "kind: sft\nparts:\n  - mix: instruct_sft\n  - file: mine.jsonl\n    source: Mine\n"
        "drop: [Aya]\nweight: {FLAN: 0.5}\n"
    )
    dataset, report = load_mix(str(mix), local_data=str(data))
    assert Counter(dataset["source"]) == {"FLAN": 29, "WildChat": 10, "Mine": 6}
    assert [p["file"].split("/")[-1] for p in report.places] == ["instruct_sft.jsonl", "mine.jsonl"]
    dataset, _ = load_mix(str(mix), local_data=str(data), selection=Selection(weight={"flan": 1}, drop=("Mine",)))
    assert Counter(dataset["source"]) == {"FLAN": 58, "WildChat": 10}  # the run's own settings win


def test_a_file_or_an_embedded_mix_takes_the_arithmetic_too(tmp_path):
    dataset, report = load_mix("tiny/instruct_sft", selection=Selection(drop=("forum",), rows=300))
    assert Counter(dataset["source"]) == {"manual": 100, "quiz": 100, "tutor": 100}
    assert report.kind == "sft"
    assert dataset.column_names == ["prompt", "completion", "source"]
    plain = tmp_path / "plain.jsonl"
    plain.write_text("".join(json.dumps({"prompt": f"p{i}", "completion": "c"}) + "\n" for i in range(9)))
    dataset, report = load_mix(str(plain), rows=4)
    assert len(dataset) == report.sources["plain"].taken == 4


# one line


def test_errors_of_a_selection(data):
    assert "unknown source 'Reddit': the sources are Verifiable Reasoning, WildChat" in said(
        load, data, drop=("Reddit",)
    )
    assert "unknown source 'Reddit'" in said(load, data, weight={"Reddit": 0.5})
    assert "unknown source 'x': the sources are" in said(
        load_mix, "tiny/instruct_sft", selection=Selection(only=("x",))
    )
    assert "source 'WildChat' has 10 rows, 20 were asked for" in said(load, data, weight={"WildChat": 2})
    assert "has 58 rows" in said(load, data, rows=200)
    assert "leaves no rows to train on" in said(load, data, only=("CoCoNot",))
    assert "leaves no rows" in said(load, data, only=("CoCoNot",), rows=10)


def test_a_missing_column_names_those_there_are(data, tmp_path):
    (data / "instruct_sft.jsonl").write_text(json.dumps({"text": "x", "source_dataset": "FLAN"}) + "\n")
    assert "has no column messages: its columns are text, source_dataset" in said(load, data)
    (data / "instruct_sft.jsonl").write_text(json.dumps({"messages": [], "domain": "x"}) + "\n")
    assert "has no column source_dataset or source: its columns are messages, domain" in said(load, data)


def test_a_hub_set_that_cannot_be_reached(monkeypatch):
    """HF_HUB_OFFLINE is set in tests: the real client refuses, as it does without a network."""
    message = said(load_mix, "think_sft")
    assert "hub set allenai/Dolci-Think-SFT-7B cannot be read" in message
    assert "put think_sft.jsonl into a folder and give it as local_data" in message


def test_other_mistakes(data, tmp_path):
    assert "unknown mix 'nope': choose from" in said(load_mix, "nope")
    assert "'tiny/nope'" in said(load_mix, "tiny/nope")
    assert "is not there" in said(load_mix, "none.yaml")
    assert "is not there" in said(load_mix, "none.jsonl")
    assert "local_data 'nowhere' is no folder" in said(load_mix, "think_sft", local_data="nowhere")
    assert "local_data needs think_sft.jsonl" in said(load_mix, "think_sft", local_data=str(data))
    assert "is of kind sft, this recipe trains on preference" in said(load_mix, "think_sft", kind="preference")
    assert "this recipe trains on rl" in said(load_mix, "tiny/instruct_dpo", kind="rl")
    (data / "instruct_sft.jsonl").write_text("{broken\n")
    assert "instruct_sft.jsonl line 1 is not JSON" in said(load, data)
    (tmp_path / "empty.jsonl").touch()
    assert "empty.jsonl has no rows" in said(load_mix, str(tmp_path / "empty.jsonl"))
    (tmp_path / "odd.jsonl").write_text('{"prompt": "a"}\n{broken\n')
    assert "odd.jsonl line 2 is not JSON" in said(load_mix, str(tmp_path / "odd.jsonl"))
    (tmp_path / "array.jsonl").write_text('[\n{"prompt": "a"}\n]\n')
    assert "array.jsonl line 1 is not JSON by itself but begins an array" in said(
        load_mix, str(tmp_path / "array.jsonl")
    )


@pytest.mark.parametrize(
    ("column", "early", "late"),
    [
        ("system", None, "Be brief."),
        ("score", 1, 0.5),
        ("tools", [], [{"name": "weather"}]),
        ("tool_calls", None, [{"name": "weather", "arguments": {"city": "Rome"}}]),
        ("note", ..., "late"),
    ],
)
def test_a_column_may_change_its_type_after_megabytes_of_rows(tmp_path, column, early, late):
    rows = [{"prompt": "x" * 400, "completion": "y"} | ({} if early is ... else {column: early})] * 30_000
    rows.append({"prompt": "last", "completion": "y", column: late})
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset, _ = load_mix(str(file))
    assert len(dataset) == 30_001
    assert dataset[-1][column] == late


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: sft", "has no 'parts'"),
        ("kind: nope\nparts: [{mix: think_sft}]", "kind 'nope': choose from sft, preference, rl"),
        ("kind: rl\nparts: [{mix: think_sft}]", "of kind rl, its part 'think_sft' of kind sft"),
        ("kind: sft\nparts: [{hub: a/b, file: c}]", "give each part one of hub, file and mix"),
        ("kind: sft\nparts: [{hbu: a/b}]", "unknown key 'hbu'"),
        ("kind: sft\nwieght: {}\nparts: [{mix: think_sft}]", "unknown key 'wieght'"),
        ("kind: sft\nweight: {a: much}\nparts: [{mix: think_sft}]", "weight maps sources to numbers"),
        ("kind: sft\nparts: [{hub: a/b, pattern: '('}]", "no regular expression"),
        ("kind: [", "is not YAML"),
        ("- a", "has no 'parts'"),
        ("kind: sft\nparts: [think_sft]", "where a mapping is needed"),
        ("kind: sft\nparts: [{mix: think_sft}]\nsources: {a: [1]}", "where a mapping is needed"),
    ],
)
def test_a_wrong_yaml_is_one_line(text, says, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert says in said(load_mix, str(path))


def run_two_ranks(script, *arguments, cache):
    import subprocess
    import sys

    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        str(script),
        *map(str, arguments),
    ]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(cache), "PYTHONHASHSEED": "0"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_a_mistake_that_shows_while_preparing_ends_every_rank_in_one_line(data, tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(
        "import sys\nfrom accelerate import PartialState\nPartialState(cpu=True)\n"
        "from divwatch import recipe\nfrom divwatch.mixes import Selection, load_mix\n"
        "recipe.run(lambda: load_mix('instruct_sft', selection=Selection(only=('CoCoNot',)), local_data=sys.argv[1]))\n"
    )
    done = run_two_ranks(script, data, cache=tmp_path / "cache")
    assert done.returncode != 0
    assert "error: mix 'instruct_sft' leaves no rows to train on" in done.stderr
    assert "_goes_first" not in done.stderr  # no rank was left in a barrier
    assert "[rank1]: Traceback" not in done.stderr


def test_two_ranks_share_one_prepared_copy(data, tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(
        "import sys\nfrom accelerate import PartialState\nstate = PartialState(cpu=True)\n"
        "from divwatch.mixes import Selection, load_mix\n"
        "dataset, report = load_mix('instruct_sft', 5, selection=Selection(rows=20), local_data=sys.argv[1])\n"
        "told = f\"{len(dataset)} {report.taken} {[m[1]['content'] for m in dataset['messages']]}\"\n"
        "open(f'{sys.argv[0]}.{state.process_index}', 'w').write(told)\n"
    )
    done = run_two_ranks(script, data, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = ((tmp_path / f"rank.py.{rank}").read_text() for rank in (0, 1))
    assert first == second
    assert first.startswith("20 20 ")
    assert len(list((tmp_path / "cache/divwatch").iterdir())) == 1


# sources that are no texts


def numbered(tmp_path, sources):
    file = tmp_path / "numbered.jsonl"
    rows = [{"source": s, "messages": sft_row("", f"{i}")["messages"]} for i, s in enumerate(sources)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("other", ["forum", 3, 0])
def test_a_source_is_a_text_whatever_the_rows_hold(tmp_path, other):
    file = numbered(tmp_path, [None, other] * 20)
    dataset, report = load_mix(str(file), selection=Selection(weight={str(other): 0.5}, rows=12))
    assert Counter(dataset["source"]) == {"unknown": 8, str(other): 4}
    assert source_labels(dataset, report.name) == dataset["source"]
    assert (kind_of(dataset.column_names), list(report.sources)) == ("sft", ["unknown", str(other)])
    dataset, _ = load_mix(str(file), selection=Selection(drop=("unknown",)))
    assert set(dataset["source"]) == {str(other)}
    with pytest.raises(DivwatchError, match="unknown source 'x': the sources are unknown"):
        load_mix(str(file), selection=Selection(drop=("x",)))


def test_a_yaml_mix_takes_numbers_as_sources(tmp_path):
    numbered(tmp_path, [0, 3, None, 4] * 5)
    mine = tmp_path / "mine.yaml"
    mine.write_text("kind: sft\nparts: [{file: numbered.jsonl, columns: source}]\nsources: {4: 5}\ndrop: [3]\n")
    assert Counter(load_mix(str(mine))[0]["source"]) == {"0": 5, "unknown": 5, "4": 5}
    mine.write_text("kind: sft\nparts: [{file: numbered.jsonl, source: 7}]\nonly: 7\nweight: {7: 0.5}\n")
    assert Counter(load_mix(str(mine))[0]["source"]) == {"7": 10}


def test_a_selection_that_is_given_again_is_the_same(data, tmp_path):
    """A run's record holds the mix's defaults: the prepared copy is found with them."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("kind: sft\nparts: [{mix: instruct_sft}]\ndrop: [Aya]\nonly: [FLAN, Aya]\nweight: {FLAN: 0.5}\n")
    first, report = load(data, str(mine))
    recorded = {k: tuple(v) if isinstance(v, list) else v for k, v in report.selection.items()}
    again, same = load(data, str(mine), **recorded)
    assert same.selection == report.selection
    assert again.cache_files == first.cache_files


# rows without room for an answer


@pytest.fixture
def one_row(tmp_path):
    def write(row):
        (tmp_path / "one.jsonl").write_text(json.dumps(row) + "\n")
        return str(tmp_path / "one.jsonl")

    return write


TURNS = [{"role": "user", "content": "word " * 100}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a" * 999},
        {"messages": TURNS[1:]},
        {"messages": []},
        {"prompt": "", "completion": "b"},
        {"messages": [{"from": "human", "value": "a" * 999}]},
    ],
)
def test_an_empty_prompt_fits(base, one_row, row):
    tokenizer = copy(base[1])
    tokenizer.chat_template = "{# " + "long " * 99 + " #}" + tokenizer.chat_template
    assert len(load_mix(one_row(row), limit=Limit(tokenizer, 32))[0]) == 1


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}", {"default": "{{ messages[9]['role'] }}"}])
def test_without_a_template_that_takes_it_a_conversation_is_as_long_as_its_texts(base, one_row, template):
    tokenizer = copy(base[1])
    tokenizer.chat_template = template
    tokens = len(tokenizer(TURNS[0]["content"])["input_ids"])
    file = one_row({"messages": TURNS})
    assert len(load_mix(file, limit=Limit(tokenizer, tokens + 1))[0]) == 1
    message = said(load_mix, file, limit=Limit(tokenizer, tokens))
    assert "(all 1 were dropped, most for: no room for an answer within the token limit): raise max_length" in message


def test_what_leaves_no_rows_is_said_of_a_file_too(base, data, tmp_path):
    file = numbered(tmp_path, ["a", "b"])
    assert "no rows to train on (all 1 were dropped" in said(
        load_mix, str(file), selection=Selection(only=("a",)), limit=Limit(base[1], 1)
    )
    assert "no rows to train on (less than half a row of each source): raise mix_weight" in said(
        load_mix, str(file), selection=Selection(weight={"a": 0.1, "b": 0})
    )
    assert "no rows to train on: the sources in the data are a, b" in said(
        load_mix, str(file), selection=Selection(drop=("a", "b"))
    )
    assert "most for: no room for an answer within the token limit): raise max_length" in said(
        load_mix, "instruct_sft", local_data=str(data), limit=Limit(base[1], 1)
    )
