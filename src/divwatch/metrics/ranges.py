"""The range of every per-prompt value: no mean over prompts, and no interval of one, may leave it."""

from __future__ import annotations

from math import inf, log

_DISTANCE = (0.0, 2.0)
_SHARE = (0.0, 1.0)
_RANGES = {"ead": _SHARE, "ast": _SHARE, "ast_distinct": _SHARE, "gini_simpson": _SHARE, "nli": _DISTANCE}


def value_range(key: str, outputs: float = inf) -> tuple[float, float]:
    """Lowest and highest value of `group/metric` for `outputs` outputs a prompt (the size, where it is rarefied).

    >>> value_range("diversity/sbert"), value_range("quality/accuracy"), value_range("diversity/vendi@8")
    ((0.0, 2.0), (0.0, 1.0), (1.0, 8.0))
    """
    group, _, metric = key.partition("/")
    name, _, size = metric.partition("@")
    most = float(size) if size else outputs
    if group == "quality":
        return _SHARE
    if group == "covariates":
        return _SHARE if name.startswith("learning_signal") else (1.0 if name == "branching_factor" else 0.0, inf)
    if group in ("pairs", "subset"):
        return _DISTANCE if name.endswith("_distance") else (0.0, inf)
    if name in _RANGES:
        return _RANGES[name]
    if name == "answer_entropy":
        return 0.0, log(most)
    return (1.0, most) if name.partition("_")[0] in ("vendi", "distinct") or name == "code_vendi" else _DISTANCE
