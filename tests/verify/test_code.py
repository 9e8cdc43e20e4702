"""HumanEval and MBPP: right programs pass however they are written down, wrong ones fail, nothing is decided by guess."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from divwatch.errors import DivwatchError
from divwatch.records import Prompt
from divwatch.tasks.code import MBPP
from divwatch.verify import get_verifier
from divwatch.verify.code import code_verifier, humaneval_job, mbpp_job
from divwatch.verify.sandbox import Limits
from tests.verify.mutants import mutants

pytestmark = pytest.mark.usefixtures("sandbox")

ROW = {
    "prompt": (
        "import math\n\ndef half(n):\n    return n // 2\n\ndef doubled(xs):\n"
        '    """Twice each of xs.\n    >>> doubled([1])\n    [2]\n    """\n'
    ),
    "test": "def check(candidate):\n    assert candidate([1, 2]) == [2, 4]\n    assert half(4) == 2\n",
    "entry_point": "doubled",
}


SOLUTION = "def doubled(xs): return [2 * x for x in xs]"
FENCED = f"Here:\n```python\n{SOLUTION}\n```"


def humaneval(answers, rows, limits=Limits()):  # noqa: B008 - frozen
    prompts = [Prompt(str(i), "humaneval", row["prompt"], reference=row) for i, row in enumerate(rows)]
    return code_verifier(humaneval_job, limits, unsafe_code=False)(answers, prompts)


@pytest.mark.parametrize(
    "answer",
    [
        "    return [2 * x for x in xs]\n",
        "return [2 * x for x in xs]",
        "    found = []\n    for x in xs:\n        found.append(2 * x)\n    return found",
        "found = []\n    for x in xs:\n        found.append(2 * x)\n    return found",  # stripped
        "found = []\nfor x in xs:\n    found.append(2 * x)\nreturn found",  # at the margin
        "    return [2 * x for x in xs]\n\n# tests\nprint(doubled([1])\n",  # rambles on
        "    return [\n        2 * x for x in xs\n]\n\ndef doubled(xs):\n    return None\n",
        "Here you are:\n```python\ndef doubled(xs):\n    return [x + x for x in xs]\n```\nIt doubles.",
        "```\nreturn [x + x for x in xs]\n```",
        "def doubled(xs):\n    return [half(4 * x) for x in xs]",  # leans on the prompt
        "import operator\n\ndef twice(x):\n    return 2 * x\n\ndef doubled(xs):\n    return [twice(x) for x in xs]",
        "def doubled(xs):\n    def twice(x):\n        return 2 * x\n    return [twice(x) for x in xs]",
        "def doubled(xs):\n    return [2 * x for x in xs]\n\nSo that is how it goes.",
        "if not xs:\n    return []\nelse:\n    return [2 * x for x in xs]",  # at the margin, no return there
        f"```bash\npython --version\n```\n{FENCED}",
        f"{FENCED}\n```bash\npython doubled.py\n```\n```text\n[2]\n```",
        f"```json\n{{}}\n```\nand\n{FENCED}\n```\n>>> doubled([1])\n[2]\n```",
        f"```toml\nx = 1\n```\n~~~py\n{SOLUTION}\n~~~",
        f"{FENCED}\nFor example:\n```python\n" + "print(doubled([1, 2, 3]))\n" * 30 + "```",
        f"{FENCED}\nTests:\n```python\nimport pytest\n\ndef test_it():\n    assert doubled([1]) == [2]\n"
        + "\n" * 3
        + "```",
        "Not so:\n```python\ndef doubled(xs):\n" + "    x = 1\n" * 30 + f"    return None\n```\nbut so:\n{FENCED}",
        "```python\ndef twice(x):\n    return 2 * x\n```\n```python\ndef doubled(xs):\n    return [twice(x) for x in xs]\n```",
        "```python\ndef doubled(xs):\n    return [N * x for x in xs]\n```\nwhere\n```python\nN = 2\nprint(input())\n```",
        f"1. So:\n\n   ```python\n   {SOLUTION}\n   ```",
        f"```python\n{SOLUTION}",  # cut before the fence
        f"{SOLUTION}\n```",
        "def doubled(xs):\n    return [2 * x for x in xs]\n\nif __name__ == '__main__':\n    input('?')",
        "> ```python\n> def doubled(xs):\n>     return [2 * x for x in xs]\n> ```\n> It doubles.",
        f"```python {SOLUTION}```",
        '```python\ndef doubled(xs):\n    """\n    ```\n    xs\n    ```\n    """\n    return [2 * x for x in xs]\n```',
        "```pycon\n>>> def doubled(xs):\n...     return [2 * x for x in xs]\n...\n>>> doubled([1])\n[2]\n```",
        f"<pre><code class='python'>{SOLUTION} if 1 &lt; 2 else None</code></pre>",
        "```python\ndef doubled(xs):\n\u00a0\u00a0\u00a0\u00a0return [2 * x for x in xs]\n```",
        "```python\ndoubled = lambda xs: [2 * x for x in xs]\n```",
        f"```python\n{SOLUTION}\n\nprint(doubled(list(map(int, input().split()))))\n```",
    ],
)
def test_a_right_program_passes_however_it_is_written_down(answer):
    assert humaneval([answer], [ROW])[0].correct is True


@pytest.mark.parametrize(
    "answer",
    [
        "    return xs",
        "",
        "I cannot.",
        "```python\n```",
        "    return [2 * x for x in xs",
        "def other(xs):\n    return [2, 4]",
    ],
)
def test_a_wrong_or_broken_program_fails(answer):
    assert humaneval([answer], [ROW])[0].correct is False


def test_all_canonical_solutions_pass(shared):
    rows = shared("tasks/humaneval.jsonl")
    assert len(rows) == 164
    results = humaneval([row["canonical_solution"] for row in rows], rows)
    assert [row["task_id"] for row, j in zip(rows, results, strict=True) if not j.correct] == []


def _ways(program, name):
    """Ways to write a program down in an answer."""
    fenced = f"```python\n{program.rstrip()}\n```"
    calls = "\n".join(f"print({name}({i}))" for i in range(60))
    draft = f"def {name}(*args):\n" + "    x = 1\n" * 80 + "    return None"
    return {
        "fenced": f"Sure.\n{fenced}\nDone.",
        "among other languages": f"```bash\npython --version\n```\nThen\n{fenced}\n```text\nok\n```\n```json\n{{}}\n```",
        "usage and tests after it": f"{fenced}\n```python\n{calls}\n```\n```python\nimport pytest\ndef test(): {name}(1)\n```",
        "a draft before it": f"```python\n{draft}\n```\nNo:\n{fenced}",
        "cut before the closing fence": f"```python\n{program}",
        "a closing fence alone": f"{program}\n```",
        "in a list": "1. So:\n\n" + "\n".join("   " + line for line in fenced.split("\n")),
    }


@pytest.mark.slow
@pytest.mark.parametrize("way", ["body", *_ways("", "")])
def test_all_humaneval_solutions_pass_in_every_way_of_writing(shared, way):
    rows = shared("tasks/humaneval.jsonl")
    answers = [
        f"```\n{row['canonical_solution']}\n```"
        if way == "body"
        else _ways(row["prompt"] + row["canonical_solution"], row["entry_point"])[way]
        for row in rows
    ]
    assert [row["task_id"] for row, j in zip(rows, humaneval(answers, rows), strict=True) if not j.correct] == []


@pytest.mark.parametrize(
    "rest",
    [
        "\n\ndef main():\n    print(double(2))\n\nif __name__ == '__main__':\n    main()",
        "\n\ndef test_double():\n    assert double(2) == 4\n\ntest_double()",
        "\n\nassert double(2) == 4\nprint(double(3))",
        "\n\nn = int(input())\nprint(double(n))",
    ],
)
@pytest.mark.parametrize("program", ["def double(n):\n    return 2 * n", "double = lambda n: 2 * n"])
def test_mbpp_asks_the_solution_not_what_calls_it(program, rest):
    prompts = [Prompt("a", "mbpp", "?", reference={"test_list": ["assert twice(3) == 6"]})] * 2
    right, wrong = get_verifier("mbpp")([program + rest, program.replace("2 *", "3 *") + rest], prompts)
    assert (right.correct, wrong.correct) == (True, False)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["marked", "quoted", "among prose", *_ways("", "")])
def test_all_mbpp_solutions_pass_in_every_way_of_writing_and_under_any_name(shared, way):
    rows = shared("tasks/sanitized-mbpp.jsonl")
    answers = []
    for row in rows:
        program = row["code"]
        for name in re.findall(r"^def (\w+)", program, re.MULTILINE):
            program = re.sub(rf"\b{name}\b", f"my_{name}", program)
        outside = {
            "marked": f"[BEGIN]\n{program}\n[DONE]\nNext: [BEGIN]\nx\n[DONE]",
            "quoted": f'"""\n{program}\n"""',
            "among prose": f"Here it is.\n\n{program}\n\nIt works, as you see.",
        }
        answers.append((outside | _ways(program, "my_function"))[way])
    keys = ("test_list", "test_imports")
    prompts = [Prompt("a", "mbpp", "?", reference={key: row[key] for key in keys}) for row in rows]
    results = get_verifier("mbpp")(answers, prompts)
    assert [row["task_id"] for row, j in zip(rows, results, strict=True) if not j.correct] == []


def test_solutions_to_another_problem_fail(shared):
    rows = shared("tasks/humaneval.jsonl")[::4]
    results = humaneval([row["canonical_solution"] for row in rows[1:] + rows[:1]], rows)
    assert [j.correct for j in results] == [False] * len(rows)


@pytest.mark.slow
def test_mutants_fail_exactly_where_running_them_plainly_fails(shared):
    cases = [
        (row, mutant)
        for row in shared("tasks/humaneval.jsonl")
        for mutant in mutants(row["prompt"], row["canonical_solution"])
    ]
    requests = [{"program": m, "test": row["test"], "entry_point": row["entry_point"]} for row, m in cases]
    script = Path(__file__).with_name("mutants.py")
    done = subprocess.run(
        [sys.executable, script], input=json.dumps(requests), capture_output=True, text=True, check=True
    )
    plain = json.loads(done.stdout)
    results = humaneval([m for _, m in cases], [row for row, _ in cases], Limits(cpu_seconds=3))
    print(f"\n{len(cases)} mutants, {plain.count(False)} fail plainly")
    different = [
        (row["task_id"], p, j, m) for (row, m), p, j in zip(cases, plain, results, strict=True) if j.correct is not p
    ]
    assert different == []
    assert plain.count(False) > 0.8 * len(plain)  # the rest change nothing that the tests see


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        (
            {"code": "def sum(a, b):\n    return a + b", "test_list": ["assert sum(1, 2) == 3"], "test_setup_code": ""},
            "def sum(a, b):\n    return a + b",
            "def sum(a, b):\n    return a * b",
        ),
        (
            {
                "code": "class Node:\n    pass\ndef value(node):\n    pass",
                "test_setup_code": "root = Node(3)\nroot.next = Node(4)",
                "test_list": ["assert value(root) == 7"],
            },
            "class Node:\n    def __init__(self, v):\n        self.v, self.next = v, None\n"
            "def value(n):\n    return n.v + (value(n.next) if n.next else 0)",
            "class Node:\n    def __init__(self, v):\n        self.v, self.next = v, None\ndef value(n):\n    return n.v",
        ),
        (
            {
                "code": "def f(x):\n    return x",
                "test_imports": ["import math"],
                "test_list": ["assert math.isclose(f(1), 1)"],
            },
            "def f(x):\n    return x + 1e-12",
            "import math\nmath.isclose = lambda *a: True\ndef f(x):\n    return 2",
        ),
        (
            {"test_list": ["assert set(f((3, 4), (4, 5))) == set((4,))", "assert f((1,), (2,)) == ()"]},
            "def f(a, b):\n    return tuple(set(a) & set(b))",
            "set = lambda *a: 1\ndef f(a, b):\n    return ()",
        ),
        (
            {"test_list": ["assert copy([1]).copy() == [1, 1]"]},  # named as a module, used as a method
            "def copy(xs):\n    return xs + xs",
            "def copy(xs):\n    return xs",
        ),
        (
            {
                "test_list": [
                    "assert without((4, 7.7, 'a', None), int) == [7.7, 'a', None]",
                    "assert without((), str) == []",
                ]
            },
            "def without(xs, kind):\n    return [x for x in xs if not isinstance(x, kind)]",
            "def without(xs, kind):\n    return [x for x in xs if isinstance(x, kind)]",
        ),
        (
            {
                "test_list": ["assert longest([Pair(5, 24), Pair(27, 40)]) == 2"]
            },  # asks for `longest`, with the answer's Pair
            "from collections import namedtuple\nPair = namedtuple('Pair', 'a b')\ndef chain(pairs):\n    return len(pairs)",
            "from collections import namedtuple\nPair = namedtuple('Pair', 'a b')\ndef chain(pairs):\n    return 0",
        ),
    ],
)
def test_mbpp_rows_of_every_kind(row, right, wrong):
    prompts = [Prompt("a", "mbpp", "?", reference=row)] * 4
    answers = [right, f"[BEGIN]\n{right}\n[DONE]\nNext", f"Sure.\n```python\n{right}\n```", wrong]
    assert [j.correct for j in get_verifier("mbpp")(answers, prompts)] == [True, True, True, False]


@pytest.mark.parametrize(
    "answer",
    [
        "def count_vowels(s):\n    return sum(c in 'aeiou' for c in s)",
        "def vowel_count(text):\n    return sum(c in 'aeiou' for c in text)",
        "def is_vowel(c):\n    return c in 'aeiou'\n\ndef number(s):\n    return len([c for c in s if is_vowel(c)])",
        "def number(s):\n    return len([c for c in s if is_vowel(c)])\n\ndef is_vowel(c):\n    return c in 'aeiou'",
        "def vowels(s):\n    return vowels(s[1:]) + (s[0] in 'aeiou') if s else 0",
        "vowels = lambda s: 0\ncount_vowels = lambda s: sum(c in 'aeiou' for c in s)",
        "```bash\npython v.py\n```\n```python\ndef v(s):\n    return sum(c in 'aeiou' for c in s)\n```",
        "def v(s):\n    return sum(c in 'aeiou' for c in s)\n```\nThis counts.",
        "```python\ndef v(s):\n    return sum(c in 'aeiou' for c in s)",
        '"""\ndef v(s):\n    return sum(c in \'aeiou\' for c in s)\n"""',
        "[BEGIN]\n```python\ndef v(s):\n    return sum(c in 'aeiou' for c in s)\n```\n[DONE]\nNext: [BEGIN]\nx\n[DONE]",
        "def v(s):\n    return sum(c in 'aeiou' for c in s)\n[DONE]\n[BEGIN]\nx = 1\n[DONE]",
        "It is this.\n\nV = 'aeiou'\ndef v(s):\n    return sum(c in V for c in s)\n\nV has the vowels.",
        "Sure, this counts:\n\ndef v(s):\n    return sum(c in 'aeiou' for c in s)\n\nIt looks at each letter.",
    ],
)
def test_an_mbpp_program_may_call_its_function_as_it_likes(answer):
    prompt = MBPP.prompt(MBPP.example, "mbpp/1")
    assert get_verifier("mbpp")([answer], [prompt])[0].correct is True


