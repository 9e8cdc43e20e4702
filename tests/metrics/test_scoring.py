"""What score_prompts makes of samples: which outputs count for what, keys, sizes, and nothing but its arguments."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divwatch.analysis.decompose import PairStats, decompose, decompose_pairs
from divwatch.analysis.summary import summarise
from divwatch.errors import DivwatchError
from divwatch.metrics import answers, embedding, lexical, quality
from divwatch.metrics.scoring import METRICS, PAIR_KEYS, PLAIN, live_subsets, score_prompts
from divwatch.records import PromptSamples, PromptScores

WORDS = ["red", "blue", "green", "one", "two", "three", "up", "down"]


class LetterEncoder:
    """A real, tiny encoder: the unit vector of letter counts. No text is too long for it."""

    def windows(self):
        return self

    def encode(self, texts):
        rows = np.array(
            [[text.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] + [1] for text in texts], dtype=np.float32
        )
        return rows.reshape(-1, 27) / np.linalg.norm(rows.reshape(-1, 27), axis=1, keepdims=True)


def toy_nli(pairs):
    return np.array([((3 * len(a) + len(b)) % 7) / 7 for a, b in pairs])


def _samples(seed, n=6, k=8, tasks=("a", "b"), judged=True):
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        outputs = [" ".join(rng.choice(WORDS, size=rng.integers(1, 6))) for _ in range(k)]
        usable = (rng.random(k) < 0.85).tolist()
        correct = [bool(u and rng.random() < 0.6) for u in usable] if judged else None
        found.append(PromptSamples(f"p{i}", tasks[i % len(tasks)], outputs, usable, correct, [o[:3] for o in outputs]))
    return found


def _scores(samples, metrics=METRICS, **options):
    return score_prompts(samples, metrics, LetterEncoder(), toy_nli, **options)


def _kept(sample, correct=False):
    return [i for i, u in enumerate(sample.usable) if u and (not correct or sample.correct[i])]


@pytest.mark.parametrize("correct", [False, True])
def test_plain_values_are_the_metrics_of_the_outputs_that_count(correct):
    samples = _samples(0)
    scores = _scores(samples, subsets=PLAIN)
    group = "correct_diversity" if correct else "diversity"
    encoder = LetterEncoder()
    for i, sample in enumerate(samples):
        at = _kept(sample, correct)
        texts, found = [sample.outputs[j] for j in at], [sample.answers[j] for j in at]
        e = encoder.encode(texts)
        expected = {
            "ead": lexical.ead(texts),
            "sbert": embedding.pairwise_distance(embedding.gram(e)),
            "vendi": embedding.vendi(embedding.gram(e)),
            "distinct_answers": answers.distinct(found),
            "gini_simpson": answers.gini_simpson(found),
        }
        for name, value in expected.items():
            got = scores.values[f"{group}/{name}"][i]
            assert got == pytest.approx(value if len(at) >= 2 else math.nan, abs=1e-6, nan_ok=True), name


def test_live_values_are_rarefied_to_sizes_that_depend_on_k_alone():
    samples = _samples(1, k=16)
    scores = _scores(samples, ["vendi", "ead", "distinct_answers"])
    assert live_subsets(16) == (8, 4)
    assert set(scores.values["subset/diversity"]) == {8.0}
    assert set(scores.values["subset/correct_diversity"]) == {4.0}
    for i, sample in enumerate(samples):
        e = LetterEncoder().encode([sample.outputs[j] for j in _kept(sample)])
        assert scores.values["diversity/vendi"][i] == pytest.approx(
            embedding.rarefied_vendi(embedding.gram(e), 8), abs=1e-6, nan_ok=True
        )
        right = [sample.answers[j] for j in _kept(sample, correct=True)]
        expected = answers.rarefied_distinct(right, 4)
        assert scores.values["correct_diversity/distinct_answers"][i] == pytest.approx(expected, nan_ok=True)


def test_a_metric_can_be_asked_for_at_a_size():
    samples = _samples(2)
    scores = _scores(samples, ["vendi", "vendi@3"], subsets=PLAIN)
    e = LetterEncoder().encode([samples[0].outputs[j] for j in _kept(samples[0])])
    assert scores.values["diversity/vendi@3"][0] == pytest.approx(
        embedding.rarefied_vendi(embedding.gram(e), 3), abs=1e-6
    )
    assert scores.values["diversity/vendi"][0] == pytest.approx(embedding.vendi(embedding.gram(e)), abs=1e-6)


def test_windows_are_read_beside_the_truncated_text(minilm):
    long = "the sum of two numbers is " * 60
    outputs = [long + "rivers and mountains " * 60, long + "interest rates rose " * 60, long + "an empty theatre " * 60]
    values = score_prompts(
        [PromptSamples("long", "t", outputs, [True] * 3), PromptSamples("short", "t", WORDS[:3], [True] * 3)],
        ["sbert", "sbert_windows", "vendi_windows"],
        minilm,
    ).values
    assert values["diversity/sbert"][0] < 1e-5 < 0.02 < values["diversity/sbert_windows"][0]
    assert values["diversity/sbert"][1] == pytest.approx(values["diversity/sbert_windows"][1], abs=1e-6)
    assert values["diversity/vendi_windows"][0] > 1.02


def _prompt(usable, correct=None, outputs=None):
    outputs = outputs or [f"{WORDS[i]} {i}" for i in range(len(usable))]
    return PromptSamples("p", "t", outputs, usable, correct, outputs)


def test_a_prompt_with_fewer_than_two_usable_outputs_is_missing_not_collapsed():
    scores = _scores([_prompt([True, False, False, False]), _prompt([False] * 4), _prompt([True] * 4)], subsets=PLAIN)
    for key, values in scores.values.items():
        if key.startswith("diversity/") and "ast" not in key:
            assert np.isnan(values).tolist() == [True, True, False], key
    assert scores.values["quality/usable"].tolist() == [0.25, 0, 1]


def test_unusable_outputs_are_wrong_and_leave_diversity_alone():
    outputs = ["red one", "blue two", "green three", "up", "", ""]
    with_empty = _prompt([True] * 4 + [False] * 2, [True, True, False, True, True, False], outputs)
    without = _prompt([True] * 4, [True, True, False, True], outputs[:4])
    one, other = (_scores([p], ["ead", "sbert", "vendi", "nli"], subsets=PLAIN).values for p in (with_empty, without))
    for key in ("diversity/ead", "diversity/sbert", "diversity/vendi", "correct_diversity/sbert", "pairs/cw_distance"):
        assert one[key] == pytest.approx(other[key], abs=1e-9), key
    assert one["quality/accuracy"] == 3 / 6
    assert other["quality/accuracy"] == 3 / 4


def test_quality_is_taken_over_all_outputs():
    samples = _samples(3)
    values = _scores(samples, ["ead"], finished=[[True] * 6 + [False] * 2] * 6).values
    for i, sample in enumerate(samples):
        assert values["quality/accuracy"][i] == np.mean(sample.correct)
        assert values["quality/pass_at_k"][i] == float(any(sample.correct))
        assert values["quality/majority_at_k"][i] == quality.majority_at_k(sample.answers, sample.correct)
        assert values["quality/finished"][i] == 0.75


def test_prompts_that_nobody_judged_have_no_correctness():
    judged, unjudged = _samples(4, n=2), _samples(5, n=2, judged=False)
    values = _scores([*judged, *unjudged], ["sbert"]).values
    for key in ("quality/accuracy", "correct_diversity/sbert", *PAIR_KEYS):
        assert np.isnan(values[key][2:]).all(), key
    assert "correct_diversity/sbert" not in _scores(unjudged, ["sbert"]).values


def test_pairs_hold_all_that_the_split_needs():
    before, after = _samples(6, n=12), _samples(7, n=12)
    encoder = LetterEncoder()

    def judged(samples):
        return [(encoder.encode([s.outputs[i] for i in _kept(s)]), [s.correct[i] for i in _kept(s)]) for s in samples]

    direct = decompose(judged(before), judged(after))
    stored = decompose_pairs(*(PairStats.from_values(_scores(s, subsets=PLAIN).values) for s in (before, after)))
    assert stored.total == pytest.approx(direct.total, abs=1e-6)
    assert stored.genuine_narrowing == pytest.approx(direct.genuine_narrowing, abs=1e-6)
    assert stored.common.v_c[0].mean == pytest.approx(direct.common.v_c[0].mean, abs=1e-5)
    values = _scores(before).values
    weights = np.array([values[key] for key in PAIR_KEYS[:3]])
    sums = np.nansum(weights * np.array([values[key] for key in PAIR_KEYS[3:]]), axis=0)
    assert sums / weights.sum(axis=0) == pytest.approx(values["diversity/sbert"], abs=1e-9)


def test_scores_without_pairs_say_what_to_do():
    with pytest.raises(DivwatchError, match="score with the metric sbert and a verifier"):
        PairStats.from_values(_scores(_samples(0), ["ead"]).values)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_order_of_outputs_and_prompts_does_not_matter(seed, random):
    samples = _samples(seed, n=4, k=6)
    shuffled = []
    for s in samples:
        order = random.sample(range(6), 6)
        parts = ([values[i] for i in order] for values in (s.outputs, s.usable, s.correct, s.answers))
        shuffled.append(PromptSamples(s.id, s.task, *parts))
    one = _scores(samples, subsets=PLAIN, nli_sentences=0)
    two = _scores(shuffled[::-1], subsets=PLAIN, nli_sentences=0)
    assert two.ids == one.ids[::-1]
    for key, values in one.values.items():
        assert two.values[key][::-1] == pytest.approx(values, abs=1e-6, nan_ok=True), key


def test_the_same_arguments_give_the_same_values_and_touch_no_global_generator():
    np.random.seed(5)
    before = np.random.get_state()[1].tolist()
    one, two = (_scores(_samples(8), seed=3) for _ in range(2))
    assert np.random.get_state()[1].tolist() == before
    for key in one.values:
        np.testing.assert_array_equal(one.values[key], two.values[key])


def test_across_values_average_to_the_distance_between_prompts_of_a_task():
    samples = _samples(9, n=8)
    scores = _scores(samples, ["sbert"])
    encoder = LetterEncoder()
    sets = [encoder.encode([s.outputs[i] for i in _kept(s)]).astype(float) for s in samples if s.task == "a"]
    blocks = [np.mean(1 - one @ other.T) for i, one in enumerate(sets) for other in sets[:i]]
    mine = scores.values["across/sbert"][[s.task == "a" for s in samples]]
    assert mine.mean() == pytest.approx(np.mean(blocks), abs=1e-6)


def test_wrong_requests_are_one_line():
    samples = _samples(0)
    with pytest.raises(DivwatchError, match="unknown metric 'bleu': choose from ead"):
        _scores(samples, ["bleu"])
    with pytest.raises(DivwatchError, match="cannot be rarefied"):
        _scores(samples, ["sbert@4"])
    with pytest.raises(DivwatchError, match="sbert needs an encoder"):
        score_prompts(samples, ["sbert"])
    with pytest.raises(DivwatchError, match="nli needs an NLI model"):
        score_prompts(samples, ["nli"])


def test_no_prompts_give_no_values():
    scores = score_prompts([], ["ead", "sbert"], LetterEncoder())
    assert scores.ids == []
    assert summarise(scores) == {}


def test_a_summary_weighs_tasks_equally_and_counts_prompts():
    tasks, values = ["x"] * 6 + ["y"], [1.0, 2.0, 2.0, 2.0, 3.0, math.nan, 6.0]
    found = summarise(PromptScores(list("abcdefg"), tasks, {"diversity/vendi": values}))
    assert found["x"]["diversity/vendi"]["mean"] == 2
    assert found["x"]["diversity/vendi"]["n"] == 5
    assert found["all"]["diversity/vendi"]["mean"] == 4
    assert found["all"]["diversity/vendi"]["n"] == 6
    assert found["x"]["diversity/vendi"]["lo"] < 2 < found["x"]["diversity/vendi"]["hi"]
    assert math.isnan(found["y"]["diversity/vendi"]["lo"])


@pytest.mark.parametrize(
    ("key", "values", "least", "most"),
    [
        ("quality/accuracy", [0.0, 0.0, 0.1, 0.9, 1.0], 0, 1),
        ("quality/usable", [1.0, 1.0, 1.0, 0.9, 0.2], 0, 1),
        ("diversity/sbert", [0.0, 0.01, 0.02, 0.0, 0.9], 0, 2),
        ("diversity/sbert", [1.9, 2.0, 1.0, 0.5, 2.0], 0, 2),
        ("diversity/vendi", [1.0, 1.0, 1.1, 7.9, 8.0], 1, 8),
        ("correct_diversity/vendi", [1.0, 1.0, 1.1, 3.9, 4.0], 1, 4),
        ("correct_diversity/distinct_answers", [1.0, 1.0, 1.0, 4.0, 4.0], 1, 4),
        ("diversity/answer_entropy", [0.0, 0.0, 0.0, 2.0, 2.0], 0, math.log(8)),
        ("diversity/ead@2", [0.0, 1.0, 1.0, 1.0, 1.0], 0, 1),
        ("diversity/vendi@2", [1.0, 1.0, 2.0, 2.0, 2.0], 1, 2),
        ("pairs/cc_count", [0.0, 0.0, 0.0, 1.0, 120.0], 0, math.inf),
        ("pairs/cc_distance", [0.0, 0.0, 0.0, 0.1, 2.0], 0, 2),
        ("across/sbert", [0.0, 0.0, 0.1, -0.5, 2.9], 0, 2),
    ],
)
def test_intervals_of_five_prompts_stay_in_the_metrics_range(key, values, least, most):
    sizes = {"subset/diversity": np.full(5, 8.0), "subset/correct_diversity": np.full(5, 4.0)}
    found = summarise(PromptScores(list("abcde"), ["x"] * 5, {key: values} | sizes))
    for task in ("x", "all"):
        assert least <= found[task][key]["lo"] <= found[task][key]["mean"] <= found[task][key]["hi"] <= most


def test_a_key_without_values_in_a_task_is_left_out():
    scores = PromptScores(["a", "b"], ["x", "y"], {"correct_diversity/ead": [math.nan, 0.5]})
    found = summarise(scores)
    assert found["x"] == {}
    assert found["all"]["correct_diversity/ead"]["mean"] == 0.5


def test_a_look_with_duplicates_everywhere_has_no_diversity():
    sample = _prompt([True] * 6, [True] * 6, ["the same words"] * 6)
    values = _scores([sample], ["sbert", "vendi", "distinct_answers", "gini_simpson"]).values
    assert values["diversity/sbert"] == pytest.approx(0, abs=1e-6)
    assert values["diversity/vendi"] == pytest.approx(1, abs=1e-5)
    assert values["correct_diversity/distinct_answers"] == pytest.approx(1)
    assert values["diversity/gini_simpson"] == 0
