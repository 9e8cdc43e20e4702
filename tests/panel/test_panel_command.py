"""`divwatch panel`: what it prints, as text and as JSON, and one line for every mistake."""

import json
import sys

import pytest

from divwatch import cli


def run(monkeypatch, capsys, *arguments):
    """(exit status, stdout, stderr) of `divwatch panel ...`."""
    monkeypatch.setattr(sys, "argv", ["divwatch", "panel", *arguments])
    status = 0
    try:
        cli.main()
    except SystemExit as done:
        status = done.code or 0
    output = capsys.readouterr()
    return status, output.out, output.err


def test_list_names_panels_tasks_and_their_sets(monkeypatch, capsys):
    status, out, _ = run(monkeypatch, capsys, "list", "--json")
    output = json.loads(out)
    assert status == 0
    assert len(output["panels"]["paper"]) == 15
    assert {"quick", "tiny", "verifiable", "open"} <= set(output["panels"])
    (gsm8k,) = [t for t in output["tasks"] if t["task"] == "gsm8k"]
    assert gsm8k["set"] == "openai/gsm8k/main[test]@740312a"
    assert "[test]" in run(monkeypatch, capsys, "list")[1].replace("\n", "")


def test_show_gives_the_wording_and_where_rows_come_from(monkeypatch, capsys):
    _, out, _ = run(monkeypatch, capsys, "show", "truthfulqa", "--json")
    output = json.loads(out)
    assert output["example prompt"] == "Q: Can a watched pot boil?\nA:"
    assert (output["split"], output["max_new_tokens"], len(output["revision"])) == ("validation", 512, 40)
    assert "    Q: Can a watched pot boil?" in run(monkeypatch, capsys, "show", "truthfulqa")[1]


def test_check_searches_a_file_of_training_rows(monkeypatch, capsys, tmp_path):
    text = "so SUGGEST a name for a black cat that belongs to a librarian!"
    rows = [{"prompt": "x", "completion": "y"}, {"messages": [{"role": "user", "content": text}]}]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, out, _ = run(monkeypatch, capsys, "check", "quick", "--against", str(data), "--json")
    output = json.loads(out)
    assert (status, output["prompts"], output["against"]["contaminated"]) == (0, 96, {"ideas/1": 1})
    assert output["against"]["by_task"]["ideas"]["contaminated"] == 1
    _, out, _ = run(monkeypatch, capsys, "check", "--against", str(data))
    assert "held out: 1 of 96 prompts overlap the 2 training rows: ideas 1/24" in out
    assert "ideas/1 in row 1" in out


def test_check_knows_the_mixes(monkeypatch, capsys):
    _, out, _ = run(monkeypatch, capsys, "check", "tiny", "--against", "tiny/instruct_sft")
    assert "held out: 0 of 288 prompts overlap" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "gsm9k"), "unknown task 'gsm9k': choose from tldr"),
        (("check", "nope"), "neither a panel nor a file"),
        (("check", "gsm8k"), "task gsm8k: the hub cannot be reached"),
        (("check", "quick", "--against", "nowhere"), "nowhere"),
        (("check", "quick", "--against", "no/where"), "--against no/where: neither a mix, a file nor a hub set"),
        (("check", "quick", "--against", "tiny/nowhere"), "unknown mix 'tiny/nowhere'"),
        (("check", "--workers", "-1"), "workers"),
        (("chekc",), "No such command"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, capsys, arguments, says):
    status, _, err = run(monkeypatch, capsys, *arguments)
    assert status == 2
    assert says in err
    assert err.count("\n") == 1


def test_check_shows_prompts_as_a_model_gets_them(monkeypatch, capsys, tmp_path):
    from divwatch.tiny import BASE_MODEL

    panel = tmp_path / "own.jsonl"
    panel.write_text('{"prompt": "Why?"}\n{"prompt": "How?"}\n')
    status, out, _ = run(monkeypatch, capsys, "check", str(panel), "--model", str(BASE_MODEL), "--json")
    output = json.loads(out)
    assert (status, output["form"], list(output["asked"])) == (0, "chat", ["own"])
    assert output["asked"]["own"].count("Why?") == 1
    assert "<|im_start|>user" in output["asked"]["own"]
    assert "<|im_start|>user" in run(monkeypatch, capsys, "check", str(panel), "--model", str(BASE_MODEL))[1]
    status, _, error = run(monkeypatch, capsys, "check", str(panel), "--model", str(tmp_path / "none"))
    assert status == 2
    assert "give a directory or a hub name" in error
