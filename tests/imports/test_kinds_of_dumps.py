"""`divwatch import` of dumps as tools and people really leave them: filters, folders with numbers, foreign files, scores."""

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from divwatch.cli import app
from divwatch.errors import DivwatchError
from divwatch.store.run_directory import RunDirectory


def imported(out, *paths, options=()):
    """The run directory of `divwatch import`, and what it printed."""
    words = ["import", *map(str, paths), "--out", str(out), "--metrics", "ead", *map(str, options)]
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return RunDirectory.of(out), result.output


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows_of(prompts=4, samples=4, **more):
    return [
        {"prompt": f"p{i}", "completion": f"answer {i} {k}", "score": k % 2, **more}
        for i in range(prompts)
        for k in range(samples)
    ]


def steps(run):
    return [look["step"] for look in run.looks()]


def lm_eval_rows(samples, filters, **more):
    """As lm-eval's evaluator logs them: all documents once for each filter, with the same completions."""
    return [
        {"doc_id": i, "doc": {}, "arguments": [[f"p{i}"]], "resps": [[f"answer {i} {k}" for k in range(samples)]],
         "metrics": ["exact_match"], "exact_match": float(name == filters[0]), **({"filter": name} if name else {}), **more}
        for name in filters
        for i in range(4)
    ]  # fmt: skip


@pytest.mark.parametrize("filters", [("strict-match", "flexible-extract"), (None, None)])
def test_a_completion_counts_once_however_many_filters_lm_eval_has(tmp_path, filters):
    write_lines(tmp_path / "one/samples_sums_2026-01-01.jsonl", lm_eval_rows(1, filters))
    with pytest.raises(DivwatchError, match="no prompt has two completions"):
        imported(tmp_path / "out", tmp_path / "one")
    write_lines(tmp_path / "many/samples_sums_2026-01-01.jsonl", lm_eval_rows(3, filters))
    run, said = imported(tmp_path / "out", tmp_path / "many")
    assert "4 prompts x 3 completions" in said
    assert f"only {filters[0] or 'the first'} is read, not {filters[1] or 'one without a name'}" in said
    assert all(
        len({row["text"] for row in run.completions(0) if row["prompt_id"] == f"sums/{i}"}) == 3 for i in range(4)
    )


def test_lm_eval_runs_with_different_seeds_give_a_completion_each(tmp_path):
    """In a file each, or joined by hand: documents recur with other completions."""
    seeds = [
        [row | {"resps": [[f"{seed} {row['doc_id']}"]]} for row in lm_eval_rows(1, ["strict", "flexible"])]
        for seed in range(3)
    ]
    for seed, rows in enumerate(seeds):
        write_lines(tmp_path / f"seeds/step-5/samples_sums_2026-01-0{seed + 1}.jsonl", rows)
    run, said = imported(tmp_path / "out", tmp_path / "seeds")
    assert "4 prompts x 3 completions; correct" in said.replace(" are compared", "")
    assert {row["correct"] for row in run.completions(5)} == {True}
    unnamed = [
        {k: v for k, v in row.items() if k != "filter"} for rows in seeds for row in rows if row["filter"] == "strict"
    ]
    write_lines(tmp_path / "joined.jsonl", unnamed)
    assert "4 prompts x 3 completions" in imported(tmp_path / "joined", tmp_path / "joined.jsonl")[1]


@pytest.mark.parametrize(
    ("above", "names"),
    [
        ("12345", ("base/gen.jsonl", "sft/gen.jsonl")),
        ("2026/11", ("base.jsonl", "sft.jsonl")),
        ("step1", ("base", "sft")),
        ("checkpoint-500", ("base/gen.jsonl", "sft/gen.jsonl")),
        ("global_step_20/rollouts", ("base.jsonl", "sft.jsonl")),
    ],
)
def test_a_number_above_the_paths_is_no_step(tmp_path, above, names):
    for name in names:
        write_lines(tmp_path / above / (name if "." in name else f"{name}/gen.jsonl"), rows_of())
    run, _ = imported(tmp_path / "out", *(tmp_path / above / name for name in names))
    assert steps(run) == [0, 1]


