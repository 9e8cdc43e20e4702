"""Code: complete a function (HumanEval), write one from a sentence (MBPP), say what one returns (CRUXEval).

    >>> print(CRUXEVAL.ask(CRUXEVAL.example))
    Given the following Python function:
    <BLANKLINE>
    ```python
    def f(words):
        return [w[::-1] for w in words]
    ```
    <BLANKLINE>
    What is the output of `f(['ab', 'cd'])`?
    <BLANKLINE>
    Answer:
    >>> MBPP.ask({"text": "Write a function to add two numbers."})
    '\"\"\"\\nWrite a function to add two numbers.\\n\"\"\"\\n'

An MBPP prompt does not name the function that its tests call: the paper's code renames the model's function before it
runs the tests (src/evaluation/code_execution.py, prepare_mbpp_execution), and so does the verifier `mbpp`.
"""

from __future__ import annotations

from divwatch.tasks.task import Published, Row, Task, column

HUMANEVAL = Task(
    name="humaneval",
    about="a Python function from its signature and docstring",
    path="openai/openai_humaneval",
    config="openai_humaneval",
    split="test",
    revision="7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
    columns=("task_id", "prompt", "test", "entry_point"),
    ask=column("prompt"),
    question=column("prompt"),
    reference=lambda row: {name: row[name] for name in ("prompt", "test", "entry_point")},
    verifier="humaneval",
    max_new_tokens=512,
    stop=("\nclass ", "\ndef ", "\n#", "\nif __name__"),
    key="task_id",
    published=Published(0.411, instruct=(0.112, 0.095, 0.093), think=(0.109, 0.081, 0.117)),
    example={
        "task_id": "Example/0",
        "prompt": 'def double(n: int) -> int:\n    """Return twice n.\n    >>> double(4)\n    8\n    """\n',
        "canonical_solution": "    return 2 * n\n",
        "test": "def check(candidate):\n    assert candidate(4) == 8\n    assert candidate(-1) == -2\n",
        "entry_point": "double",
    },
)


def _ask_mbpp(row: Row) -> str:
    return f'"""\n{row["text"]}\n"""\n'


MBPP = Task(
    name="mbpp",
    about="a Python function from one sentence",
    path="google-research-datasets/mbpp",
    config="full",
    split="test",
    revision="4bb6404fdc6cacfda99d4ac4205087b89d32030c",
    columns=("task_id", "text", "test_list", "test_setup_code"),
    ask=_ask_mbpp,
    question=column("text"),
    reference=lambda row: {"test_list": list(row["test_list"]), "test_setup_code": row["test_setup_code"] or ""},
    verifier="mbpp",
    max_new_tokens=512,
    stop=("\nclass ", "\n#", "\nif __name__"),
    key="task_id",
    published=Published(0.291, instruct=(0.111, 0.073, 0.069), think=(0.081, 0.084, 0.089)),
    example={
        "task_id": 1,
        "text": "Write a function to count the vowels in a string.",
        "code": "def count_vowels(s):\r\n  return sum(c in 'aeiou' for c in s)",
        "test_list": ["assert count_vowels('queue') == 4", "assert count_vowels('') == 0"],
        "test_setup_code": "",
        "challenge_test_list": [],
    },
)


def _ask_cruxeval(row: Row) -> str:
    return (
        f"Given the following Python function:\n\n```python\n{row['code']}\n```\n\n"
        f"What is the output of `f({row['input']})`?\n\nAnswer:"
    )


CRUXEVAL = Task(
    name="cruxeval",
    about="what a short Python function returns",
    path="cruxeval-org/cruxeval",
    config=None,
    split="test",
    revision="b96af0450242eb4da433032b90998f25588a5d0f",
    columns=("code", "input", "output", "id"),
    ask=_ask_cruxeval,
    question=lambda row: f"{row['code']}\nf({row['input']})",
    reference=lambda row: {name: row[name] for name in ("code", "input", "output")},
    verifier="cruxeval",
    stop=("\nGiven", "\n\nGiven"),
    max_new_tokens=512,  # a direct answer has a few tokens; tuned models explain it first
    paper_max_new_tokens=2048,
    key="id",
    published=Published(0.239, instruct=(0.218, 0.068, 0.062), think=(0.095, 0.076, 0.090)),
    example={
        "code": "def f(words):\n    return [w[::-1] for w in words]",
        "input": "['ab', 'cd']",
        "output": "['ba', 'dc']",
        "id": "sample_0",
    },
)
