"""`divwatch score`: the contract's result, the paper's values, one line for every mistake and nothing half-written."""

import json
import tracemalloc
from itertools import islice

import numpy as np
import pytest

from divwatch.cli.score import show
from divwatch.errors import DivwatchError
from divwatch.records import Verification
from divwatch.score_file import score_file
from divwatch.verify.verifier import per_answer

ROW = {"id": "a", "prompt": "1 + 1", "outputs": ["It is 2.", "2", "It is 3."]}


def _write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def _rows(n, k=3, **fields):
    rng = np.random.default_rng(0)
    return [
        {"id": f"p{i}", "prompt": "?", "outputs": [" ".join(rng.choice(list("abcdef"), size=4)) for _ in range(k)]}
        | fields
        for i in range(n)
    ]


def _score(path, **options):
    options = {"metrics": ["ead"], "progress": False} | options
    return score_file(path, **options)


def test_the_paper_preset_equals_the_papers_code_on_real_samples(generations, minilm, tmp_path):
    with (generations / "cruxeval_codellama.jsonl").open() as file:
        rows = [json.loads(line) for line in islice(file, 150)]
    expected = json.loads((generations / "expected_cruxeval_codellama.json").read_text())
    source, out = _write(tmp_path / "f.jsonl", rows), tmp_path / "out.json"
    score_file(source, preset="paper", encoder="minilm", encoder_max_tokens=256, json_out=out, progress=False)
    result = json.loads(out.read_text())
    for j, name in enumerate(("ead", "sbert", "vendi")):
        theirs = {row["id"]: expected["per_prompt"][row["id"]][j] for row in rows}
        assert result["metrics"][name]["per_prompt"] == pytest.approx(theirs, abs=2e-4)
        assert result["metrics"][name]["mean"] == pytest.approx(np.mean(list(theirs.values())), abs=2e-4)
    correct = {row["id"]: expected["per_prompt_correct"].get(row["id"]) for row in rows}
    for j, name in enumerate(("sbert", "vendi")):
        theirs = {i: None if row is None else row[j] for i, row in correct.items()}
        assert result["correct"][name]["per_prompt"] == pytest.approx(theirs, abs=2e-4)
    assert result["correct"]["n_prompts"] == sum(row is not None for row in correct.values())
    assert result["quality"]["accuracy_at_1"] == pytest.approx(np.mean([row["is_correct"][0] for row in rows]))
    assert result["is_correct"] == {row["id"]: row["is_correct"] for row in rows}


def test_the_result_has_the_shape_of_the_contract(tmp_path):
    rows = [row | {"is_correct": [True, True, False]} for row in _rows(5)]
    out = tmp_path / "out.json"
    result = _score(_write(tmp_path / "f.jsonl", rows), metrics=["ead", "distinct_answers"], json_out=out)
    assert json.loads(out.read_text()) == result
    assert (result["n"], result["k"]) == (5, 3)
    for group in (result["metrics"], result["correct"]):
        for name in ("ead", "distinct_answers"):
            lo, hi = group[name]["ci95"]
            assert lo <= group[name]["mean"] <= hi
            assert list(group[name]["per_prompt"]) == [f"p{i}" for i in range(5)]
    assert result["correct"]["n_prompts"] == 5
    assert result["is_correct"]["p0"] == [True, True, False]
    assert result["quality"] == {
        "accuracy_at_1": pytest.approx(2 / 3),
        "pass_at_k": 1.0,
        "majority_at_k": pytest.approx(2 / 3),
    }
    show(result)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8])
def test_intervals_stay_in_range_and_few_prompts_have_none(n, tmp_path, minilm, capsys):
    rows = [
        {"id": i, "prompt": "?", "task": "t", "outputs": outputs, "is_correct": [i > 0] * 4}
        for i, outputs in zip(
            range(n),
            (["so"] * 4, ["the cat", "a river", "42", "def f"], ["so", "so", "", ""]) + (["so"] * 4,) * 5,
            strict=False,
        )
    ]
    result = _score(
        _write(tmp_path / "f.jsonl", rows),
        metrics=["ead", "sbert", "vendi", "distinct_answers"],
        encoder="minilm",
        verifier=None,
    )
    ranges = {"ead": (0, 1), "sbert": (0, 2), "vendi": (1, 4), "distinct_answers": (1, 4)}
    rows = [(result[group][name], ranges[name]) for name in ranges for group in ("metrics", "correct")]
    rows += [(row, (0, 1)) for row in result["outputs"].values()]
    rows += [(row, (1, n) if name == "vendi" else ranges[name]) for name, row in result["across"].items()]
    intervals = [(row["ci95"], row["n"], *limits) for row, limits in rows]
    intervals += [(result["quality_ci95"][name], n, 0, 1) for name in ("accuracy_at_1", "pass_at_k")]
    for (lo, hi), prompts, least, most in intervals:
        assert (lo is None) == (hi is None) == (prompts < 5)
        assert lo is None or least <= lo <= hi <= most
    show(result)
    assert ("[" in capsys.readouterr().out.split("\n", 1)[1]) == (n >= 5)


