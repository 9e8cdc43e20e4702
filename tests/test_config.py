"""Settings: a wrong value is one line that names it and the fix."""

import json
from typing import get_args, get_type_hints

import pytest

from divwatch import DivwatchError, WatchConfig
from divwatch.config import WatchArguments, settings_written_as
from divwatch.schedule import steps_between_looks


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"every": 0}, "every is 0.*whole number.*fraction"),
        ({"every": -5}, "every is -5"),
        ({"every": 2.5}, "every is 2.5"),
        ({"every": "often"}, "every is 'often': give auto or a number"),
        ({"every": float("inf")}, "every is inf"),
        ({"looks": 1}, "looks is 1.*at least 2"),
        ({"samples": 1}, "samples is 1.*at least 2"),
        ({"prompts": 0}, "prompts is 0"),
        ({"seed": -1}, "seed is -1.*at least 0"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"metrics": ["sbrt"]}, "sbrt.*choose from.*sbert"),
        ({"metrics": []}, "nothing.*choose from"),
        ({"on_collapse": "panic"}, "'panic'.*log, alert, save, stop"),
        ({"evry": 10}, r"unknown setting evry \(did you mean every\?\)"),
        ({"watch_every": 10}, r"unknown setting watch_every \(did you mean every\?\)"),
        ({"panel": [3]}, r"panel is \[3\]: give texts, conversations or rows"),
        ({"metrics": "nli"}, "metrics has nli but nli_model is not set"),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_fix(settings, says):
    with pytest.raises(DivwatchError, match=says) as error:
        WatchConfig.from_settings(**settings)
    assert "\n" not in str(error.value)


# Values of another type than that of the setting; a number is no string and no flag, and the other way round.
WRONG_TYPES = {
    str: [None, 3, 0.5, True, [3], {"a": 1}, b"quick", object(), "a\0b"],
    bool: [None, "false", "no", 0, 1, 0.0, [], {}],
    int: [None, "8", "many", 8.0, 8.5, True, [8], {}, float("nan"), 1j],
    float: [None, "0.1", "a lot", True, [0.1], {}, float("nan"), float("inf"), -float("inf"), 10**400, 1j],
    list[str]: [
        None,
        3,
        True,
        {"ead": 1},
        [1],
        [["ead"]],
        b"ead",
        [None],
        "",
        ",",
        "ead,,sbert",
        "ead;sbert",
        ["ead", True],
    ],
}


def _settings_with_types():
    for name, kind in get_type_hints(WatchConfig).items():
        arguments = get_args(kind) if kind not in WRONG_TYPES else ()
        yield name, next((k for k in arguments if k in WRONG_TYPES), kind), type(None) in arguments


@pytest.mark.parametrize(("name", "kind", "optional"), list(_settings_with_types()))
def test_a_value_of_another_type_is_one_line_for_every_setting(name, kind, optional):
    for wrong in WRONG_TYPES[kind]:
        if wrong is None and optional:
            assert getattr(WatchConfig(**{name: None}), name) is None
            continue
        with pytest.raises(DivwatchError, match=f"^{name} (is|has) ") as error:
            WatchConfig.from_settings(**{name: wrong})
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 250


def test_other_forms_of_the_right_type_are_accepted(tmp_path):
    import numpy as np

    config = WatchConfig(
        metrics="ead, sbert",
        panel=tmp_path / "panel.jsonl",
        prompts=np.int64(8),
        alpha=np.float32(0.5),
        min_drop=1,
        every=5,
    )
    assert config.metrics == ["ead", "sbert"]
    assert config.panel == str(tmp_path / "panel.jsonl")
    assert (config.prompts, config.alpha, config.min_drop) == (8, 0.5, 1)
    assert json.dumps(config.as_dict())
    assert WatchConfig(metrics=("ead", "vendi,ast")).metrics == ["ead", "vendi", "ast"]
    assert WatchConfig(metrics="sbert").metrics == ["sbert"]
    assert WatchConfig(panel=["gsm8k", "mbpp"]).panel == "gsm8k,mbpp"


def test_settings_are_named_as_the_caller_wrote_them(tmp_path):
    written = {"": "max_overhead is 2", "watch_": "watch_max_overhead is 2", "--": "--max-overhead is 2"}
    for prefix, says in written.items():
        with settings_written_as(prefix), pytest.raises(DivwatchError, match=f"^{says}: give a share"):
            WatchConfig(max_overhead=2)
    with settings_written_as("watch_"):
        config = WatchConfig(full_tokens=64).at_full_length()
    assert (
        config.as_written("set watch_think_tokens, see the watch_word") == "set watch_think_tokens, see the watch_word"
    )
    assert WatchConfig().as_written("set watch_think_tokens") == "set think_tokens"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("watch_metrics: ead,sbert", None),
        ("watch_metrics: [ead, sbert]", None),
        ("watch_max_overhead: null", r"watch_max_overhead is None: give a number \(default: 0.03\)"),
        ("watch_panel: 8", r"watch_panel is 8: give a text, or null for the default"),
        ("watch_samples: 8.5", "watch_samples is 8.5: give a whole number"),
        ("watch_background: null", r"watch_background is None: give true or false \(default: true\)"),
    ],
)
def test_yaml_is_checked_by_the_same_types(tmp_path, line, says):
    from trl import TrlParser

    file = tmp_path / "run.yaml"
    file.write_text(line + "\n")
    (arguments,) = TrlParser([WatchArguments]).parse_args_and_config(["--config", str(file)])
    if says is None:
        assert WatchConfig.from_arguments(arguments).metrics == ["ead", "sbert"]
    else:
        with pytest.raises(DivwatchError, match=says):
            WatchConfig.from_arguments(arguments)


def test_every_counts_steps_or_shares_of_the_run():
    assert steps_between_looks(0.05, 1000) == 50
    assert steps_between_looks(100, 1000) == 100
    assert steps_between_looks(0.001, 10) == 1


def test_arguments_carry_every_setting_with_its_prefix():
    from trl import TrlParser

    (arguments,) = TrlParser([WatchArguments]).parse_args_and_config(
        ["--watch_every", "25", "--watch_metrics", "ead", "sbert"]
    )
    assert WatchConfig.from_arguments(arguments) == WatchConfig(every=25, metrics=["ead", "sbert"])


def test_a_bare_off_in_yaml_is_off_and_tokens_are_by_task_unless_set(tmp_path):
    from trl import TrlParser

    file = tmp_path / "run.yaml"
    file.write_text("watch_thinking: off\nwatch_held_out: off\n")
    (arguments,) = TrlParser([WatchArguments]).parse_args_and_config(["--config", str(file)])
    config = WatchConfig.from_arguments(arguments)
    assert (config.thinking, config.held_out, config.max_new_tokens) == ("off", "off", None)
    with pytest.raises(DivwatchError, match=r"^max_new_tokens is 0: give a whole number of at least 1"):
        WatchConfig(max_new_tokens=0)


@pytest.mark.parametrize(
    ("words", "every"),
    [([], "auto"), (["--watch_every", "auto"], "auto"), (["--watch_every", "0.1"], 0.1), (["--watch_every", "7"], 7)],
)
def test_every_is_auto_or_a_number_on_the_command_line(words, every):
    from trl import TrlParser

    (arguments,) = TrlParser([WatchArguments]).parse_args_and_config(words)
    assert WatchConfig.from_arguments(arguments).every == every
