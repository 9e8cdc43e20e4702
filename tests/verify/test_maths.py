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


@pytest.mark.parametrize(
    ("reference", "right", "wrong"),
    [
        # words between numbers
        (r"4\text{ hr }30\text{ min}", r"\boxed{4\text{ hr } 30 \text{ min}}", r"\boxed{4\text{ hr }10\text{ min}}"),
        (r"5\text{ ft }11\text{ in}", r"\boxed{5\text{ ft }11\text{ in}}", r"\boxed{5\text{ ft }2\text{ in}}"),
        (r"2 \text{ lb and }25\text{ oz}", r"$2 \text{ lb and }25\text{ oz}$", r"$2 \text{ lb and }50\text{ oz}$"),
        (r"4\mathrm{\,h}3\mathrm{\,min}", r"\boxed{4\mathrm{\,h}\;3\mathrm{\,min}}", r"\boxed{4\mathrm{\,h}1\mathrm{\,min}}"),
        (r"x \text{ if } x>0", r"\boxed{x \text{ if } x > 0}", r"\boxed{x \text{ if } x>1}"),
        # a unit behind each value
        (r"3\text{ cm}, 9\text{ cm}", r"\boxed{3\text{ cm}, 9\text{ cm}}", r"\boxed{3\text{ cm}, 4\text{ cm}}"),
        ("3, 4", r"\boxed{3\text{ cm}, 4\text{ cm}}", r"\boxed{3\text{ cm}, 5\text{ cm}}"),
        ("2, 3", r"\boxed{2 \text{ or } 3}", r"\boxed{2 \text{ or } 4}"),
        ("(3, 4)", r"\boxed{(3\text{ m}, 4\text{ m})}", r"\boxed{(3\text{ m}, 5\text{ m})}"),
        ("9.8", r"\boxed{9.8\,\mathrm{m}/\mathrm{s}^2}", r"\boxed{9.9\,\mathrm{m}/\mathrm{s}^2}"),
        ("2", r"\boxed{\text{2 hours}}", r"\boxed{\text{3 hours}}"),
        # upright letters
        (r"2\mathrm{e}^{-x}", r"\boxed{2e^{-x}}", r"\boxed{2\mathrm{e}^{x}}"),
        ("2", r"\boxed{\mathrm{2}}", r"\boxed{2\mathrm{e}}"),
        (r"\frac{1}{\mathrm{e}}", r"\boxed{\frac{1}{e}}", r"\boxed{\frac{1}{\mathrm{e}+7}}"),
        (r"1-\frac{1}{e}", r"\boxed{1-\frac{1}{\mathrm{e}}}", r"\boxed{2-\frac{1}{\mathrm{e}}}"),
        (r"3+\mathrm{i}", r"\boxed{3+i}", r"\boxed{3-\mathrm{i}}"),
        (r"\mathrm{P}=3", r"\boxed{3}", r"\boxed{\mathrm{P}=4}"),
        # bases
        (r"12_{\text{nine}}", r"\boxed{12_{\text{nine}}}", r"\boxed{12_{\text{eight}}}"),
        ("12_{9}", r"\boxed{12_9}", r"\boxed{12_8}"),
        ("12_9", r"\boxed{12}", r"\boxed{13_9}"),
        # very small and very large numbers
        ("0.0000002", r"\boxed{2\times 10^{-7}}", r"\boxed{0.0000001}"),
        ("10^{-30}", r"\boxed{\frac{1}{10^{30}}}", r"\boxed{10^{-20}}"),
        (r"3\pi\cdot 10^{-20}", r"\boxed{\frac{3\pi}{10^{20}}}", r"\boxed{\pi\cdot 10^{-20}}"),
        (r"10^{-30}x", r"\boxed{\frac{x}{10^{30}}}", r"\boxed{10^{-20}x}"),
        (r"\frac{1}{3}", r"\boxed{0.333333}", r"\boxed{0.333}"),
        # thousands
        ("10000", r"\boxed{10\,000}", r"\boxed{20\,000}"),
        ("1000000", r"\boxed{1 000 000}", r"\boxed{2\ 000\ 000}"),
        ("10{,}000", r"\boxed{10~000}", r"\boxed{10\,001}"),
        ("0", r"\boxed{0}", r"\boxed{10\,000}"),
        (r"(1,\,200)", r"\boxed{(1, 200)}", r"\boxed{1200}"),
        # boxes
        ("7", r"$x = 3$, so \fbox{7}", r"$x = 7$, so \fbox{3}"),
        ("7", r"$x = 3$, so \boxed {7}", r"$x = 7$, so \boxed {3}"),
        (r"\frac{1}{2}", r"So \fbox{$\frac{1}{2}$}.", r"So \boxed{\frac{1}{2}"),
        ("5", r"\boxed{5}", r"So \boxed{5}. No, \boxed{7"),
        ("7", r"\boxed{7}", r"So \boxed{5}. No, \boxed{7"),
        ("8", r"\boxed{7}. Wait, that fails. So \boxed{8}.", r"\boxed{8}. Wait, that fails. So \boxed{7}."),
        ("2, 3", r"$x = \boxed{2}$ or $x = \boxed{3}$", r"It is \boxed{2}. Checking it: \boxed{3}"),
        ("7", r"I put it into \boxed{}: \boxed{7}. It is in \boxed{}.", r"I put it into \boxed{}: \boxed{8}. See \boxed{}."),
        # units that differ, names of quantities
        (r"3\text{ hours}", r"\boxed{3\text{ hr}}", r"\boxed{3\text{ minutes}}"),
        (r"5\text{ cm}", r"\boxed{5}", r"\boxed{5\,\mathrm{m}}"),
        (r"45^\circ", r"\boxed{45\text{ degrees}}", r"\boxed{46^\circ}"),
        (r"7\text{ feet}", r"$7\text{ ft}$", r"$7\text{ inches}$"),
        (r"12\text{ cm}^2", r"\boxed{12\text{ square units}}", r"\boxed{12\text{ km}^2}"),
        ("12", r"\boxed{\text{Area} = 12\text{ cm}^2}", r"\boxed{\text{Area} = 13\text{ cm}^2}"),
        (r"\frac12", r"\boxed{\mathrm{P}(X = 1) = \frac12}", r"\boxed{\mathrm{P}(X = 1) = \frac13}"),
        (r"\arctan 2", r"\boxed{\operatorname{arctan}(2)}", r"\boxed{\operatorname{arctan}(3)}"),
        ("5", r"\boxed{5.}", r"\boxed{6.}"),
        # signs
        ("-5", "It is \u20135.", "It is 5."),
        ("-5", "The answer is \u22125.", "The answer is 5."),
        ("-5", "\\boxed{\u22125}", "\\boxed{\uff0d6}"),
    ],
)  # fmt: skip
def test_one_changed_character_is_seen(reference, right, wrong):
    assert math(right, reference).correct is True
    assert math(wrong, reference).correct is False


