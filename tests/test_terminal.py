"""Lines at a terminal: the published reference beside the user's run, and alarms in words."""

import pandas as pd
import pytest

from divwatch.outputs.report.summary import reference_lines
from divwatch.outputs.terminal import alarm_message, look_line
from divwatch.records import Change, RunAssessment, ScoredLook


def test_the_published_share_stands_beside_ones_own():
    rows = [("instruct", "sft", 0, 0, 0.5), ("instruct", "sft", 0, 100, 0.4), ("instruct", "dpo", 1, 0, 0.41)]
    rows += [("instruct", "dpo", 1, 50, 0.25), ("mine", "sft", 0, 0, 0.5), ("mine", "sft", 0, 100, 0.1)]
    curves = pd.DataFrame(rows, columns=["lineage", "stage", "number", "step", "mean"])
    curves = curves.assign(task="gsm8k", key="diversity/sbert", status="ok")
    assert reference_lines(curves) == [
        "instruct sft kept 80% of the base on gsm8k; Olmo 3 7B kept 61%",
        "instruct dpo kept 50% of the base on gsm8k; Olmo 3 7B kept 82%",
    ]
    assert reference_lines(curves.assign(task="pair")) == []


@pytest.mark.parametrize(
    ("confirmed", "said"), [(False, "narrowing among correct answers, unconfirmed"), (True, "answers")]
)
def test_a_look_marks_its_verdict_by_the_loss_that_it_rests_on(confirmed, said):
    """Whatever other alarm of the run is confirmed."""
    alarms = tuple(
        Change(task="all", key=key, change=-0.2, change_interval=(-0.3, -0.1), alarm_step=5, confirmed=sure)
        for key, sure in (("diversity/sbert", True), ("correct_diversity/sbert", confirmed))
    )
    verdict = {"kind": "narrowing among correct answers", "sentence": "Correct answers narrowed."}
    look = ScoredLook(
        step=9, status="ok", time=0, sample_seconds=1, score_seconds=1, usable_share=1, finished_share=1, closed_share=0,
        unreadable=0, unverified={}, tasks={"all": {}},
        assessment=RunAssessment("sbert", 0, verdict, alarms, confirmed=confirmed),
    )  # fmt: skip
    assert look_line(ScoredLook.from_json(look.to_json())).endswith(said)


def test_an_alarm_in_words():
    alarm = Change(
        task="all", key="correct_diversity/sbert", change=-0.24, change_interval=(-0.28, -0.19), alarm_step=400,
        onset_step=300, onset_interval=(250, 350), confirmed=True,
    )  # fmt: skip
    assert alarm_message(alarm) == (
        "correct-answer diversity of the whole panel falls since step 300 (90 % interval 250 to 350): "
        "-24 % [-28, -19], confirmed."
    )
