"""From completions to verified samples: usable, correct, canonical answers; a verifier that fails never loses a look."""

import json
import os
import random
import sys
import threading
import time

import psutil
import pytest

from divwatch.errors import DivwatchError
from divwatch.metrics.answers import distinct
from divwatch.metrics.quality import majority_at_k
from divwatch.records import Completion, Prompt, Verification
from divwatch.score_file import score_file
from divwatch.verify import NAMES, check_verifiers, get_verifier, verify_completions
from divwatch.verify.verifier import per_answer


def said(prompt, texts, finished=True):
    return [Completion(prompt.id, prompt.task, i, text, finished, 5) for i, text in enumerate(texts)]


def odd(answer, reference):
    if answer == "break":
        raise KeyError("no such thing\nand more")
    return Verification(answer == reference, answer)


def reward_that_breaks(completions, **columns):
    return [1.0 / (c != "break") for c in completions]


@pytest.mark.parametrize(
    ("verifier", "reference", "equal", "other"),
    [
        (
            "gsm8k",
            "#### 1200",
            ["1200", "#### 1,200", "\\boxed{1{,}200}", "A: $1200.00", "The answer is 1\\,200."],
            "12",
        ),
        ("math", "x^2-1", ["$x^2-1$", "$(x-1)(x+1)$", "$(x+1)(x-1)$", "$-1+x^2$", "$x \\cdot x - 1$"], "$x^2$"),
        ("cruxeval", "{1, 2}", ["{1, 2}", "{2, 1}", "{1.0, 2}", "[ANSWER]{2, 1}[/ANSWER]", "f(1) == {2, 1}"], "{1}"),
    ],
)
def test_one_answer_in_several_notations_is_one_answer(verifier, reference, equal, other):
    prompt = Prompt("a", "t", "?", reference=reference, verifier=verifier)
    ((samples,), _) = verify_completions([prompt], said(prompt, [*equal, *["7"] * 3, other]))
    assert samples.correct == [True] * 5 + [False] * 4
    assert distinct(samples.answers) == 3
    assert majority_at_k(samples.answers, samples.correct) == 1


@pytest.mark.parametrize(
    "text",
    [
        "\u200b\u200d\u2060",  # zero width
        "\ufeff",
        "\u00ad" * 3,  # soft hyphens
        "\u00a0\u3000 ",
        "\x00\x07\x7f\x9f",
        "\u0301\u0308",  # accents without a letter
        "\u0e49",
        "\u2800" * 4,  # blank braille
        "\u3164\u115f\u1160\uffa0",  # Hangul fillers
        "\ufe0f\U000e0100\u034f",  # selectors and joiners
        "\u202e\u2066\U000e0041",
        "\ufffd\ufffd",  # bytes that were no text
        "\uffff",
        "<think>why</think>\u200b",
    ],
)
def test_an_output_of_which_nothing_can_be_seen_is_not_usable(text, tmp_path):
    prompt = Prompt("a", "t", "?")
    ((samples,), _) = verify_completions([prompt], said(prompt, [text, "yes"]))
    assert samples.usable == [False, True]
    (tmp_path / "f.jsonl").write_text(json.dumps({"id": 1, "prompt": "?", "outputs": [text, "yes"]}))
    result = score_file(tmp_path / "f.jsonl", metrics=["ead"], progress=False)
    assert result["outputs"]["usable"]["mean"] == 0.5


@pytest.mark.parametrize("text", ["👍", "❤️", "🫩", "?", "…", "4", "۵", "\u200bok", "ก็", "क्", "√", "─", "\ue000"])
def test_an_output_of_one_visible_character_is_usable(text):
    prompt = Prompt("a", "t", "?")
    ((samples,), _) = verify_completions([prompt], said(prompt, [text]))
    assert samples.usable == [True]


def test_answers_are_stripped_of_reasoning_and_verified_once_each():
    prompt = Prompt("a", "t", "?", reference="5", verifier="gsm8k")
    texts = ["<think>6</think>It is 5.", "It is 6.", "<think>It is 5", "", "It is 5."]
    ((samples,), _) = verify_completions([prompt], said(prompt, texts))
    assert samples.outputs == ["It is 5.", "It is 6.", "", "", "It is 5."]
    assert samples.usable == [True, True, False, False, True]
    assert samples.correct == [True, False, False, False, True]
    assert samples.answers == ["5", "6", None, None, "5"]


def test_several_verifiers_in_one_panel_and_prompts_without_any():
    prompts = [
        Prompt("a", "t", "?", reference="yes", verifier="exact"),
        Prompt("b", "u", "?"),
        Prompt("c", "t", "?", reference="[1]", verifier="cruxeval"),
        Prompt("d", "t", "?", reference="no", verifier="exact"),
    ]
    completions = [c for p in prompts for c in said(p, ["Yes.", "[1]"])]
    random.Random(0).shuffle(completions)
    samples, _ = verify_completions(prompts, completions)
    assert [s.id for s in samples] == list("abcd")
    assert [s.correct for s in samples] == [[True, False], None, [False, True], [False, False]]
    assert samples[1].answers is None


