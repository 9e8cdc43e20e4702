"""From a history to statuses and one verdict: each kind of change is called what it is."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from divwatch import CollapseDetector, DivwatchError
from divwatch.analysis.assess import Assessor, assess
from divwatch.analysis.history import ALL, History
from divwatch.analysis.verdict import KINDS
from divwatch.records import PromptScores
from tests.analysis.histories import history

NARROWER = {"correct_distance": (0.4, 0.2), "wrong_distance": (0.5, 0.3)}
RAMBLED = [0.2, 0.3, 0.8, *[0.95] * 5]

# kind -> the world it happens in
WORLDS = {
    "none": [{}, {"wobble": 0.03}, {"usable": 0.9}, {"accuracy": (0.5, 0.55)}, {"judged": False}],
    "narrowing among correct answers": [
        NARROWER,
        NARROWER | {"accuracy": (0.6, 0.8)},
        NARROWER | {"accuracy": (0.67, 0.61)},
        NARROWER | {"across": (0.6, 0.5)},
        {"only_task": "expr", "correct_distance": (0.4, 0.1), "wrong_distance": (0.5, 0.2)},
        {"usable": RAMBLED, "correct_distance": [*[0.4] * 5, *[0.2] * 3], "wrong_distance": [*[0.5] * 5, *[0.25] * 3]},
    ],
    "aggregate collapse": [NARROWER | {"judged": False}, {"wrong_distance": (0.6, 0.2), "accuracy": 0.4}],
    "quality control only": [{"accuracy": (0.5, 0.9), "wrong_distance": 0.8}],
    "lexical without semantic": [{"ead": (0.5, 0.3)}],
    "template collapse": [{"across": (0.6, 0.3)}, {"across": (0.6, 0.3), "judged": False}],
    "degeneration": [
        {"accuracy": (0.7, 0.3)},
        {"accuracy": (0.7, 0.2), "correct_distance": (0.4, 0.3), "wrong_distance": (0.5, 0.35)},
        {"repetition": (0.02, 0.5)},
        {"usable": [1, 1, 0.9, 0.7, 0.6, 0.55, 0.4, 0.3]},
        {"usable": (1.0, 0.2), "judged": False},
    ],
    "false recovery": [
        {"accuracy": (0.67, 0.3), "correct_distance": (0.25, 0.15), "wrong_distance": (0.28, 0.4)},
        {  # down first, then back up on wrong answers
            "looks": 10,
            "accuracy": [0.67] * 5 + [0.5, 0.35, 0.33, 0.33, 0.33],
            "correct_distance": [0.25, 0.25, *[0.15] * 8],
            "wrong_distance": [0.28, 0.28, 0.17, 0.17, 0.17, 0.25, 0.3, 0.3, 0.3, 0.3],
        },
    ],
    "format acquisition": [
        {"usable": RAMBLED},
        {  # open answers: usable although they are cut, and narrower once the model ends them
            "judged": False,
            "finished": [0.02, 0.04, *[0.9] * 6],
            "correct_distance": [0.6, 0.6, *[0.3] * 6],
            "wrong_distance": [0.6, 0.6, *[0.3] * 6],
        },
    ],
    "not comparable": [{"usable": 0.2}],
}


@pytest.mark.parametrize(
    "world", [{"tasks": ("pair",)}, *(world for worlds in WORLDS.values() for world in worlds[:2])]
)
def test_look_by_look_says_what_the_whole_history_says(world):
    """Also where a look comes late, between two that were counted already, and where a series appears on the way."""
    whole = history(**world)
    rows = range(len(whole.steps))

    def part(kept):
        kept = list(kept)
        values = {key: table[kept] for key, table in whole.values.items()}
        return History(
            [whole.steps[i] for i in kept], whole.ids, whole.tasks, values, [whole.comparable[i] for i in kept]
        )

    assessor = Assessor(len(whole.steps))
    late = [0, 1, 2, 4, 5]
    without = part(rows[:1])
    without.values.pop("correct_diversity/sbert", None)
    grown = [
        without,
        *(part(rows[: i + 1]) for i in range(5)),
        part(late),
        *(part(rows[: i + 1]) for i in range(5, len(rows))),
    ]
    for seen in grown:
        mine, anew = assessor.assess(seen), assess(seen, len(whole.steps))
        assert mine.verdict == anew.verdict
        assert list(mine.statuses) == list(anew.statuses)
        for key, status in mine.statuses.items():
            np.testing.assert_equal(status.as_dict(), anew.statuses[key].as_dict())


def test_a_value_that_cannot_be_counted_is_named_at_every_look_and_leaves_nothing_half_counted():
    whole = history()
    assessor = Assessor(len(whole.steps))
    key, good = "diversity/sbert", whole.values["diversity/sbert"].copy()
    whole.values[key][5, 0] = np.inf
    for _ in range(2):
        with pytest.raises(DivwatchError, match="infinite"):
            assessor.assess(whole)
    whole.values[key] = good
    assert assessor.assess(whole).verdict == assess(whole, len(whole.steps)).verdict


@pytest.mark.parametrize(("kind", "world"), [(kind, world) for kind, worlds in WORLDS.items() for world in worlds])
def test_each_kind_of_change_is_called_by_its_name(kind, world):
    for seed in range(4):
        found = assess(looked := history(seed=seed, **world), max_looks=len(looked.steps)).verdict
        assert found.kind == kind, found.sentence
        assert found.sentence.endswith(".")
        assert "nan" not in found.sentence
        assert "\n" not in found.sentence


def test_every_kind_has_its_world():
    assert set(WORLDS) == set(KINDS)


def test_quiet_runs_are_rarely_called_anything_else():
    others = 0
    for seed in range(60):
        looked = history(seed=900 + seed, wobble=0.02)
        others += assess(looked, len(looked.steps)).verdict.kind != "none"
    assert others <= 9  # binomial, 60 runs at 0.05, once in a thousand


def test_the_verdict_carries_its_numbers():
    found = assess(looked := history(**NARROWER), len(looked.steps))
    evidence, status = found.verdict.evidence["correct_diversity/sbert"], found.statuses[ALL, "correct_diversity/sbert"]
    assert (evidence["lo"], evidence["hi"]) == status.change_interval
    assert f"{-100 * evidence['change']:.0f} %" in found.verdict.sentence
    assert f"step {status.onset_step}" in found.verdict.sentence


def test_a_fall_at_the_last_look_alone_waits_for_a_second():
    distances = {"correct_distance": [0.4] * 7 + [0.2], "wrong_distance": [0.5] * 7 + [0.25]}
    found = assess(history(**distances), 8)
    assert found.verdict.kind == "none"
    assert "second look" in found.verdict.sentence


def test_an_alarm_stands_when_no_correct_answer_is_left():
    looked = history(looks=10, **NARROWER)
    for key in ("correct_diversity/sbert", "pairs/cc_distance"):
        looked.values[key][-2:] = np.nan
    found = assess(looked, 10)
    assert np.isnan(found.statuses[ALL, "correct_diversity/sbert"].change)
    assert found.verdict.kind == "narrowing among correct answers"
    assert "nan" not in found.verdict.sentence


@pytest.mark.parametrize("missing", ["diversity/sbert", "correct_diversity/sbert"])
def test_a_metric_without_any_value_is_said_or_left_out(missing):
    looked = history()
    looked.values[missing][:] = np.nan
    found = assess(looked, 8).verdict
    assert found.kind == "none"
    assert "nan" not in found.sentence


@pytest.mark.parametrize(
    ("world", "kind"),
    [
        ({"accuracy": (0.7, 0.3)}, "degeneration"),
        ({"accuracy": (0.7, 0.3), "judged": False, "repetition": (0.02, 0.5)}, "degeneration"),
        ({"ead": (0.5, 0.3)}, "lexical without semantic"),
        ({"across": (0.6, 0.3)}, "template collapse"),
        ({}, "none"),
    ],
)
@pytest.mark.parametrize(
    "known", ["at the baseline alone", "as 0 at the baseline", "not for the prompts of the baseline"]
)
def test_where_diversity_cannot_be_compared_the_verdict_says_so(world, kind, known):
    looked = history(**world)
    for key in ("diversity/sbert", "correct_diversity/sbert"):
        if key not in looked.values:
            continue
        table = looked.values[key]
        if known == "at the baseline alone":
            table[1:] = np.nan
        elif known == "as 0 at the baseline":  # all outputs of each prompt are the same
            table[0] = 0.0
        else:
            table[0, 10:] = table[1:, :10] = np.nan
    found = assess(looked, 8).verdict
    assert found.kind == kind
    assert (
        "iversity could not be compared" in found.sentence or "within a prompt could not be compared" in found.sentence
    )
    assert "meaning did not" not in found.sentence


def test_a_change_that_was_not_measured_at_the_last_look_is_dated():
    """All that is left of a run that stopped answering is what its last comparable look showed."""
    usable = [*[1.0] * 4, *[0.1] * 4]
    assert "diversity changed by" in (late := assess(history(usable=usable), 8).verdict).sentence
    assert late.kind == "degeneration"
    assert late.sentence.endswith("at step 75.")
    at_once = assess(history(usable=[1.0, *[0.1] * 7]), 8).verdict  # only the baseline is comparable
    assert at_once.kind == "degeneration"
    assert at_once.sentence.endswith("; diversity could not be compared.")
    fallen = {"correct_distance": [0.4, *[0.2] * 7], "wrong_distance": [0.5, *[0.25] * 7], "judged": False}
    looked = history(**fallen, usable=[*[1.0] * 7, 0.1])
    assert "at step 150, beginning after step 0" in assess(looked, 8).verdict.sentence
    assert "No alarm: diversity changed by" in (quiet := assess(history(usable=[*[1.0] * 7, 0.4]), 8).verdict).sentence
    assert " at step 150, among correct answers by " in quiet.sentence


@pytest.mark.parametrize("only", [None, "expr"])
@pytest.mark.parametrize("judged", [True, False])
def test_a_fall_that_was_regained_is_not_called_a_negative_fall(only, judged):
    distances = [0.4, *[0.1] * 5, *[0.48] * 6]
    looked = history(
        looks=12, correct_distance=distances, wrong_distance=distances, accuracy=0.8, only_task=only, judged=judged
    )
    found = assess(looked, 12).verdict
    assert found.kind in ("narrowing among correct answers", "aggregate collapse")
    assert re.search(r"back at \+\d+ % \(\+\d+ to \+\d+ %\)", found.sentence)
    assert not re.search(r"(fell|expr) by", found.sentence)
    assert "no longer seen at the last look" in found.sentence
    assert not found.confirmed


def test_a_gain_is_not_called_quality_control_of_a_fall():
    """Fewer errors cost diversity at every look; at the last ones the answers spread by more than that."""
    distances = [0.4, *[0.25] * 5, *[0.7] * 6]
    looked = history(looks=12, accuracy=[0.5, *[0.9] * 11], correct_distance=0.4, wrong_distance=distances)
    looked.values["diversity/sbert"][6:] = 1.3 * looked.values["diversity/sbert"][0]
    assert assess(looked, 12).verdict.kind != "quality control only"


def test_few_correct_answers_are_no_evidence_that_they_are_as_spread_as_before():
    looked = history(accuracy=(0.5, 0.9), wrong_distance=0.8)
    assert assess(looked, 8).verdict.kind == "quality control only"
    for key in ("correct_diversity/sbert", "pairs/cc_distance", "pairs/cc_count"):
        looked.values[key][0, 4:] = 0 if key.endswith("count") else np.nan
    found = assess(looked, 8)
    assert found.statuses[ALL, "correct_diversity/sbert"].n == 4
    assert found.verdict.kind == "aggregate collapse"
    assert "as before" not in found.verdict.sentence


def test_a_verdict_is_confirmed_by_the_series_that_it_rests_on():
    """Wrong answers narrowed for certain; correct ones did and came back."""
    correct = [0.4, *[0.2] * 8, *[0.39] * 3]
    looked = history(looks=12, correct_distance=correct, wrong_distance=(0.5, 0.1), accuracy=0.5)
    found = assess(looked, 12)
    series = {key: found.statuses[ALL, f"{key}/sbert"] for key in ("diversity", "correct_diversity")}
    assert {key: (s.collapsed, s.confirmed) for key, s in series.items()} == {
        "diversity": (True, True),
        "correct_diversity": (True, False),
    }
    assert found.verdict.kind == "narrowing among correct answers"
    assert "The alarm was raised at step" in found.verdict.sentence
    assert not found.verdict.confirmed
    assert assess(history(**NARROWER), 8).verdict.confirmed


def test_the_alarm_is_carried_by_the_first_metric_that_was_measured_at_the_baseline():
    looked = history(judged=False, **NARROWER)
    looked.values["diversity/vendi"] = 1 + 8 * looked.values["diversity/sbert"]
    looked.values["diversity/sbert"][0] = np.nan  # unknown tokens to the encoder
    found = assess(looked, 8)
    assert (found.primary, found.verdict.kind) == ("vendi", "aggregate collapse")
    looked.values.pop("diversity/vendi")
    assert assess(looked, 8).primary == "ead"
    others = replace(looked, values={"diversity/distinct_answers": looked.values["diversity/ead"]})
    found = assess(others, 8)
    assert (found.primary, found.verdict.kind) == (None, "not comparable")
    assert "No metric that carries an alarm was measured (sbert, vendi, ead)" in found.verdict.sentence


def test_a_change_among_the_correct_answers_of_few_prompts_is_not_said():
    looked = history()
    assert "among correct answers" in assess(looked, 8).verdict.sentence
    looked.values["correct_diversity/sbert"][:, 4:] = np.nan  # four prompts: no interval
    assert "correct" not in assess(looked, 8).verdict.sentence


def test_one_look_is_nothing_to_compare():
    found = assess(history(looks=1), 8)
    assert found.verdict.kind == "none"
    assert (found.baseline_step, found.last_step, found.split) == (0, 0, None)


def test_the_baseline_is_the_first_comparable_look():
    found = assess(looked := history(usable=RAMBLED), len(looked.steps))
    assert looked.comparable[:3] == [False, False, True]
    assert (found.baseline_step, found.last_step) == (50, 175)
    assert "Looks before step 50 are not comparable" in found.verdict.sentence


def test_answers_that_end_rarely_at_every_look_are_compared():
    """Long stories run to the window's end before and after training."""
    told = history(judged=False, finished=(0.0, 0.3), correct_distance=(0.6, 0.3), wrong_distance=(0.6, 0.3))
    found = assess(told, len(told.steps))
    assert (found.baseline_step, found.verdict.kind) == (0, "aggregate collapse")