@pytest.mark.parametrize("answer", ["", "I cannot.", "x = 1", "def v(s):\n    return 4", "class V: pass"])
def test_an_mbpp_program_that_is_wrong_fails_under_any_name(answer):
    prompt = MBPP.prompt(MBPP.example, "mbpp/1")
    assert get_verifier("mbpp")([answer], [prompt])[0].correct is False


@pytest.mark.parametrize(
    ("tests", "answer", "right"),
    [
        (["assert sum(10, 15) == 6"], "def sum(a, b):\n    return 6", True),
        (["assert sum(10, 15) == 6"], "def common(a, b):\n    return sum([1, 5])", True),  # calls Python's own
        (["assert max([1, 2]) == 2"], "x = 1", False),  # Python's own is not the answer
        (["assert max([1, 2]) == 2"], "def largest(xs):\n    return max(xs)", True),
        (["assert set(f((1,))) == set((1,))"], "def g(xs):\n    return xs", True),
        (["assert abs(f(1) - 1) < 1e-9"], "def g(x):\n    return x", True),
    ],
)
def test_a_function_named_like_a_built_in_one(tests, answer, right):
    prompt = Prompt("a", "mbpp", "?", reference={"test_list": tests})
    assert get_verifier("mbpp")([answer], [prompt])[0].correct is right


def test_a_reference_without_its_tests_says_nothing_of_the_answer():
    results = get_verifier("mbpp")(["x = 1"], [Prompt("a", "mbpp", "?", reference={"text": "?"})])
    assert results[0].correct is None
    assert "test_list" in results[0].reason
    with pytest.raises(DivwatchError, match="entry_point"):
        humaneval_job("", {"prompt": "x", "test": "y"})
    assert mbpp_job("x", {"test_list": ["assert x"]}).tests == ["assert x"]
