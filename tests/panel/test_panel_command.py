"""`divwatch panel`: what it prints, as text and as JSON, and one line for every mistake."""

import contextlib
import json
import sys

import pytest
from transformers import AutoTokenizer

from divwatch import cli
from divwatch.tiny import BASE_MODEL


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
    assert "give a directory that holds it, or a hub name that can be reached" in error


def panel_file(folder, rows):
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sums(count, **fields):
    return [
        {"prompt": f"What is {a} + 1?", "reference": str(a + 1), "verifier": "gsm8k", **fields} for a in range(count)
    ]


def test_check_names_what_a_reader_of_the_panel_would_not_see(monkeypatch, capsys, tmp_path):
    rows = [*sums(8), *sums(8), {"prompt": "What is 90 + 1?", "verifier": "gsm8k", "refrence": "91"}]
    rows.append({"messages": [{"role": "narrator", "content": "It rains."}, {"role": "human", "content": "Why?"}]})
    status, out, _ = run(monkeypatch, capsys, "check", panel_file(tmp_path, rows), "--json")
    output = json.loads(out)
    assert (status, output["prompts"]) == (0, 10)
    unread, roles, repeats, unjudged = output["problems"]
    assert unread.endswith("nothing reads the field 'refrence' (1 line; is it 'reference'?)")
    assert "'narrator' (1)" in roles
    assert "human" not in roles  # ShareGPT's name for user
    assert repeats.startswith("8 of 18 prompts repeat another and are left out: mine/8 is mine/0")
    assert unjudged.startswith("verifier 'gsm8k' cannot judge 1 of 9 prompts (mine/16: the prompt has no reference)")


def test_check_with_a_model_names_what_its_template_drops(monkeypatch, capsys, tmp_path):
    turns = [{"role": "narrator", "content": "It rains."}, {"role": "user", "content": "Why?"}]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    path = panel_file(tmp_path, [{"messages": turns}, {"prompt": "How warm is it?", "tools": tools}, *sums(2)])
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] in ('user', 'assistant') %}<|im_start|>{{ m['content'] }}{% endif %}"
        "{% endfor %}<|im_end|>"
    )
    tokenizer.save_pretrained(tmp_path / "model")
    _, out, _ = run(monkeypatch, capsys, "check", path, "--model", str(tmp_path / "model"), "--json")
    dropped = json.loads(out)["problems"][-1]
    assert dropped.startswith("the chat template drops a part of 2 of 4 prompts (mine/0: the turn of role 'narrator')")


@pytest.mark.parametrize(
    ("verifier", "reference"),
    [("gsm8k", None), ("gsm8k", "none"), ("exact", ""), ("math", {"solved": "3"}), ("ifeval", {"instruction_id_list": []}),
     ("truthfulqa", {"correct_answers": ["Yes"]}), ("mbpp", "assert f(1)"), ("cruxeval", {"value": "1"})],
)  # fmt: skip
def test_a_verifier_that_can_judge_nothing_is_refused_by_check_and_score(
    monkeypatch, capsys, tmp_path, verifier, reference
):
    rows = [
        {"prompt": f"Say {i}.", "verifier": verifier} | ({} if reference is None else {"reference": reference})
        for i in "ab"
    ]
    status, _, err = run(monkeypatch, capsys, "check", panel_file(tmp_path, rows))
    assert status == 2
    assert f"verifier '{verifier}' cannot judge 2 of 2 prompts" in err
    rows = [{"id": i, "outputs": ["a 3", "b 4"], "reference": reference} for i in "ab"]
    scored = [panel_file(tmp_path, rows), "--verifier", verifier, "--metrics", "ead", "--unsafe-code"]
    monkeypatch.setattr(sys, "argv", ["divwatch", "score", *scored])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 2
    assert "reference" in capsys.readouterr().err


def test_score_names_prompts_that_count_more_than_once(monkeypatch, capsys, tmp_path):
    rows = [{"id": f"{i}/{copy}", "prompt": f"Say {i}.", "outputs": ["a", "b"]} for i in range(4) for copy in range(5)]
    monkeypatch.setattr(sys, "argv", ["divwatch", "score", panel_file(tmp_path, rows), "--metrics", "ead"])
    with contextlib.suppress(SystemExit):
        cli.main()
    assert "16 of 20 prompts repeat another: intervals are too narrow" in capsys.readouterr().err
