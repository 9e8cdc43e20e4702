"""Settings: a wrong value is one line that names it and the fix."""

import pytest

from divwatch import DivwatchError, WatchConfig
from divwatch.config import WatchArguments, steps_between_looks


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"every": 0}, "watch_every is 0.*whole number.*fraction"),
        ({"every": -5}, "watch_every is -5"),
        ({"every": 2.5}, "watch_every is 2.5"),
        ({"samples": 1}, "watch_samples is 1.*at least 2"),
        ({"prompts": 0}, "watch_prompts is 0"),
        ({"top_p": 0.0}, "watch_top_p is 0"),
        ({"temperature": 0.0}, "watch_temperature is 0"),
        ({"alpha": 1.5}, "watch_alpha is 1.5"),
        ({"metrics": ["sbrt"]}, "sbrt.*choose from.*sbert"),
        ({"metrics": []}, "nothing.*choose from"),
        ({"on_collapse": "panic"}, "'panic'.*log, alert, save, stop"),
        ({"evry": 10}, "unknown setting evry.*every"),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_fix(settings, says):
    with pytest.raises(DivwatchError, match=says) as error:
        WatchConfig.from_settings(**settings)
    assert "\n" not in str(error.value)


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
    with pytest.raises(DivwatchError, match="watch_max_new_tokens is 0: give a whole number of at least 1"):
        WatchConfig(max_new_tokens=0)
