"""Lines at a terminal: the published reference beside the user's run, and alarms in words."""

import pandas as pd

from divwatch.outputs.report.summary import reference_lines
from divwatch.outputs.terminal import alarm_message
from divwatch.records import Change


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


def test_an_alarm_in_words():
    alarm = Change(
        task="all", key="correct_diversity/sbert", change=-0.24, change_interval=(-0.28, -0.19), alarm_step=400,
        onset_step=300, onset_interval=(250, 350), confirmed=True,
    )  # fmt: skip
    assert alarm_message(alarm) == (
        "correct-answer diversity of the whole panel falls since step 300 (90 % interval 250 to 350): "
        "-24 % [-28, -19], confirmed."
    )