def test_a_number_above_a_folder_is_no_step(tmp_path):
    for name in ("a", "b"):
        write_lines(tmp_path / f"12345/step-7/dump/{name}.jsonl", rows_of())
        write_lines(tmp_path / f"12345/2026/{name}.jsonl", rows_of())
    for number, folder in enumerate(("12345/step-7/dump", "12345/2026")):
        assert steps(imported(tmp_path / f"out{number}", tmp_path / folder)[0]) == [0, 1]


@pytest.mark.parametrize(
    ("files", "given"),
    [
        (["checkpoint-{}/gen.jsonl"], ["."]),
        (["checkpoint-{}/gen.jsonl"], ["checkpoint-20", "checkpoint-100"]),
        (["checkpoint-{}/gen.jsonl"], ["checkpoint-100/gen.jsonl", "checkpoint-20/gen.jsonl"]),
        (["{}.jsonl"], ["."]),
        (["{}.jsonl"], ["100.jsonl", "20.jsonl"]),
        (["{}/gen.jsonl"], ["."]),
        (["{}/gen.jsonl"], ["100", "20"]),
        (["checkpoint-{}/rank/0/a.jsonl", "checkpoint-{}/rank/1/b.jsonl"], ["."]),
        (["global_step_{}/out/a.jsonl", "global_step_{}/out/b.jsonl"], ["global_step_100/out", "global_step_20/out"]),
    ],
)
def test_a_number_in_names_inside_the_paths_or_in_which_they_differ_is_the_step(tmp_path, files, given):
    dump = tmp_path / "5000"
    for step in (20, 100):
        for n, name in enumerate(files):
            write_lines(dump / name.format(step), [row | {"prompt": f"{n} {row['prompt']}"} for row in rows_of()])
    run, said = imported(tmp_path / "out", *(dump / name for name in given))
    assert steps(run) == [20, 100]
    assert "several paths" not in said


def test_the_folder_of_one_checkpoint_is_its_step_and_equal_numbers_of_two_paths_are_named(tmp_path):
    for stage in ("base", "sft"):
        write_lines(tmp_path / f"{stage}/checkpoint-500/gen.jsonl", rows_of())
        write_lines(tmp_path / f"{stage}/5.jsonl", rows_of())
    single, _ = imported(tmp_path / "single", tmp_path / "base/checkpoint-500")
    assert steps(single) == [500]
    one_each = [tmp_path / f"{stage}/checkpoint-500" for stage in ("base", "sft")]
    assert steps(imported(tmp_path / "two", *one_each)[0]) == [0, 1]
    _, said = imported(tmp_path / "same", *(tmp_path / stage / "5.jsonl" for stage in ("base", "sft")))
    assert "step 5 holds completions of several paths" in said


def test_a_folder_of_a_user_named_divwatch_is_read(tmp_path):
    write_lines(tmp_path / "divwatch/dump/gen.jsonl", rows_of())
    assert steps(imported(tmp_path / "out", tmp_path / "divwatch/dump")[0]) == [0]


SCORES = {
    "verl": [{"input": r["prompt"], "output": r["completion"], "score": r["score"]} for r in rows_of()],
    "trl": [
        {"step": 1, "prompt": r["prompt"], "completion": r["completion"], "reward": 1.0, "form": 0.0, "advantage": 0.0}
        for r in rows_of()
    ],
    "lm-eval": lm_eval_rows(2, ["none"]),
    "lighteval": [
        {"doc": {"query": f"p{i}"}, "model_response": {"text": ["a", "b"]}, "metric": {"reward": 1.0}} for i in range(4)
    ],
    "plain": [row | {"reward": 1.0, "judge": "good", "empty": None} for row in rows_of()],
    "lists": [
        {"prompt": f"p{i}", "generations": ["a", "b"], "reward": [1.0, None], "empty": [None, None]} for i in range(4)
    ],
}


