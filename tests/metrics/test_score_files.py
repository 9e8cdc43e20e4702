"""`divwatch score A B`: differences paired by prompt, with what could mislead said."""

import json
import random

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from divwatch.cli import app
from divwatch.errors import DivwatchError
from divwatch.score_file import score_file, score_files

WORDS = (
    "the cat dog house runs sleeps red blue green small tall fast slow river stone tree cloud rain music bread".split()
)


def write(path, prompts=24, k=8, words=WORDS, length=6, right=0.5, seed=0, order=1):
    rng = random.Random(seed)
    rows = [
        {"id": f"{path.stem}-{i}", "prompt": f"question {i}",
         "outputs": [" ".join(rng.choices(words, k=length)) for _ in range(k)],
         "is_correct": [rng.random() < right for _ in range(k)]}
        for i in range(prompts)
    ][::order]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(*paths, **options):
    return score_files(paths, **{"metrics": ["sbert", "ead"], "encoder": "minilm", "progress": False} | options)


def row_of(compared, metric, file="b"):
    (row,) = [r for r in compared["differences"] if (r["metric"], r["file"]) == (metric, file)]
    return row


def test_a_difference_is_the_mean_over_prompts_paired_by_their_text(tmp_path):
    """Ids and order differ between files of two tools; Student's paired interval is the reference."""
    a, b = write(tmp_path / "a.jsonl"), write(tmp_path / "b.jsonl", words=WORDS[:6], seed=1, order=-1)
    compared = score(a, b)
    values = [
        score_file(p, metrics=["sbert"], encoder="minilm", progress=False)["metrics"]["sbert"]["per_prompt"]
        for p in (a, b)
    ]
    before, after = (np.array([v[f"{name}-{i}"] for i in range(24)]) for v, name in zip(values, "ab", strict=True))
    row = row_of(compared, "diversity/sbert")
    assert row["difference"] == pytest.approx(np.mean(after - before))
    assert row["relative"] == pytest.approx(np.mean(after - before) / np.mean(before))
    lo, hi = stats.ttest_1samp(after - before, 0).confidence_interval()
    assert row["ci95"] == pytest.approx([lo, hi], abs=0.15 * (hi - lo))
    assert compared["findings"][0].startswith(f"b is {-100 * row['relative']:.0f} % less diverse than a [")
    assert "; correct answers " in compared["findings"][0]
    assert compared["warnings"] == []


def test_equal_files_differ_by_nothing(tmp_path):
    compared = score(write(tmp_path / "a.jsonl"), write(tmp_path / "b.jsonl"))
    assert all(row["difference"] == 0 for row in compared["differences"])
    assert compared["findings"][0].startswith("b is as diverse as a")


def test_lengths_counts_and_missing_prompts_are_said(tmp_path):
    compared = score(write(tmp_path / "a.jsonl"), write(tmp_path / "b.jsonl", prompts=30, k=12, length=12, seed=3))
    words = " ".join(compared["warnings"])
    assert "8 in a, 12 in b" in words
    assert "6 of 30 prompts of b" in words
    assert "outputs of b have 12 words on average, those of a 6" in words
    assert row_of(compared, "diversity/ead@8")["prompts"] == 24


def test_more_correct_answers_alone_are_no_difference_among_correct_ones(tmp_path):
    """Metrics that grow with the number of correct outputs are not compared among them."""
    compared = score(write(tmp_path / "a.jsonl", right=0.3), write(tmp_path / "b.jsonl", right=0.9, seed=5))
    assert [r["metric"] for r in compared["differences"] if r["metric"].startswith("correct")] == [
        "correct_diversity/sbert"
    ]
    lo, hi = row_of(compared, "correct_diversity/sbert")["ci95"]
    assert lo < 0 < hi
    assert row_of(compared, "quality/accuracy")["ci95"][0] > 0.3


def test_intervals_of_three_files_are_wider_than_those_of_two(tmp_path):
    a, b, c = (write(tmp_path / f"{n}.jsonl", seed=i) for i, n in enumerate("abc"))
    two, three = score(a, b), score(a, b, c)
    width = [np.ptp(row_of(found, "diversity/sbert")["ci95"]) for found in (two, three)]
    assert width[0] < width[1]
    assert len(three["findings"]) == 2


def test_the_command_prints_a_sentence_and_writes_json(tmp_path):
    a, b = write(tmp_path / "a.jsonl"), write(tmp_path / "b.jsonl", words=WORDS[:6])
    out = tmp_path / "out.json"
    result = CliRunner().invoke(app, ["score", str(a), str(b), "--metrics", "ead", "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert "less diverse than a" in result.output
    compared = json.loads(out.read_text())
    assert set(compared["scores"]) == {str(a), str(b)}
    assert compared["findings"][0] in result.output.replace("\n", " ")


def test_files_that_cannot_be_compared_are_one_line(tmp_path):
    a = write(tmp_path / "a.jsonl")
    other = tmp_path / "o.jsonl"
    other.write_text(a.read_text().replace("question", "query"))
    with pytest.raises(DivwatchError, match="no prompt in common"):
        score(a, other)
    with pytest.raises(DivwatchError, match="given twice"):
        score(a, a)
