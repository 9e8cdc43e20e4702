"""The benchmarks' own logic: the guard on ratios, the marks of the page, work that all ways agree on; gpu.py at toy size."""

import doctest
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import bench  # noqa: E402
import measuring  # noqa: E402
import people  # noqa: E402
import real  # noqa: E402
import real_report  # noqa: E402
import wobble  # noqa: E402


def test_a_ratio_that_falls_by_more_than_a_third_is_named():
    kept = {"same": 4.0, "a little": 3.0, "much": 3.0, "no longer measured": 9.0}
    now = {"same": 4.1, "a little": 2.01, "much": 1.99, "new": 0.1}
    assert [line.split(":")[0] for line in bench.fallen(kept, now)] == ["much"]


def test_what_their_docstrings_say_is_so():
    for module in (bench, measuring):
        found = doctest.testmod(module)
        assert found.attempted
        assert not found.failed


def test_a_section_is_replaced_and_the_rest_of_the_page_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Head\n\n<!-- a: begin -->\nold\n<!-- a: end -->\n\nbetween\n\n<!-- b: begin -->\nkept\n<!-- b: end -->\n"
    )
    measuring.place(page, "a", ["new", "lines"])
    once = page.read_text()
    measuring.place(page, "a", ["new", "lines"])
    assert page.read_text() == once
    assert "old" not in once
    assert once.startswith("# Head\n\n<!-- a: begin -->\n\nnew\nlines\n\n<!-- a: end -->\n\nbetween\n")
    assert once.endswith("<!-- b: begin -->\nkept\n<!-- b: end -->\n")


def test_a_page_without_the_marks_is_refused_in_a_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    with pytest.raises(SystemExit, match="has no marks"):
        measuring.place(page, "a", ["new"])
    assert page.read_text() == "nothing here\n"


def test_the_page_has_a_place_for_every_benchmark():
    text = bench.PAGE.read_text(encoding="utf-8")
    for name in [*bench.PARTS, "machine", "gpu"]:
        assert text.count(f"<!-- {name}: begin -->") == 1, name


def test_peak_memory_counts_what_was_held_and_given_back():
    import torch

    def hold():
        torch.ones(16 * 2**20, dtype=torch.float32)

    assert 60 < measuring.peak_mib(hold) < 120


def test_every_way_of_sampling_makes_the_whole_look():
    import sampling
    import torch

    torch.manual_seed(0)
    model = sampling.small_model(num_hidden_layers=2, vocab_size=4096)  # its stop token is not drawn
    work = sampling.Work(2, 12, 4, 6)
    tried = sampling.ways(model, work)
    assert {name: way() for name, way in tried.items()} == dict.fromkeys(tried, 2 * 4 * 6)
    few = sampling.ways(model, replace(work, calls=1))
    assert few[sampling.ONE]() == 6
    assert few[sampling.EIGHT]() == 2 * 6


def test_heavy_tailed_lengths_have_the_same_law_in_ours_and_in_generate():
    """Median 24 of Lomax's law, one in nine at the limit of 192: 256 lengths a way."""
    import sampling
    import torch

    torch.manual_seed(0)
    model = sampling.small_model(num_hidden_layers=1, hidden_size=32, intermediate_size=32, vocab_size=1024)
    work = sampling.Work(2, 8, 128, 192, heavy=True)
    mean = sum((sampling.HALF_DONE - 1) / (sampling.HALF_DONE - 1 + t) for t in range(192))  # of those still running
    with sampling.lengths_of(model, work):
        request = sampling.request_of(model, work)
        ours = sampling.by_backend(sampling.in_process, model, request, work, count()) / 256
        theirs = sampling.by_generate(model, request, work, 128, 2) / 256
    error = 60 / 256**0.5  # the law's standard deviation, cut at 192, is below 60
    assert abs(ours - mean) < 4 * error
    assert abs(theirs - mean) < 4 * error


@pytest.mark.slow
def test_the_gpu_benchmark_rehearses(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--rehearse", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for part in ("law of `generate`", "bit-identical", "captured", "LoRA, rank 16", "plain SGD", "the scoring process"):
        assert part in done.stdout
    assert done.stdout.count(": done, ") == 5


def test_sources_of_the_real_experiment_differ_in_their_teachers_alone():
    teachers = ["a", "b", "c"]
    questions = [
        {"prompt": f"Q{i}", "answers": {t: f"{t} {i}" for t in (*teachers, "d", *real.WEAK)}} for i in range(12)
    ]
    narrow, broad = (list(real.sft_rows(questions, given, seed=0)) for given in (["d"], teachers))
    prompts = [[row["messages"][0]["content"] for row in rows] for rows in (narrow, broad)]
    assert prompts[0] == prompts[1]
    assert sorted(prompts[0]) == sorted(q["prompt"] for q in questions)
    assert [sum(row["source_dataset"] == t for row in broad) for t in teachers] == [4, 4, 4]
    pairs = list(real.dpo_rows(questions, teachers, seed=0))
    assert all(pair["chosen"][0] == pair["rejected"][0] for pair in pairs)
    assert [sum(pair["preference_type"] == t for pair in pairs) for t in teachers] == [4, 4, 4]
    assert {pair["rejected"][1]["content"].split()[0] for pair in pairs} <= set(real.WEAK)


def test_agreement_with_people_is_an_auc_with_ties_and_its_interval_draws_contexts():
    import numpy as np

    values, labels = np.array([1.0, 2.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0, 1.0])
    assert people.auc(values, labels) == 0.875
    assert people.auc(-values, labels) == 0.125
    assert np.isnan(people.rho(np.ones(3), np.arange(3.0)))
    low, high = people.interval(people.auc, values, labels, ["x", "y", "x", "y"])
    assert (low, high) == (0.875, 1.0)  # each context alone tells its two sets apart


def test_the_wobble_of_runs_is_found_under_the_noise_of_sampling():
    import numpy as np

    rng = np.random.default_rng(0)
    lag = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    noise = 0.01**2 * np.eye(6)
    sizes, rhos = np.linspace(0, 0.1, 51), np.linspace(-0.9, 0.9, 19)
    for size, rho in ((0.03, 0.6), (0.0, 0.0)):
        covariance = size**2 * rho**lag + noise
        series = [(1 + rng.multivariate_normal(np.zeros(6), covariance), noise) for _ in range(40)]
        weight = wobble.posterior(series, sizes, rhos)
        low, _, high = wobble.quantiles(sizes, weight.sum(axis=1))
        assert low <= size + 0.004
        assert size <= high < size + 0.01
        if size:
            low, middle, high = wobble.quantiles(rhos, weight.sum(axis=0))
            assert low < rho < high
            assert middle > 0.2


def test_a_prompt_counts_where_every_run_has_it():
    import pandas as pd

    tables = [pd.DataFrame({"first": [0.5, 0.4], "last": [0.4, 0.4]}, index=["a", "b"]) for _ in range(2)]
    tables[1].loc["b", "last"] = float("nan")
    tables[1].loc["a", "last"] = 0.2
    mean = real_report.by_prompt(tables)
    assert list(mean.index) == ["a"]
    assert real_report.change(mean).mean == pytest.approx(-0.4)