def test_what_cannot_be_verified_is_counted_and_costs_nothing_else():
    prompts = [
        Prompt("a", "t", "?", verifier=f"{__name__}:reward_that_breaks"),
        Prompt("b", "t", "?", reference="None", verifier="exact"),
    ]
    completions = said(prompts[0], ["fine", "break", "break"]) + said(prompts[1], ["None", "x", "y"])
    samples, reasons = verify_completions(prompts, completions)
    assert samples[0].correct == [True, False, False]
    assert samples[0].usable == [True, True, True]
    assert samples[1].correct == [True, False, False]
    assert reasons == {"ZeroDivisionError: float division by zero": 2}


def test_a_prompt_of_which_nothing_can_be_said_is_missing_not_wrong():
    prompt = Prompt("a", "t", "?", reference="f(", verifier="cruxeval")
    samples, reasons = verify_completions([prompt], said(prompt, ["1", "2"]))
    assert samples[0].correct is None
    assert reasons.total() == 2


def test_an_unusable_answer_is_wrong_and_never_shown_to_the_verifier():
    prompt = Prompt("a", "t", "?", reference="5", verifier="gsm8k")
    ((samples,), _) = verify_completions([prompt], said(prompt, ["5", "5"], finished=False))
    assert (samples.usable, samples.correct, samples.answers) == ([False, False], [False, False], None)


def test_an_answer_without_a_verifier_is_usable_when_cut_and_not_with_an_open_thought_or_without_words():
    prompt = Prompt("a", "t", "Tell a story.")
    texts = ["Once upon a", "<think>He may", "<think>x</think>Once", "  "]
    ((samples,), _) = verify_completions([prompt], said(prompt, texts, finished=False))
    assert samples.usable == [True, False, True, False]
    assert samples.outputs[2] == "Once"


def test_an_error_costs_one_answer():
    results = per_answer(odd)(["x", "break", "y"], [Prompt("a", "t", "?", reference="x")] * 3)
    assert [r.correct for r in results] == [True, None, False]
    assert results[1].reason == "KeyError: 'no such thing\\nand more'"


@pytest.mark.usefixtures("no_sandbox")
def test_every_name_has_a_verifier_or_says_what_it_lacks(monkeypatch):
    monkeypatch.delenv("DIVWATCH_JUDGE_URL", raising=False)
    for name in NAMES:
        if name in ("humaneval", "mbpp"):
            with pytest.raises(DivwatchError, match="watch_unsafe_code"):
                get_verifier(name)
            assert callable(get_verifier(name, unsafe_code=True))
        elif name == "judge":
            with pytest.raises(DivwatchError, match="DIVWATCH_JUDGE_URL"):
                get_verifier(name)
        else:
            assert get_verifier(name)([], []) == []
    with pytest.raises(DivwatchError, match="unknown verifier 'gsm': choose from cruxeval, exact") as error:
        check_verifiers([Prompt("a", "t", "?", verifier="gsm")])
    assert "\n" not in str(error.value)


def test_verification_works_in_a_background_thread_and_leaves_signals_and_random_state():
    prompts = [
        Prompt("a", "t", "?", reference="1/2", verifier="math"),
        Prompt(
            "b", "t", "?", reference={"correct_answers": ["yes"], "incorrect_answers": ["no"]}, verifier="truthfulqa"
        ),
    ]
    completions = [c for p in prompts for c in said(p, [r"\boxed{0.5}", "yes"])]
    state, samples = random.getstate(), []
    thread = threading.Thread(target=lambda: samples.extend(verify_completions(prompts, completions)[0]))
    thread.start()
    thread.join()
    assert [s.correct for s in samples] == [[True, False], [False, True]]
    assert random.getstate() == state


def test_the_verifying_process_ends_with_the_process_that_started_it():
    """Also while it is in a computation that never ends."""
    code = (
        "from divwatch.records import Prompt\n"
        "from divwatch.verify.child_process import in_child_process\n"
        "math = in_child_process('divwatch.verify.maths', 'math', seconds=100)\n"
        "math([r'\\boxed{9^{9^{9^{9}}}}'], [Prompt('a', 't', '?', reference='3')])\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = psutil.Popen([sys.executable, "-c", code], env=environment)
    until = time.monotonic() + 60
    while not (children := process.children()) or children[0].cpu_times().user < 2:  # it computes
        assert time.monotonic() < until
        time.sleep(0.05)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


@pytest.mark.usefixtures("sandbox")
def test_a_file_of_programs_is_scored(tmp_path):
    row = {"prompt": "def f(x):\n", "entry_point": "f", "test": "def check(f):\n    assert f(2) == 4\n"}
    file = tmp_path / "f.jsonl"
    outputs = ["    return x * x", "    return x + 1", "    return x ** 2"]
    file.write_text(json.dumps({"id": "a", "prompt": row["prompt"], "outputs": outputs, "reference": row}) + "\n")
    result = score_file(file, metrics=["ead"], verifier="humaneval", progress=False)
    assert result["is_correct"] == {"a": [True, False, True]}
    assert result["quality"]["accuracy_at_1"] == pytest.approx(2 / 3)
    assert result["quality"]["majority_at_k"] is None  # programs have no answer to vote on


def test_a_file_in_which_nothing_can_be_verified_names_the_line(tmp_path):
    file = tmp_path / "f.jsonl"
    file.write_text(json.dumps({"id": "a", "prompt": "?", "outputs": ["1", "2"], "reference": "f("}) + "\n")
    with pytest.raises(DivwatchError, match=r"line 1: verifier 'cruxeval' failed .*check the reference"):
        score_file(file, metrics=["ead"], verifier="cruxeval", progress=False)