def test_answers_that_grow_beyond_the_window_are_no_degeneration_and_a_model_that_never_ends_is():
    for after, kind in ((0.3, "none"), (0.02, "degeneration")):
        grown = history(judged=False, finished=(0.9, after))
        assert assess(grown, len(grown.steps)).verdict.kind == kind


def test_no_later_look_changes_what_was_said():
    looked = history(looks=12, seed=3, **NARROWER)
    alarms: dict = {}
    for at in range(1, 13):
        kept = replace(
            looked,
            steps=looked.steps[:at],
            comparable=looked.comparable[:at],
            values={key: table[:at] for key, table in looked.values.items()},
        )
        found = {(task, key): s.alarm_step for task, key, s in assess(kept, 12).alarms}
        assert alarms.items() <= found.items()
        alarms = found
    assert (ALL, "correct_diversity/sbert") in alarms


def test_prompts_are_matched_by_id():
    looked = history(seed=4, **NARROWER)
    rng, looks = np.random.default_rng(0), []
    for at, step in enumerate(looked.steps):
        order = rng.permutation(len(looked.ids))
        values = {key: table[at][order] for key, table in looked.values.items()}
        scores = PromptScores([looked.ids[i] for i in order], [looked.tasks[i] for i in order], values)
        looks.append((step, scores, True))
    shuffled = History.of(looks[::-1])
    one, other = assess(looked, 8), assess(shuffled, 8)
    assert one.verdict.kind == other.verdict.kind
    for at in one.statuses:
        assert one.statuses[at].change == pytest.approx(other.statuses[at].change)