def test_the_reference_may_be_the_data_sets_row():
    solution = r"We see that \boxed{7}."
    assert math(r"\boxed{7}", {"problem": "?", "solution": solution}).correct
    assert math(r"\boxed{7}", {"answer": "7", "solution": "long"}).correct


def test_answers_that_are_equal_have_one_canonical_form():
    assert {math(text, "0.5").answer for text in (r"\boxed{0.5}", r"\boxed{\frac{1}{2}}", "1/2")} == {"1/2"}


@pytest.mark.parametrize("reference", [None, "7"])  # right answers, wrong ones
@pytest.mark.parametrize(
    "answers",
    [
        [r"\boxed{(x+1)^2}", r"\boxed{x^2+2x+1}", r"\boxed{1+x^2+2x}", r"$x(x+2)+1$", r"\boxed{y}"],
        [
            r"\boxed{\sqrt{18}}",
            r"\boxed{3\sqrt2}",
            r"\boxed{\frac{6}{\sqrt{2}}}",
            r"\boxed{\sqrt{2}\cdot 3}",
            r"\boxed{3\cdot 2^{0.5}}",
            r"\boxed{3}",
        ],
        [r"\boxed{0.25}", r"\boxed{\frac14}", "The answer is 1/4.", r"\boxed{x = \frac{2}{8}}", r"\boxed{4}"],
        [r"\boxed{1, 2}", r"\boxed{2, 1}", r"\boxed{\{1, 2\}}", r"\boxed{\frac{2}{2}, 2}", r"\boxed{1, 3}"],
        [
            r"\boxed{\frac{1}{x+1}}",
            r"\boxed{(x+1)^{-1}}",
            r"\boxed{\frac{2}{2x+2}}",
            r"\boxed{\frac{x}{x^2+x}}",
            r"\boxed{x}",
        ],
        [
            r"\boxed{5\text{ cm}}",
            r"\boxed{5}",
            r"\boxed{5.0}",
            r"\boxed{\frac{10}{2}\text{ cm}}",
            r"\boxed{6\text{ cm}}",
        ],
    ],
)
def test_equal_answers_are_one_answer(answers, reference):
    *equal, other = answers
    results = [math(answer, reference or equal[0]) for answer in equal]
    assert {r.correct for r in results} == {reference is None}
    assert len({r.answer for r in results}) == 1
    assert math(other, reference or equal[0]).answer != results[0].answer


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
