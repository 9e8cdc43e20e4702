"""Maths by math-verify: equal in any notation, wrong when changed; what hangs is ended and says nothing."""

import threading

import pytest

from divwatch.records import Prompt
from divwatch.verify import get_verifier
from divwatch.verify.child_process import in_child_process
from divwatch.verify.maths import math

# references as MATH writes them, with equal answers and different ones
CASES = [
    (
        r"\frac{1}{2}",
        [r"So it is $\boxed{0.5}$.", r"\boxed{\dfrac12}", "The answer is 1/2.", "0.50"],
        [r"\boxed{2}", "-1/2"],
    ),
    (r"x^2 + 2x + 1", [r"\boxed{(x+1)^2}", r"$x^2+2x+1$"], [r"\boxed{x^2+1}"]),
    (r"(-\infty, 3]", [r"\boxed{(-\infty,3]}"], [r"\boxed{(-\infty,3)}"]),
    (r"3\sqrt{2}", [r"\boxed{\sqrt{18}}", r"\boxed{3 \sqrt2}"], [r"\boxed{2\sqrt{3}}"]),
    (r"1,2,3", [r"\boxed{1, 2, 3}", r"\boxed{3,2,1}"], [r"\boxed{1,2}"]),
    (r"42^\circ", [r"\boxed{42}", r"\boxed{42^{\circ}}"], [r"\boxed{41}"]),
    ("10\\%", [r"\boxed{10\%}"], [r"\boxed{20\%}"]),
    (
        "Adding gives $2x = 6$, so $x = \\boxed{3}$.",
        ["x = 3, so \\boxed{3}", "I get \\boxed{5}.\n\nBut $2x = 6$.\n\nSo \\boxed{3}."],
        ["\\boxed{6}"],
    ),
]


@pytest.mark.parametrize(("reference", "right", "wrong"), CASES)
def test_equal_in_any_notation_and_wrong_when_changed(reference, right, wrong):
    for answer in right:
        assert math(answer, reference).correct is True, answer
    for answer in [*wrong, "", "I do not know."]:
        assert math(answer, reference).correct is False, answer


def test_the_reference_may_be_the_data_sets_row():
    solution = r"We see that \boxed{7}."
    assert math(r"\boxed{7}", {"problem": "?", "solution": solution}).correct
    assert math(r"\boxed{7}", {"answer": "7", "solution": "long"}).correct


def test_answers_that_are_equal_have_one_canonical_form():
    assert {math(text, "0.5").answer for text in (r"\boxed{0.5}", r"\boxed{\frac{1}{2}}", "1/2")} == {"1/2"}


def test_gsm8k_references_are_right_against_themselves(shared):
    for row in shared("tasks/gsm8k_test.jsonl")[:40]:
        number = row["answer"].rsplit("#### ", 1)[1]
        assert math(f"Thus \\boxed{{{number}}}.", number.replace(",", "")).correct


def test_a_hanging_answer_is_ended_and_the_others_are_judged():
    """From a thread, where math-verify's own time limit cannot work."""
    answers = [r"\boxed{3}", r"\boxed{9^{9^{9^{9}}}}", "The answer is 9**9**9**9**9.", r"\boxed{4}"]
    prompts = [Prompt("a", "math", "?", reference="3")] * len(answers)
    results = []
    thread = threading.Thread(
        target=lambda: results.extend(in_child_process("divwatch.verify.maths", "math", seconds=2)(answers, prompts))
    )
    thread.start()
    thread.join()
    assert results[0].correct is True
    assert results[3].correct is False
    for result in results[1:3]:
        assert result.correct is not True
        assert result.correct is False or "timed out" in result.reason or "ended" in result.reason


def test_one_that_cannot_be_compared_is_none_with_its_reason():
    results = get_verifier("math")([r"\boxed{3}"], [Prompt("a", "math", "?", reference="\\text{}")])
    assert results[0].correct is None
    assert results[0].reason