def test_a_prompt_that_a_look_lacks_is_missing_there():
    full = PromptScores(["a", "b"], ["t", "t"], {"diversity/sbert": [0.1, 0.2]})
    part = PromptScores(["b", "new"], ["t", "t"], {"diversity/sbert": [0.3, 0.9]})
    looked = History.of([(0, full, True), (5, part, True)])
    assert looked.ids == ["a", "b"]
    assert np.isnan(looked.values["diversity/sbert"][1, 0])
    assert looked.values["diversity/sbert"][1, 1] == 0.3


def test_tasks_weigh_equally_over_the_whole_panel():
    # 30 prompts of one task stay, 3 of another halve: a quarter is lost, not a twentieth.
    tasks = ["many"] * 30 + ["few"] * 3
    before = PromptScores([str(i) for i in range(33)], tasks, {"diversity/sbert": [0.4] * 33})
    after = PromptScores(before.ids, tasks, {"diversity/sbert": [0.4] * 30 + [0.2] * 3})
    found = assess(History.of([(0, before, True), (1, after, True), (2, after, True)]), 3)
    assert found.statuses[ALL, "diversity/sbert"].change == pytest.approx(-0.25)
    assert found.statuses["few", "diversity/sbert"].change == pytest.approx(-0.5)


def test_series_are_those_of_the_detector():
    looked = history(tasks=("only",), judged=False, **NARROWER)
    status = assess(looked, 8).statuses[ALL, "diversity/sbert"]
    alone = CollapseDetector(8).replay(looked.steps, looked.values["diversity/sbert"])
    assert status.alarm_step == alone.alarm_step
    assert status.change == pytest.approx(alone.change)


