"""A plan of training runs that differ in their data mix alone: read from YAML, made into arms and launch commands.

    recipe: sft                                   # recipes/sft.py; or a script of one's own
    config: configs/tiny/instruct/sft.yaml        # what every run starts from
    output_dir: runs/ablations/tiny
    settings: {mix: tiny/ablation_sft}            # for every run, over the config's
    leave_one_out: all                            # every source of the mix; or a list of sources
    seeds: [0, 1, 2]
    launch: {config_file: configs/accelerate/cpu.yaml}    # options of `accelerate launch`

In place of `leave_one_out` a `grid` over mix settings, every combination being an arm:

    grid:
      mix_weight: [[FLAN=0.5], [FLAN=2]]
      mix_rows: [10000, 20000]

Beside these arms stands `full`: the mix as the config and `settings` have it.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from divwatch.errors import DivwatchError, one_line

FULL = "full"
GRID = ("mix_drop", "mix_only", "mix_rows", "mix_weight")
OURS = ("output_dir", "seed", "data_seed", "resume_from_checkpoint")  # set for each run by the plan
KEYS = ("recipe", "config", "output_dir", "settings", "leave_one_out", "grid", "seeds", "launch")

Settings = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """One mix: its name, what it changes, and the source that it leaves out (None: it is no such arm)."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    left_out: str | None = None


@dataclass(frozen=True)
class Run:
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
    """What a plan's YAML says, checked. `arms`: `full` first."""

    recipe: Path
    config: Path
    output_dir: Path
    settings: Settings
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    launch: Settings

    def runs(self) -> Iterator[Run]:
        """All runs, a seed after another, so that a plan cut short has whole replicates."""
        for seed in self.seeds:
            for arm in self.arms:
                folder = self.output_dir / arm.name / f"seed-{seed}"
                own = {"seed": seed, "data_seed": seed, "output_dir": str(folder)}
                told = {**self.settings, **arm.changes, **own}
                yield Run(arm, seed, folder, told)

    def command(self, run: Run, **more: Any) -> list[str]:
        """The launch of a run, `accelerate` being that of this Python."""
        launcher = [sys.executable, "-m", "accelerate.commands.launch", *_flags(self.launch)]
        return [*launcher, str(self.recipe), "--config", str(self.config), *_options({**run.settings, **more})]

    def shown(self, run: Run) -> str:
        """The same as one types it."""
        words = self.command(run)
        return shlex.join(["accelerate", "launch", *words[3:]])


def read_plan(path: Path) -> Plan:
    """The plan in a YAML file. Raises DivwatchError naming the file, the key and the mend."""
    told = read_yaml(path)
    unknown = sorted(set(told) - set(KEYS))
    if unknown:
        raise DivwatchError(f"{path} has the unknown key {unknown[0]!r}: the keys are {', '.join(KEYS)}")
    for key in ("recipe", "config", "output_dir"):
        if not isinstance(told.get(key), str):
            raise DivwatchError(f"{path} has no {key!r}: give it as text")
    settings, launch = (_mapping(path, told, key) for key in ("settings", "launch"))
    _check_settings(path, settings)
    config = Path(told["config"])
    base = read_yaml(config)
    return Plan(
        recipe=_recipe(told["recipe"]),
        config=config,
        output_dir=Path(told["output_dir"]),
        settings={"watch_max_overhead": 0, **settings},  # a fixed cadence: arms must be seen at the same steps
        arms=_arms(path, told, {**base, **settings}),
        seeds=_seeds(path, told.get("seeds", [0])),
        launch=launch,
    )


def read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        told = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DivwatchError(f"{path} is not there: give a YAML file") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DivwatchError(f"{path} is not YAML ({one_line(error, kind=False)}): mend it") from None
    if not isinstance(told, dict):
        raise DivwatchError(f"{path} holds no settings: write 'name: value' lines")
    return told


def _mapping(path: Path, told: dict[str, Any], key: str) -> Settings:
    value = told.get(key) or {}
    if not isinstance(value, dict):
        raise DivwatchError(f"{path} has {key!r} as {value!r}: write 'name: value' pairs")
    return dict(value)