@pytest.mark.parametrize("form", SCORES)
def test_a_column_of_scores_that_is_not_there_is_one_line_with_those_that_are(tmp_path, form):
    write_lines(tmp_path / "x.jsonl", SCORES[form])
    right = {"verl": "score", "lm-eval": "exact_match"}.get(form, "reward")
    with pytest.raises(DivwatchError, match="no row has a column") as raised:
        imported(tmp_path / "out", tmp_path / "x.jsonl", options=["--score", right[:-1]])
    assert f"did you mean {right}?" in str(raised.value)
    assert not (tmp_path / "out").exists()
    imported(tmp_path / "out", tmp_path / "x.jsonl", options=["--score", right])


@pytest.mark.parametrize(("form", "name"), [("plain", "judge"), ("plain", "empty"), ("lists", "empty")])
def test_a_column_without_numbers_is_no_score(tmp_path, form, name):
    write_lines(tmp_path / "x.jsonl", SCORES[form])
    with pytest.raises(DivwatchError, match=f"'{name}' holds no number in any row.*with numbers are .*reward"):
        imported(tmp_path / "out", tmp_path / "x.jsonl", options=["--score", name])


def test_completions_without_scores_are_said_to_have_none(tmp_path):
    write_lines(tmp_path / "x.jsonl", [{k: v for k, v in row.items() if k != "score"} for row in rows_of()])
    run, said = imported(tmp_path / "out", tmp_path / "x.jsonl")
    assert "none has a score" in said
    assert "correct means" not in said
    assert {row["correct"] for row in run.completions(0)} == {None}


FOREIGN = {
    "config.json": b'{"hidden_size": 4}',
    "empty.jsonl": b"",
    "log.jsonl": b"not json\n",
    "trace.jsonl": b'{"time": 1}\n',
}
UNREADABLE = {
    "vocab.json": b'["a", "b"]',
    "empty.json": b"",
    "damaged.json": b'{"prompt": "x", ',
    "number.json": b"3",
    "binary.json": b"\x80\x81\x00",
    "odd.table.json": b'{"columns": 3, "data": [1]}',
    "damaged.parquet": b"PAR1 no",
    "empty.parquet": b"",
}


@pytest.mark.parametrize("foreign", [FOREIGN, UNREADABLE])
def test_foreign_files_in_a_folder_are_left_out_and_counted(tmp_path, foreign):
    for step in (20, 100):
        write_lines(tmp_path / f"dump/{step}.jsonl", rows_of())
    for name, content in foreign.items():
        (tmp_path / "dump" / name).write_bytes(content)
    run, said = imported(tmp_path / "out", tmp_path / "dump")
    assert f"{len(foreign)} other files in the folder hold no completions" in said
    assert (f"({len(foreign)} cannot be read as rows: " in said) == (foreign is UNREADABLE)
    assert steps(run) == [20, 100]


@pytest.mark.parametrize(
    ("start", "end"), [("", "\n"), ("", '\n{"prompt": "p9", "compl'), ('{"prompt": "p9", "compl\n', "")]
)
def test_json_lines_named_json_are_read(tmp_path, start, end):
    lines = start + "\n".join(json.dumps(row) for row in rows_of()) + end
    (tmp_path / "dump").mkdir()
    for step in (20, 100):
        (tmp_path / f"dump/step_{step}.json").write_text(lines)
    for number, paths in enumerate([["dump"], ["dump/step_20.json", "dump/step_100.json"]]):
        run, said = imported(tmp_path / f"out{number}", *(tmp_path / path for path in paths))
        assert steps(run) == [20, 100]
        assert ("2 rows are left out" in said) == ("p9" in start + end)


def test_a_damaged_file_that_is_named_is_one_line(tmp_path):
    (tmp_path / "x.json").write_text('{"prompt": "x",\n "completion"\n')
    with pytest.raises(DivwatchError, match=r"x\.json is not JSON .*JSON lines"):
        imported(tmp_path / "out", tmp_path / "x.json")
    pd.DataFrame(rows_of()).to_parquet(tmp_path / "a.parquet")
    assert steps(imported(tmp_path / "out", tmp_path / "a.parquet")[0]) == [0]
