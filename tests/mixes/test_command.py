"""`divwatch mix list | show`: sources, rows and shares as published, for people and as JSON."""

import json
import subprocess
import sys

import pytest


def mix(*arguments, status=0):
    done = subprocess.run([sys.executable, "-m", "divwatch.cli", "mix", *arguments], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if status == 0 else done.stderr


def test_show_as_json():
    told = json.loads(mix("show", "instruct_sft", "--json"))
    assert (told["kind"], told["rows"], told["parts"][0]["from"]) == ("sft", 2152112, "allenai/Dolci-Instruct-SFT")
    assert told["sources"][0] == {"name": "Verifiable Reasoning", "rows": 310572, "share": 0.14431, "note": ""}
    assert sum(s["rows"] for s in told["sources"]) == told["rows"]
    assert sum(s["share"] for s in told["sources"]) == pytest.approx(1, abs=1e-4)


def test_list_has_every_published_set_and_the_embedded_ones():
    names = {m["name"]: m for m in json.loads(mix("list", "--json"))}
    assert {"think_sft", "instruct_sft", "think_dpo", "instruct_dpo", "think_rl", "instruct_rl"} <= set(names)
    assert {"rl_zero_math", "rl_zero_code", "rl_zero_if", "rl_zero_general", "rl_zero_mix"} <= set(names)
    assert names["tiny/instruct_sft"]["rows"] == 4000
    assert "instruct_dpo" in mix("list")


def test_show_for_people_and_one_line_for_a_wrong_name():
    shown = mix("show", "think_dpo")
    assert "UltraFeedback" in shown
    assert "15.47 %" in shown
    assert "rows: 150,000; tokens: ?" in shown
    assert mix("show", "nope", status=2).startswith("error: unknown mix 'nope': choose from")
