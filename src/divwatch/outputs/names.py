"""The names under which trackers get a look's numbers, and the axes on which W&B draws them."""

from __future__ import annotations

from collections.abc import Mapping

from divwatch.records import PARTS, RunAssessment

AXIS = "train/global_step"
PIPELINE_AXIS = "divwatch/pipeline_step"  # optimizer steps since the lineage's base
# Groups of per-prompt values that trackers get; the others stay in the run directory.
LOGGED_GROUPS = ("diversity", "correct_diversity", "quality", "across", "covariates")
SECONDS, OVERHEAD = "watch/seconds", "watch/overhead"
# Logged beside a curve of correct answers: correct_diversity/<task>/<metric>_prompts, the prompts behind its value.
PROMPTS = "_prompts"
TABLE, BLAME_TABLE = "watch/completions", "watch/blame"
ALARM = "collapse/alarm"
# In the summary of a W&B run: the verdict, and the last assessment's scalars after this prefix.
SUMMARY = "divwatch/"
VERDICT, KIND = f"{SUMMARY}verdict", f"{SUMMARY}kind"


def look_scalars(tasks: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """`{task: {group/metric: {mean, ...}}}` as `{group/task/metric: mean}`, without missing values.

    >>> look_scalars({"all": {"diversity/sbert": {"mean": 0.4}, "pairs/cc_count": {"mean": 9.0}}})
    {'diversity/all/sbert': 0.4}
    >>> look_scalars({"all": {"correct_diversity/sbert": {"mean": 0.4, "n": 51}}})
    {'correct_diversity/all/sbert': 0.4, 'correct_diversity/all/sbert_prompts': 51.0}
    """
    scalars = {}
    for task, values in tasks.items():
        for key, summary in values.items():
            group, metric = key.split("/", 1)
            mean = summary["mean"]
            if group in LOGGED_GROUPS and mean is not None and mean == mean:
                scalars[f"{group}/{task}/{metric}"] = float(mean)
                if group == "correct_diversity" and "n" in summary:
                    scalars[f"{group}/{task}/{metric}{PROMPTS}"] = float(summary["n"])
    return scalars


def summary_values(assessment: RunAssessment) -> dict[str, float | str]:
    """What the summary of a W&B run holds: the verdict, and the last assessment's scalars."""
    scalars = assessment_scalars(assessment)
    verdict = {VERDICT: assessment.verdict["sentence"], KIND: assessment.verdict["kind"]}
    return {**verdict, **{SUMMARY + name: value for name, value in scalars.items()}}


def assessment_scalars(assessment: RunAssessment) -> dict[str, float]:
    """What the looks show so far: the alarm, changes and onsets by task, and the parts of the change."""
    scalars: dict[str, float] = {ALARM: float(bool(assessment.alarms))}
    for change in assessment.changes:
        prefix = "collapse" if change.key.startswith("diversity/") else "collapse_correct"
        if change.change == change.change:
            scalars[f"{prefix}/{change.task}/change"] = change.change
        if change.onset_step is not None:
            scalars[f"{prefix}/{change.task}/onset_step"] = float(change.onset_step)
    for task, parts in assessment.splits.items():
        scalars |= {f"decomposition/{task}/{name}": parts[name] for name in PARTS if parts[name] == parts[name]}
    return scalars
