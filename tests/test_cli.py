"""The command line: every command explains itself by an example that parses, speaks JSON, and meets a mistake with one line."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import typer

from divwatch import cli

ROOT = typer.main.get_command(cli.app)


def commands(group=ROOT, path=()):
    """(words, command) of every command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands())


def run(arguments, monkeypatch):
    """The exit status of `divwatch ARGUMENTS`, in this process."""
    monkeypatch.setattr(sys, "argv", ["divwatch", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_an_example_that_parses_and_an_option_json(words):
    command = COMMANDS[words]
    (example,) = [line for line in command.help.splitlines() if line.strip().startswith("Example:")]
    said = shlex.split(example.split("Example:")[1])
    assert said[0] == "divwatch"
    assert said[1 : 1 + len(words.split())] == words.split()
    context = command.make_context(words, said[1 + len(words.split()) :])
    assert context.params
    assert "--json" in {name for option in command.params for name in option.opts}


MISTAKES = {
    "no such command": ["repot"],
    "no such option": ["report", "--oot", "x"],
    "no argument": ["report"],
    "a directory that is not there": ["report", "{tmp}/nowhere"],
    "a directory without a run": ["report", "{tmp}"],
    "top of nothing": ["top", "{tmp}", "--once"],
    "top every 0 s": ["top", "{tmp}", "--every", "0"],
    "not a number": ["top", "{tmp}", "--every", "soon"],
    "score of no file": ["score", "{tmp}/nowhere.jsonl"],
    "score of an empty file": ["score", "{empty}"],
    "score of no JSON": ["score", "{text}"],
    "score of a folder": ["score", "{tmp}"],
    "unknown metric": ["score", "{samples}", "--metrics", "blue"],
    "unknown preset": ["score", "{samples}", "--preset", "best"],
    "unknown verifier": ["score", "{samples}", "--verifier", "gut", "--metrics", "ead"],
    "unknown encoder": ["score", "{samples}", "--metrics", "sbert", "--encoder", "{tmp}/nowhere"],
    "out that cannot be written": ["score", "{samples}", "--metrics", "ead", "--json", "{tmp}/no/such/folder/out.json"],
    "measure without out": ["measure", "{tmp}"],
    "measure of no model": ["measure", "{tmp}/nowhere", "--out", "{tmp}/m", "--panel", "tiny", "--encoder", "minilm"],
    "measure like no run": ["measure", "{tmp}", "--out", "{tmp}/m", "--like", "{tmp}"],
    "measure on no panel": ["measure", "{tmp}", "--out", "{tmp}/m", "--panel", "{tmp}/nowhere.jsonl"],
    "plan of an unknown device": ["plan", "--model", "olmo3-7b", "--device", "abacus"],
    "plan of an unknown strategy": ["plan", "--model", "olmo3-7b", "--strategy", "hope"],
    "plan of no model": ["plan", "--model", "{tmp}/nowhere"],
    "unknown task": ["panel", "show", "chess"],
    "check of no panel": ["panel", "check", "{tmp}/nowhere.jsonl"],
    "check against nothing": ["panel", "check", "tiny", "--against", "{tmp}/nowhere.jsonl"],
    "unknown mix": ["mix", "show", "soup"],
    "mix from no file": ["mix", "show", "{tmp}/nowhere.yaml"],
    "workspace of no run": ["wandb", "setup", "--run", "{tmp}", "--json"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_its_fix_and_status_2(mistake, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "text.jsonl").write_text("what is this\n")
    (tmp_path / "samples.jsonl").write_text('{"id": "a", "prompt": "p", "outputs": ["x y", "z"]}\n')
    places = {"tmp": tmp_path, **{name: tmp_path / f"{name}.jsonl" for name in ("empty", "text", "samples")}}
    assert run([word.format(**places) for word in MISTAKES[mistake]], monkeypatch) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("error: ")
    assert not any("Traceback" in line for line in said)
    assert len([line for line in said if line.startswith("error")]) == 1


def test_json_of_commands_that_need_no_run_is_json(monkeypatch, capsys):
    for words in ("panel list", "panel show gsm8k", "mix list", "mix show tiny/instruct_sft", "plan --model olmo3-7b"):
        assert run([*words.split(), "--json"], monkeypatch) == 0, words
        assert json.loads(capsys.readouterr().out), words


def test_the_command_line_loads_nothing_heavy():
    heavy = "torch transformers wandb trl numpy pandas datasets accelerate"
    code = f"import sys, divwatch, divwatch.cli; print([m for m in {heavy.split()} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_a_shell_completes_commands_and_options():
    code = "import sys; sys.argv = ['divwatch']; from divwatch.cli import main; main()"

    def completed(words):
        environment = {
            "_DIVWATCH_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
        )
        return done.stdout.split()

    assert completed("divwatch re") == ["report"]
    assert "--once" in completed("divwatch top --o")


def test_an_interrupted_command_ends_with_130_and_no_traceback(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("divwatch.outputs.top.follow", interrupted)
    assert run(["top", "x"], monkeypatch) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_goes_away_leaves_no_traceback():
    code = "from divwatch.cli import main; import sys; sys.argv = ['divwatch', 'mix', 'list', '--json']; main()"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.stderr == ""


def test_a_verifier_of_the_working_directory_is_found_by_every_command(tmp_path, monkeypatch, capsys):
    """The module imports another one beside it, as a project's does."""
    (tmp_path / "helping_words.py").write_text("def holds(answer, word):\n    return float(word in answer)\n")
    (tmp_path / "own_rewards.py").write_text(
        "from helping_words import holds\n"
        "def has_word(completions, reference, **columns):\n"
        "    texts = [c if isinstance(c, str) else c[0]['content'] for c in completions]\n"
        "    return [holds(t, r) for t, r in zip(texts, reference, strict=True)]\n"
    )
    (tmp_path / "broken_rewards.py").write_text("raise RuntimeError('half written')\n")
    line = {"prompt": "Say cat.", "reference": "cat", "verifier": "own_rewards:has_word"}
    (tmp_path / "panel.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "samples.jsonl").write_text(json.dumps(line | {"id": "1", "outputs": ["a cat", "dog"]}) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert run(["panel", "check", "panel.jsonl"], monkeypatch) == 0
    score = ["score", "samples.jsonl", "--metrics", "ead", "--json", "scores.json", "--verifier"]
    assert run([*score, "own_rewards:has_word>=0.5"], monkeypatch) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["is_correct"] == {"1": [True, False]}
    capsys.readouterr()
    assert run([*score, "broken_rewards:has_word"], monkeypatch) == 2
    assert run([*score, "missing_rewards:has_word"], monkeypatch) == 2
    broken, missing = capsys.readouterr().err.splitlines()
    assert "half written" in broken
    assert f"with the module in {tmp_path} or installed" in missing


def test_json_is_printed_or_written_by_one_rule(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples.jsonl").write_text(json.dumps({"id": "1", "prompt": "p", "outputs": ["a b", "c"]}) + "\n")
    score = ["score", "samples.jsonl", "--metrics", "ead"]
    for arguments in (["panel", "show", "gsm8k"], score):
        capsys.readouterr()
        assert run([*arguments, "--json"], monkeypatch) == 0
        printed = json.loads(capsys.readouterr().out)
        assert run([*arguments, "--json", "out.json"], monkeypatch) == 0
        assert json.loads((tmp_path / "out.json").read_text()) == printed
        assert capsys.readouterr().out.strip()
        assert run([*arguments, "--json", "nowhere/out.json"], monkeypatch) == 2
        assert "--json nowhere/out.json: there is no folder nowhere" in capsys.readouterr().err
    assert run([*score, "--json", "scores"], monkeypatch) == 0  # score has always taken any name
    assert json.loads((tmp_path / "scores").read_text()) == printed
    assert run(["panel", "show", "--json", "gsm8k"], monkeypatch) == 0
