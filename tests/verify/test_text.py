"""Short answers: GSM8K's final number in every phrasing, CRUXEval's literal, exact text."""

import ast
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from divwatch.verify.literal import cruxeval
from divwatch.verify.text import exact, final_number, gsm8k


def _decorated(number):
    """The number as a careful writer has it: thousands separated, currency before, cents after, a unit behind."""
    whole = f"{int(number):,}"
    return [whole, f"${whole}", f"${whole}.00", f"{whole} dollars", f"{whole}.0"]


PHRASINGS = (
    "First 3 then 4.\n#### {}",
    r"We get 12 + 1, so \boxed{{{}}}",
    "There were 12. The answer is {}.",
    "12 of 24 are gone\nA: {}",
    "From 99 we take some and so she has {} in the end.",
)


@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_every_gsm8k_reference_is_right_against_itself_and_wrong_when_perturbed(shared, phrasing):
    for row in shared("tasks/gsm8k_test.jsonl"):
        number = row["answer"].rsplit("#### ", 1)[1].replace(",", "")
        for text in _decorated(number):
            assert gsm8k(phrasing.format(text), row["answer"]) == (True, number, None)
        for wrong in (int(number) + 1, -int(number) - 1, int(number) * 10 + 7):
            assert gsm8k(phrasing.format(f"{wrong:,}"), row["answer"]).correct is False
        assert gsm8k(phrasing.format(f"{number}.5"), row["answer"]).correct is False


@given(st.integers(-(10**12), 10**12), st.sampled_from(PHRASINGS))
def test_a_number_survives_its_phrasing(number, phrasing):
    text = f"{number:,}"
    assert final_number(phrasing.format(text)) == str(number)
    assert gsm8k(phrasing.format(text), str(number)).correct


@given(st.text())
def test_no_text_breaks_the_text_verifiers(text):
    for result in (gsm8k(text, "5"), exact(text, "5"), cruxeval(text, "5")):
        assert result.correct in (True, False)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        # thousands as LaTeX writes them
        (r"Altogether \boxed{9{,}500}.", "9500"),
        (r"Altogether $9\,500$.", "9500"),
        (r"It makes \boxed{\$1{,}234{,}567}", "1234567"),
        (r"It makes $12,\!400$ a year.", "12400"),
        ("It makes 1\u202f500 a year.", "1500"),
        # LaTeX around the number
        (r"The answer is \(18\), for 9 eggs.", "18"),
        (r"The answer is \[18\] for 9 eggs.", "18"),
        (r"\boxed{\mathbf{18}} for 9 eggs", "18"),
        (r"\boxed{\text{18 dollars for 9 eggs}}", "18"),
        (r"\fbox{18} for 9 eggs", "18"),
        (r"\boxed {18} for 9 eggs", "18"),
        (r"\boxed{x = 18\text{ for 9 eggs}}", "18"),
        (r"\boxed{\frac{36}{2}}", "18"),
        (r"\boxed{-\dfrac{1}{2}}", "-0.5"),
        (r"\boxed{36 \div 2}", "18"),
        # signs and decimal points
        ("The answer is \u22125.", "-5"),
        ("Answer: \u2212$3", "-3"),
        ("The answer is $-$3.", "-3"),
        ("It changes by $-3", "-3"),
        ("Each costs $.75", "0.75"),
        ("A: £.50", "0.5"),
        ("This leaves 12-5", "5"),
        ("Left:\n- 18", "18"),
        # a heading announces nothing
        ("#### 2. Add the rest\n9 and 9 are \\boxed{18}, of 20.", "18"),
        ("So \\boxed{18}.\n#### 2.", "18"),
        ("#### 1) Eggs\n9\n#### 2) Money\n9 * 2\nThe answer is 18, not 20.", "18"),
        ("#### 2nd step\nIt is 18", "18"),
        ("#### **18**", "18"),
        # what follows the announced number
        ("Answer: 18 (9 eggs at 2 each)", "18"),
        ("**Final Answer:** $18$ for 9 eggs", "18"),
        ("The answer is therefore 18, for 9 eggs.", "18"),
        ("The answer is 9 * 2 = 18 for 9 eggs", "18"),
        (r"The answer is $9 \times 2 = 18$ for 9 eggs", "18"),
        ("The answer is 9 eggs * $2 = $18 for a day", "18"),
        ("The answer is 5% of 360 = 18 eggs out of 360", "18"),
        ("The answer is 3 dozen = 36, of 40", "36"),
        ("The answer is 18 because 20 - 3 = 17", "18"),
        ("The answer would be 18 (9 * 2)", "18"),
        ("The answer to the question is 18 (9 eggs at 2)", "18"),
        ("Answer - 18 (9 eggs at 2)", "18"),
        ("Answer \u2192 18 (9 eggs)", "18"),
        ("## Answer\n18 (that is 9 eggs at 2)", "18"),
        ("\u7b54\u6848\uff1a18\uff089\uff09", "18"),
        ("R\u00e9ponse : 18 (9 \u0153ufs)", "18"),
        ("To convert the answer to weeks: 28 days / 7 = 4\nA: 4", "4"),
        # signs, spaces and mixed numbers
        ("The answer is \u20135, not 5.", "-5"),
        ("It takes 3\u20135 days", "5"),
        ("The answer is negative 5 (of 7)", "-5"),
        ("The answer is minus $5 at 7", "-5"),
        ("10 minus 5 is 5", "5"),
        ("The answer is 1 000 000 (10 times 100 000).", "1000000"),
        (r"\boxed{2\frac{1}{2}}", "2.5"),
        ("It takes 2 1/2 hours", "2.5"),
        (r"The answer is $\frac34$ of 9", "0.75"),
        (r"So it is \boxed{10^3}", None),
        (r"So it is \boxed{9 \times 2}", None),
        # a box that the token limit cut
        (r"So it is 18: \boxed{18", None),
    ],
)
def test_the_final_number_in_its_surroundings(answer, number):
    assert final_number(answer) == number
    if number is not None:
        assert gsm8k(answer, f"#### {number}").correct
        assert gsm8k(answer, f"#### 3{number.lstrip('-')}").correct is False