def test_without_correctness_there_is_none(tmp_path):
    result = _score(_write(tmp_path / "f.jsonl", [ROW]))
    assert result["correct"] == {"n_prompts": 0}
    assert result["is_correct"] == {}
    assert set(result["quality"].values()) == {None}
    assert result["metrics"]["ead"]["ci95"] == [None, None]  # one prompt
    show(result)


def test_a_verifier_judges_and_its_answers_are_compared(tmp_path, monkeypatch):
    def verify(text, reference):
        answer = "".join(c for c in text if c.isdigit()) or None
        return Verification(answer == str(reference), answer)

    monkeypatch.setattr("divwatch.verify.get_verifier", lambda name, unsafe_code: per_answer(verify))
    file = _write(tmp_path / "f.jsonl", [ROW | {"reference": 2, "is_correct": [False] * 3}])
    result = _score(file, metrics=["distinct_answers"], verifier="digits")
    assert result["is_correct"] == {"a": [True, True, False]}
    assert result["metrics"]["distinct_answers"]["mean"] == 2
    assert result["correct"]["distinct_answers"]["mean"] == 1
    assert result["quality"]["majority_at_k"] == 1


def test_empty_outputs_and_thoughts_that_never_closed_are_left_out_but_not_by_the_paper(tmp_path):
    outputs = ["<think>so</think>one two", "<think>one two three", "", "one two"]
    file = _write(tmp_path / "f.jsonl", [{"id": 1, "prompt": "", "outputs": outputs, "is_correct": [True] * 4}])
    ours, theirs = (_score(file, metrics=["distinct_answers"], preset=preset) for preset in ("default", "paper"))
    assert ours["metrics"]["distinct_answers"]["mean"] == 1  # the same answer twice
    assert theirs["metrics"]["distinct_answers"]["mean"] == 3
    assert ours["outputs"]["usable"]["mean"] == 0.5
    assert theirs["outputs"]["usable"]["mean"] == 0.75
    assert ours["is_correct"] == {"1": [True, False, False, True]}
    assert ours["quality"]["accuracy_at_1"] == 0.5


def test_a_prompt_with_one_usable_output_is_null(tmp_path):
    rows = [*_rows(2), {"id": "broken", "prompt": "", "outputs": ["", "", "one"]}]
    result = _score(_write(tmp_path / "f.jsonl", rows))
    assert result["metrics"]["ead"]["per_prompt"]["broken"] is None
    assert result["metrics"]["ead"]["n"] == 2


def test_tasks_are_summarised_and_weighed_equally(tmp_path):
    rows = [row | {"task": "x" if i < 8 else "y"} for i, row in enumerate(_rows(10))]
    result = _score(_write(tmp_path / "f.jsonl", rows))
    means = {task: values["diversity/ead"]["mean"] for task, values in result["tasks"].items()}
    assert means["all"] == pytest.approx((means["x"] + means["y"]) / 2)


def test_chunks_do_not_change_values(tmp_path, monkeypatch, minilm):
    file = _write(tmp_path / "f.jsonl", [row | {"is_correct": [True, False, True]} for row in _rows(9)])
    options = {"metrics": ["ead", "sbert", "vendi"], "encoder": "minilm", "encoder_max_tokens": 64}
    whole = _score(file, **options)
    monkeypatch.setattr("divwatch.score_file.scoring.CHUNK", 2)
    parts = _score(file, **options)
    for name in options["metrics"]:
        assert parts["metrics"][name]["per_prompt"] == pytest.approx(whole["metrics"][name]["per_prompt"], abs=1e-6)
        assert parts["correct"][name]["mean"] == pytest.approx(whole["correct"][name]["mean"], abs=1e-6)
        assert parts["across"][name]["mean"] == pytest.approx(whole["across"][name]["mean"], abs=1e-6)