def _check_settings(path: Path, settings: Settings) -> None:
    taken = sorted(set(settings) & set(OURS))
    if taken:
        raise DivwatchError(f"{path} sets {taken[0]!r} for every run: leave it out, the plan gives each run its own")


def _recipe(name: str) -> Path:
    """The script itself, or recipes/NAME.py here or in divwatch's own checkout."""
    places = (
        [Path(name)]
        if name.endswith(".py")
        else [root / "recipes" / f"{name}.py" for root in (Path(), Path(__file__).parents[3])]
    )
    for place in places:
        if place.is_file():
            return place
    raise DivwatchError(f"recipe {name!r} is not there: give sft, dpo or grpo, or the path of a script")


def _seeds(path: Path, told: Any) -> tuple[int, ...]:
    seeds = told if isinstance(told, list) else [told]
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds):
        raise DivwatchError(f"{path} has seeds {told!r}: give whole numbers from 0, each once")
    return tuple(seeds)


# arms


def _arms(path: Path, told: dict[str, Any], base: Settings) -> tuple[Arm, ...]:
    if ("leave_one_out" in told) == ("grid" in told):
        raise DivwatchError(f"{path} needs either 'leave_one_out' (all, or a list of sources) or 'grid'")
    found = _left_out(path, told["leave_one_out"], base) if "leave_one_out" in told else _grid(path, told["grid"])
    names = [FULL, *(arm.name for arm in found)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise DivwatchError(f"{path} has two arms of the name {twice!r}: leave one out")
    return (Arm(FULL), *found)


def _left_out(path: Path, told: Any, base: Settings) -> list[Arm]:
    """An arm a source, with what the plan leaves out anyway left out too."""
    already = _list(base.get("mix_drop"))
    sources = _sources(path, base, already) if told == "all" else told
    if not isinstance(sources, list) or not sources or not all(isinstance(s, str) for s in sources):
        raise DivwatchError(f"{path} has leave_one_out {told!r}: give all, or a list of sources")
    return [Arm(f"without-{_slug(s)}", {"mix_drop": [*already, s]}, left_out=s) for s in sources]


def _sources(path: Path, base: Settings, already: list[Any]) -> list[str]:
    from divwatch.mixes.show import described

    mix = base.get("mix")
    if not mix:
        raise DivwatchError(f"{path} names no mix: give one under 'settings' or in the config")
    known = [] if str(mix).endswith((".json", ".jsonl")) else [s["name"] for s in described(mix)["sources"]]
    only = _list(base.get("mix_only"))
    kept = [s for s in known if s not in already and (not only or s in only)]
    if len(kept) < 2:
        raise DivwatchError(
            f"mix {mix!r} lists {len(kept) or 'no'} sources that could be left out: list them under 'leave_one_out'"
        )
    return kept


def _grid(path: Path, told: Any) -> list[Arm]:
    if not isinstance(told, dict) or not told:
        raise DivwatchError(f"{path} has grid {told!r}: give lists of values for some of {', '.join(GRID)}")
    for key, values in told.items():
        if key not in GRID:
            raise DivwatchError(f"{path} has {key!r} in its grid: the mix settings are {', '.join(GRID)}")
        if not isinstance(values, list) or not values:
            raise DivwatchError(f"{path} has {values!r} for {key!r} in its grid: give a list of values")
    found = []
    for values in product(*told.values()):
        changes = dict(zip(told, values, strict=True))
        found.append(Arm("_".join(_slug(f"{k.removeprefix('mix_')}-{_text(v)}") for k, v in changes.items()), changes))
    return found


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _text(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _slug(text: str) -> str:
    """A name that is a folder's name too.

    >>> _slug("weight-Evol CodeAlpaca=0.5")
    'weight-evol-codealpaca=0.5'
    """
    return re.sub(r"[^a-z0-9.=+-]+", "-", text.lower()).strip("-.") or "arm"


def _options(settings: Mapping[str, Any]) -> list[str]:
    """As words of a command line; YAML's true is --name true, a list its words one after another.

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
    """As `_options`, but `accelerate launch` has flags: true is the name alone, false is nothing."""
    told = [(n, [] if v is True else v) for n, v in settings.items() if v is not False]
    return _options(dict(told))