@pytest.mark.parametrize("unit", ["1 of ", "1/", "1 a b ", "(1 x ", "$", "1 000 ", "therefore ", "1 1/"])
def test_a_long_announcement_is_read_at_once(unit):
    assert gsm8k("The answer is " + unit * 2000, "5").correct is False


def test_cruxeval_agrees_with_every_published_label(shared):
    """codellama-7b's samples and the pass labels of the paper behind CRUXEval, which ran them."""
    rows = shared("generations/cruxeval_codellama.jsonl")
    labels = [label for row in rows for label in row["is_correct"]]
    results = [cruxeval(output, row["reference"]).correct for row in rows for output in row["outputs"]]
    assert len(labels) == 8000
    assert results == labels


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("{1: 'a', 2: [None]}", True),
        ("[ANSWER] {2: [None], 1: 'a'} [/ANSWER]", True),
        ("[THOUGHT]it is [1][/THOUGHT][ANSWER]assert f(3) == {1: 'a', 2: [None]}[/ANSWER]", True),
        ("```python\n{1: 'a', 2: [None]}\n```", True),
        ("f('==') == {1: 'a', 2: [None]}", True),
        ("{1: 'a', 2: [None], 3: 0}", False),
        ("dict([(1, 'a'), (2, [None])])", False),  # a call is not run
        ("__import__('os').system('true')", False),
        ("", False),
    ],
)
def test_a_cruxeval_answer_is_a_literal_and_never_run(answer, right):
    assert cruxeval(answer, "{1: 'a', 2: [None]}").correct is right


@pytest.mark.parametrize(
    "text",
    [
        "-" * 15000 + "1",
        "[" * 15000,
        "(" * 150 + ")" * 150,
        "9" * 19000,
        "0x" + "f" * 19000,
        "1+" * 9000 + "1j",
        "x" * 10**6,
        "{" * 99,
    ],
)
def test_an_answer_built_to_break_the_parser_is_wrong_and_harmless(text):
    found = []
    thread = threading.Thread(target=lambda: found.append(cruxeval(text, "[1]").correct))  # its stack is small
    thread.start()
    thread.join()
    assert found == [False]
    assert sys.getrecursionlimit() < 10**5


def test_the_canonical_answer_is_the_literal_as_python_writes_it():
    assert cruxeval("{ 'b' : 1 }", "{'b': 1}").answer == "{'b': 1}"
    assert cruxeval("None", "None") == (True, "None", None)
    assert ast.literal_eval(cruxeval("('a','b')", "1").answer) == ("a", "b")


@pytest.mark.parametrize(
    "literals",
    [
        ["1", "1.0", "True", "1+0j", "2"],
        ["{1, 2, 3}", "{3, 2, 1}", "{1.0, 2, 3}", "{1, 2}"],
        ["{'a': 1, 'b': [0]}", "{'b': [0], 'a': 1}", "{'b': [0.0], 'a': 1}", "{'a': 1}"],
        ["[(1, 2)]", "[(1.0, 2.0)]", "[(True, 2)]", "[[1, 2]]"],
        ["-0.0", "0", "0.0", "False", "None"],
    ],
)
@pytest.mark.parametrize("reference", [None, "'else'"])
def test_equal_literals_are_one_answer(literals, reference):
    *equal, other = literals
    results = [cruxeval(text, reference or equal[0]) for text in equal]
    assert {r.correct for r in results} == {reference is None}
    assert len({r.answer for r in results}) == 1
    assert cruxeval(other, reference or equal[0]).answer != results[0].answer
