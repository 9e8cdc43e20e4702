"""A plan of training runs that differ only in their data mix: from YAML to arms and launch commands.

    recipe: sft                                   # recipes/sft.py; or the path of a script
    config: configs/tiny/instruct/sft.yaml        # the config of every run
    output_dir: runs/ablations/tiny
    settings: {mix: tiny/ablation_sft}            # override the config in every run
    leave_one_out: all                            # every source of the mix; or a list of sources
    seeds: [0, 1, 2]
    launch: {config_file: configs/accelerate/cpu.yaml}    # options of `accelerate launch`

Instead of `leave_one_out`, a `grid` over mix settings makes every combination an arm:

    grid:
      mix_weight: [[FLAN=0.5], [FLAN=2]]
      mix_rows: [10000, 20000]

The arm `full` is added: the mix as the config and `settings` define it.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.files import read_yaml

CHECKOUT = Path(__file__).parents[3]
FULL = "full"
GRID = ("mix_drop", "mix_only", "mix_rows", "mix_weight")
PER_RUN = ("output_dir", "seed", "data_seed", "resume_from_checkpoint")  # the plan sets them for each run
INPUTS = ("model_name_or_path", "local_data", "mix")  # settings that may name a file
KEYS = ("recipe", "config", "output_dir", "settings", "leave_one_out", "grid", "seeds", "launch")

Settings = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """One mix. changes: mix settings that differ from `full`. left_out: the source it leaves out, None in a grid."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    left_out: str | None = None


@dataclass(frozen=True)
class PlannedRun:
    """One training run of the plan: an arm with a seed."""

    arm: Arm
    seed: int
    output_dir: Path
    settings: Settings

    @property
    def name(self) -> str:
        return f"{self.arm.name} seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A plan that was read and checked. `arms`: `full` first."""

    recipe: Path
    config: Path
    output_dir: Path
    settings: Settings
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    launch: Settings

    def runs(self) -> Iterator[PlannedRun]:
        """All runs, one seed after another, so a plan that is stopped early has complete replicates."""
        for seed in self.seeds:
            for arm in self.arms:
                folder = self.output_dir / arm.name / f"seed-{seed}"
                per_run = {"seed": seed, "data_seed": seed, "output_dir": str(folder)}
                yield PlannedRun(arm, seed, folder, {**self.settings, **arm.changes, **per_run})

    def command(self, run: PlannedRun, **more: Any) -> list[str]:
        """The command that launches a run, with the `accelerate` of this Python."""
        launcher = [sys.executable, "-m", "accelerate.commands.launch", *_flags(self.launch)]
        return [*launcher, str(self.recipe), "--config", str(self.config), *_options({**run.settings, **more})]

    def command_line(self, run: PlannedRun) -> str:
        """The same as text to type into a shell."""
        words = self.command(run)
        return shlex.join(["accelerate", "launch", *words[3:]])


def read_plan(path: Path) -> Plan:
    """The plan in a YAML file. Raises DivwatchError with the file, the key and the fix."""
    fields = read_yaml(path)
    unknown = sorted(set(fields) - set(KEYS))
    if unknown:
        raise DivwatchError(f"{path} has the unknown key {unknown[0]!r}: the keys are {', '.join(KEYS)}")
    for key in ("recipe", "config", "output_dir"):
        if not isinstance(fields.get(key), str):
            raise DivwatchError(f"{path} has no {key!r}: give it as text")
    settings, launch = (_mapping(path, fields, key) for key in ("settings", "launch"))
    _check_settings(path, settings)
    config = _found(path, fields["config"])
    base = read_yaml(config)
    settings |= _moved(path, {**base, **settings}, INPUTS)
    launch |= _moved(path, launch, ("config_file",))
    return Plan(
        recipe=_recipe(fields["recipe"]),
        config=config,
        output_dir=Path(fields["output_dir"]),
        settings={"watch_max_overhead": 0, **settings},  # all arms need looks at the same steps
        arms=_arms(path, fields, {**base, **settings}),
        seeds=_seeds(path, fields.get("seeds", [0])),
        launch=launch,
    )


def _mapping(path: Path, fields: dict[str, Any], key: str) -> Settings:
    value = fields.get(key) or {}
    if not isinstance(value, dict):
        raise DivwatchError(f"{path} has {key!r} as {value!r}: write 'name: value' pairs")
    return dict(value)


def _moved(plan: Path, settings: Settings, names: Sequence[str]) -> Settings:
    """Those of the named settings whose file is not where the working directory says, with its path."""
    found = {name: str(_found(plan, settings[name])) for name in names if isinstance(settings.get(name), str)}
    return {name: path for name, path in found.items() if path != str(Path(settings[name]))}


def _found(plan: Path, name: str) -> Path:
    """The file of this name: from the working directory, beside the plan, or in divwatch's checkout; else the name."""
    places = (Path(name), plan.parent / name, CHECKOUT / name)
    return next((place for place in places if place.exists()), Path(name))