def test_the_split_adds_up_to_the_change_of_the_curve():
    looked = history(accuracy=(0.5, 0.9), wrong_distance=0.8)
    found = assess(looked, 8)
    split = found.split
    parts = (split.quality_control, split.genuine_narrowing, split.cross_narrowing, split.error_narrowing)
    assert sum(parts) == pytest.approx(split.total)
    assert list(found.splits) == [ALL, "pair", "expr", "word"]
    assert split.total == pytest.approx(np.mean([found.splits[task].total for task in ("pair", "expr", "word")]))
    level = np.mean(looked.values["diversity/sbert"][0])
    assert split.total / level == pytest.approx(found.statuses[ALL, "diversity/sbert"].change, abs=0.02)


def test_the_alarm_falls_back_on_what_was_measured():
    looked = history(**NARROWER, judged=False)
    lexical = replace(looked, values={"diversity/ead": looked.values["diversity/sbert"]})
    found = assess(lexical, 8)
    assert found.primary == "ead"
    assert found.verdict.kind == "aggregate collapse"
    assert assess(replace(looked, values={}), 8).verdict.kind == "not comparable"


def test_no_looks_is_said():
    with pytest.raises(DivwatchError, match="no looks"):
        History.of([])


def test_two_losses_are_compared_on_the_same_prompts():
    """Easy prompts narrow alike over all and over correct outputs; hard ones, without a correct answer, do not change."""
    rng = np.random.default_rng(5)
    easy, hard, looks = 24, 200, []
    for look in range(8):
        level = np.where(np.arange(easy + hard) < easy, 0.4 if look < 2 else 0.28, 0.4)
        values = level * (1 + 0.02 * rng.standard_normal((2, easy + hard)))
        right = np.arange(easy + hard) < easy
        scores = {
            "diversity/sbert": values[0],
            "correct_diversity/sbert": np.where(right, values[1], np.nan),
            "quality/accuracy": np.where(right, 0.9 if look < 2 else 0.4, 0.0),
        }
        ids = [str(i) for i in range(easy + hard)]
        looks.append((look, PromptScores(ids, ["t"] * len(ids), scores), True))
    verdict = assess(History.of(looks), 8).verdict
    assert verdict.kind != "false recovery"
    assert verdict.evidence["correct_diversity/sbert"]["change"] == pytest.approx(-0.3, abs=0.02)