MISTAKES = [
    ('{"id": "a", ', "line 2 is not JSON"),
    (b'{"id": "\xff"}'.decode("latin-1"), "no list"),
    ("[1, 2]", "line 2 is not an object"),
    ({"prompt": "", "outputs": ["a", "b", "c"]}, 'line 2 has no usable "id"'),
    ({"id": None, "outputs": ["a", "b", "c"]}, 'line 2 has no usable "id"'),
    ({"id": "b"}, 'line 2 has no list "outputs"'),
    ({"id": "b", "outputs": "text"}, 'line 2 has no list "outputs"'),
    ({"id": "b", "outputs": ["a", 2, "c"]}, "line 2 has a int as output 1: give texts only"),
    ({"id": "b", "outputs": ["a", None, "c"]}, "line 2 has a NoneType as output 1"),
    ({"id": "b", "outputs": ["a"]}, r"line 2 has 1 output\(s\): diversity needs at least 2"),
    ({"id": "b", "outputs": ["a", "b"]}, "line 2 has 2 outputs, lines before it 3"),
    ({"id": "a", "outputs": ["a", "b", "c"]}, "line 2 repeats the id 'a'"),
    ({"id": "b", "outputs": ["a", "b", "c"], "is_correct": [True]}, 'line 2 has "is_correct" that does not fit'),
    ({"id": "b", "outputs": ["a", "b", "c"], "is_correct": ["yes"] * 3}, 'line 2 has "is_correct" that does not fit'),
    ('{"id": "b", "outputs": ["\\ud800", "b", "c"]}', "half a surrogate pair"),
    ("[" * 100_000, "line 2 is not JSON"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_wrong_line_is_one_line_and_nothing_is_written(tmp_path, line, message):
    out = tmp_path / "out.json"
    with pytest.raises(DivwatchError, match=message) as caught:
        _score(_write(tmp_path / "f.jsonl", [ROW, line]), json_out=out)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["f.jsonl"]


OPTIONS = [
    ({"metrics": ["ead", "bleu"]}, "unknown metric 'bleu'"),
    ({"metrics": []}, "no metric"),
    ({"preset": "best"}, "unknown preset 'best'"),
    ({"vocab_size": 1}, "vocabulary size is 1"),
    ({"nli_sentences": -1}, "NLI sentences is -1"),
    ({"verifier": "no-such-verifier"}, "no-such-verifier"),
    ({"metrics": ["sbert"], "encoder": "/no/such/encoder"}, "encoder '/no/such/encoder' cannot be loaded"),
    ({"metrics": ["nli"], "nli_model": "/no/such/model"}, "NLI model '/no/such/model' cannot be loaded"),
    ({"json_out": "/no/such/folder/out.json"}, "cannot write /no/such/folder/out.json"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=[message for _, message in OPTIONS])
def test_a_wrong_option_is_one_line(tmp_path, options, message):
    with pytest.raises(DivwatchError, match=message) as caught:
        _score(_write(tmp_path / "f.jsonl", [ROW]), **options)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_or_is_empty_is_one_line(tmp_path):
    for path, message in ((tmp_path / "none.jsonl", "cannot read"), (tmp_path, "cannot read")):
        with pytest.raises(DivwatchError, match=message):
            _score(path)
    with pytest.raises(DivwatchError, match="holds no prompt"):
        _score(_write(tmp_path / "empty.jsonl", ["", "  "]))


def test_a_verifier_needs_references_and_a_failing_one_names_the_line(tmp_path, monkeypatch):
    def verify(text, reference):
        return Verification(text == reference["answer"], text)

    monkeypatch.setattr("divwatch.verify.get_verifier", lambda name, unsafe_code: per_answer(verify))
    with pytest.raises(DivwatchError, match='line 1 has no "reference": verifier'):
        _score(_write(tmp_path / "f.jsonl", [ROW]), verifier="odd")
    with pytest.raises(DivwatchError, match="line 1: verifier 'odd' failed"):
        _score(_write(tmp_path / "f.jsonl", [ROW | {"reference": "2"}]), verifier="odd")


def test_an_old_result_stays_whole_when_scoring_fails(tmp_path):
    out = tmp_path / "out.json"
    out.write_text("old")
    with pytest.raises(DivwatchError):
        _score(_write(tmp_path / "f.jsonl", [ROW, "{"]), json_out=out)
    assert out.read_text() == "old"


def _peak(folder, n):
    """Most memory in use while n prompts of 6 kB are scored, bytes."""
    text = "some words that fill the page " * 100
    rows = [{"id": str(i), "prompt": "", "outputs": [text + str(i), text]} for i in range(n)]
    file = _write(folder / f"{n}.jsonl", rows)
    tracemalloc.start()
    _score(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_texts(tmp_path, monkeypatch):
    monkeypatch.setattr("divwatch.score_file.scoring.CHUNK", 20)
    monkeypatch.setattr("divwatch.score_file.scoring.ACROSS", 20)
    assert _peak(tmp_path, 400) - _peak(tmp_path, 100) < 300 * 6000 / 4
