"""Outputs that the encoder cannot read, in training, `measure` and the report: missing, and one line says what to set."""

import json
import re

import pytest
from typer.testing import CliRunner

import divwatch
from divwatch.cli import app
from divwatch.metrics.unknown import MULTILINGUAL
from divwatch.store.run_directory import RunDirectory
from divwatch.tiny import BASE_MODEL
from tests.training import SETTINGS, sft_trainer


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    """An encoder that reads no letter and no digit."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "~"])}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder)
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return str(folder)


def _lines(text):
    return [line for line in text.splitlines() if "unknown tokens to encoder" in line]


def test_looks_in_training_and_the_report(blind, tmp_path, capsys):
    trainer = sft_trainer(tmp_path, steps=2)
    divwatch.watch(trainer, every=1, **SETTINGS | {"encoder": blind})
    trainer.train()
    (line,) = _lines(capsys.readouterr().out)
    assert f"{blind!r}. Set encoder to a multilingual one, such as {MULTILINGUAL}" in line
    run = RunDirectory.of(tmp_path)
    looks = run.looks()
    assert [look["status"] for look in looks] == ["ok"] * 3
    for look in looks:
        assert look["tasks"]["all"]["quality/unknown_tokens"]["mean"] > 0.3
        unreadable = run.scores(look["step"]).values["quality/unknown_tokens"] > 0.1
        n = look["tasks"]["all"].get("diversity/sbert", {"n": 0})["n"]
        assert n <= 12 - unreadable.sum() < 12
    logged = [row for row in trainer.state.log_history if "quality/all/unknown_tokens" in row]
    assert len(logged) == 3
    shown = CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "page.html")])
    assert shown.exit_code == 0, shown.output
    page = (tmp_path / "page.html").read_text()
    assert "metrics of embeddings are missing for up to" in page
    assert MULTILINGUAL in page
    assert CliRunner().invoke(app, ["top", str(tmp_path), "--once"]).exit_code == 0


def test_a_run_without_a_single_readable_prompt_goes_through_every_door(blind, tmp_path):
    panel = tmp_path / "panel.jsonl"
    panel.write_text(
        "\n".join(json.dumps({"id": f"p{i}", "prompt": f"Tell a story about {i} cats."}) for i in range(6))
    )
    options = ["--panel", panel, "--samples", "4", "--max-new-tokens", "48", "--encoder", blind, "--json"]
    words = ["measure", BASE_MODEL, BASE_MODEL, *options, "--out", tmp_path / "measured"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["runs"]) == 1
    (line,) = _lines(done.stderr)
    assert re.search(r"missing for \d of 6 prompts", line)
    assert "Set --encoder to a multilingual one" in line
    for command in (["report", "--json"], ["top", "--once", "--json"]):
        shown = CliRunner().invoke(app, [command[0], str(tmp_path / "measured"), *command[1:]])
        assert shown.exit_code == 0, shown.output
        assert "NaN" not in shown.stdout
