"""`divwatch blame` through the command: its JSON, a DPO file with sources, and what it refuses."""

import json
from pathlib import Path

import pytest

from divwatch.cli import app
from divwatch.errors import DivwatchError
from divwatch.tiny import BASE_MODEL
from divwatch.tiny.mixes import rows as tiny_rows
from divwatch.tiny.panel import panel as tiny_panel

SMALL = ["--samples", "4", "--max-new-tokens", "24", "--encoder", "minilm", "--rows", "8"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Options that make it quick: a panel of four prompts of one task."""
    panel = tmp_path_factory.mktemp("panel") / "panel.jsonl"
    lines = [{"id": p.id, "task": p.task, "prompt": p.messages} for p in tiny_panel() if p.task == "story"][:4]
    panel.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [*SMALL, "--panel", str(panel)]


def blame(*words):
    app([*map(str, ("blame", *words))], standalone_mode=False)


def test_the_result_of_a_mix_as_json(small, tmp_path, capsys):
    out = tmp_path / "blame.json"
    blame(
        BASE_MODEL,
        "--mix",
        "tiny/ablation_sft",
        *small,
        "--steps",
        10,
        "--learning-rate",
        3e-4,
        "--suggest",
        "--json",
        out,
    )
    result = json.loads(out.read_text())
    assert set(result["sources"]) == {"forum", "manual", "quiz", "script"}
    assert set(result["sources"]["script"]) == {"all", "story"}
    effects = [result["sources"][s]["all"] for s in result["sources"]]
    assert all(e["ci95"][0] < e["effect"] < e["ci95"][1] for e in effects)
    assert result["explained"]["predicted"] == pytest.approx(sum(e["effect"] for e in effects))
    assert result["explained"]["observed"] is None
    assert sum(e["share"] for e in effects) == pytest.approx(1)
    assert len(result["rows"]) == 20
    assert result["rows"][0]["effect"] < result["rows"][-1]["effect"]
    assert "user: " in result["rows"][0]["text"]
    assert "Predicted change of diversity by source, over 10 steps" in capsys.readouterr().out


def test_the_effects_at_two_checkpoints_add_up_to_the_change_along_the_path(small, tmp_path, capsys):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    later, out = tmp_path / "checkpoint-4", tmp_path / "blame.json"
    model = AutoModelForCausalLM.from_pretrained(BASE_MODEL)
    model.lm_head.weight.data *= 1.5  # sharper answers
    model.save_pretrained(later)
    AutoTokenizer.from_pretrained(BASE_MODEL).save_pretrained(later)
    (later / "trainer_state.json").write_text(json.dumps({"global_step": 4, "log_history": []}))
    blame(later, BASE_MODEL, "--mix", "tiny/ablation_sft", *small, "--samples", 8, "--no-by-task", "--json", out)
    result = json.loads(out.read_text())
    explained, effects = result["explained"], [e["all"]["effect"] for e in result["sources"].values()]
    assert set(result["sources"]["script"]) == {"all"}
    assert [c["step"] for c in result["checkpoints"]] == [0, 4]
    assert sum(effects) == pytest.approx(explained["predicted"])
    assert sum(c["predicted"] for c in result["checkpoints"]) == pytest.approx(explained["predicted"])
    assert explained["observed"] < 0
    assert explained["ci95"][0] < explained["observed"] < explained["ci95"][1]
    assert explained["first_order"] != pytest.approx(explained["predicted"])
    assert "The rows' own gradients add up to" in capsys.readouterr().out


def test_pairs_from_a_file(small, tmp_path):
    pairs = [row for row, _ in zip(tiny_rows("think_dpo", 0), range(40), strict=False)]
    file, out = tmp_path / "pairs.jsonl", tmp_path / "blame.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    blame(BASE_MODEL, "--data", file, *small, "--json", out)
    result = json.loads(out.read_text())
    assert set(result["sources"]) == {"delta_a", "delta_b"}
    assert {row["source"] for row in result["rows"]} == {"delta_a", "delta_b"}
    assert "rejected: " in result["rows"][0]["text"]


def test_a_watched_run_gives_panel_settings_and_seed(small, tmp_path):
    words = ["measure", BASE_MODEL, *SMALL[:-2], *small[-2:], "--seed", 1, "--out", tmp_path / "runs"]
    app([str(word) for word in words], standalone_mode=False)
    (run,) = (tmp_path / "runs").iterdir()
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps(row) + "\n" for row, _ in zip(tiny_rows("ablation_sft", 0), range(40), strict=False))
    )
    out = tmp_path / "blame.json"
    with pytest.raises(DivwatchError, match="records no mix"):
        blame(BASE_MODEL, "--like", run)
    blame(BASE_MODEL, "--like", run, "--data", rows, "--rows", 8, "--no-by-task", "--json", out)
    assert json.loads(out.read_text())["steps"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either --mix NAME or --data"),
        (["--mix", "tiny/rl_zero"], "prompts only"),
        (["--data", "rows.csv"], "no JSONL file"),
        (["--mix", "tiny/nothing"], "unknown mix"),
        (["--mix", "tiny/ablation_sft", "--json", "nowhere/out.json"], "no folder nowhere"),
        (["checkpoint-1/of/nothing", "--mix", "tiny/ablation_sft"], "is not there"),
        ([str(Path(__file__).parent), "--mix", "tiny/ablation_sft"], "holds no config.json"),
    ],
)
def test_wrong_input_is_one_line(words, message):
    with pytest.raises(DivwatchError, match=message):
        blame(*([] if words and words[0][0] != "-" else [BASE_MODEL]), *words, *SMALL)