def _check_settings(path: Path, settings: Settings) -> None:
    reserved = sorted(set(settings) & set(PER_RUN))
    if reserved:
        raise DivwatchError(f"{path} sets {reserved[0]!r} for every run: leave it out, the plan sets it for each run")


def _recipe(name: str) -> Path:
    """The path of the script; a name means recipes/NAME.py here or in divwatch's checkout."""
    places = [Path(name)] if name.endswith(".py") else [root / "recipes" / f"{name}.py" for root in (Path(), CHECKOUT)]
    for place in places:
        if place.is_file():
            return place
    raise DivwatchError(f"recipe {name!r} is not there: give sft, dpo or grpo, or the path of a script")


def _seeds(path: Path, value: Any) -> tuple[int, ...]:
    seeds = value if isinstance(value, list) else [value]
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds):
        raise DivwatchError(f"{path} has seeds {value!r}: give whole numbers from 0, each once")
    return tuple(seeds)


# arms


def _arms(path: Path, fields: dict[str, Any], base: Settings) -> tuple[Arm, ...]:
    if ("leave_one_out" in fields) == ("grid" in fields):
        raise DivwatchError(f"{path} needs either 'leave_one_out' (all, or a list of sources) or 'grid'")
    leaving_out = "leave_one_out" in fields
    arms = _leave_one_out(path, fields["leave_one_out"], base) if leaving_out else _grid(path, fields["grid"])
    names = [FULL, *(arm.name for arm in arms)]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise DivwatchError(f"{path} has two arms of the name {repeated!r}: leave one out")
    return (Arm(FULL), *arms)


def _leave_one_out(path: Path, value: Any, base: Settings) -> list[Arm]:
    """One arm for each source. Sources that the plan drops from every run stay dropped."""
    dropped = _list(base.get("mix_drop"))
    sources = _sources(path, base, dropped) if value == "all" else value
    if not isinstance(sources, list) or not sources or not all(isinstance(s, str) for s in sources):
        raise DivwatchError(f"{path} has leave_one_out {value!r}: give all, or a list of sources")
    return [Arm(f"without-{_slug(s)}", {"mix_drop": [*dropped, s]}, left_out=s) for s in sources]


def _sources(path: Path, base: Settings, dropped: list[Any]) -> list[str]:
    from divwatch.mixes.show import described

    mix = base.get("mix")
    if not mix:
        raise DivwatchError(f"{path} names no mix: give one under 'settings' or in the config")
    known = [] if str(mix).endswith((".json", ".jsonl")) else [s["name"] for s in described(mix)["sources"]]
    only = _list(base.get("mix_only"))
    used = [s for s in known if s not in dropped and (not only or s in only)]
    if len(used) < 2:
        raise DivwatchError(
            f"mix {mix!r} lists {len(used) or 'no'} sources that could be left out: list them under 'leave_one_out'"
        )
    return used


def _grid(path: Path, grid: Any) -> list[Arm]:
    if not isinstance(grid, dict) or not grid:
        raise DivwatchError(f"{path} has grid {grid!r}: give lists of values for some of {', '.join(GRID)}")
    for key, values in grid.items():
        if key not in GRID:
            raise DivwatchError(f"{path} has {key!r} in its grid: the mix settings are {', '.join(GRID)}")
        if not isinstance(values, list) or not values:
            raise DivwatchError(f"{path} has {values!r} for {key!r} in its grid: give a list of values")
    combinations = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return [Arm(_grid_name(changes), changes) for changes in combinations]


def _grid_name(changes: Settings) -> str:
    """
    >>> _grid_name({"mix_weight": ["FLAN=0.5"], "mix_rows": 100})
    'weight-flan=0.5_rows-100'
    """
    return "_".join(_slug(f"{key.removeprefix('mix_')}-{_text(value)}") for key, value in changes.items())


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _text(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _slug(text: str) -> str:
    """The text as the name of a folder.

    >>> _slug("weight-Evol CodeAlpaca=0.5")
    'weight-evol-codealpaca=0.5'
    """
    return re.sub(r"[^a-z0-9.=+-]+", "-", text.lower()).strip("-.") or "arm"


def _options(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line: YAML's true becomes --name true, a list several words.

    >>> _options({"mix_drop": ["A", "B C"], "bf16": False})
    ['--mix_drop', 'A', 'B C', '--bf16', 'false']
    """
    words: list[str] = []
    for name, value in settings.items():
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *(str(v).lower() if isinstance(v, bool) else str(v) for v in values)]
    return words


def _flags(settings: Mapping[str, Any]) -> list[str]:
    """As `_options` for `accelerate launch`, which has flags: true is the name alone, false is nothing."""
    return _options({name: [] if value is True else value for name, value in settings.items() if value is not False})
