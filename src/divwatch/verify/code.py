"""HumanEval and MBPP: the program in an answer, run against the data set's tests in the sandbox.

An answer to HumanEval continues the prompt after the signature (`    return x + 1`) or is the whole function. An answer to MBPP
is the program, whatever it calls its function: the prompt does not say. Both may be in a fenced block among others,
between [BEGIN] and [DONE], in quotes or among prose (metrics/code_blocks.py).
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from divwatch.errors import DivwatchError
from divwatch.metrics.code_blocks import STARTS, extract_code, first_program, is_test, without_script
from divwatch.records import Prompt, Verification
from divwatch.verify.sandbox import DEFAULT_LIMITS, Job, Limits, run_programs
from divwatch.verify.verifier import Verifier, unverified

# An unindented line ends a function's body, unless it is a closing bracket. Chen et al. (2021, arXiv 2107.03374, section
# 3.1) stop at the most common of these.
_AFTER_BODY = re.compile(r"\n(?=[^\s)\]}])")

_ALIAS = "def __getattr__(name):\n    if name == {}:\n        return {}\n    raise AttributeError(name)\n"


def code_verifier(
    make_job: Callable[[str, Any], Job], limits: Limits = DEFAULT_LIMITS, *, unsafe_code: bool
) -> Verifier:
    """A verifier that runs programs against tests; `make_job` is `humaneval_job` or `mbpp_job`.

    Raises DivwatchError if no sandbox is available, unless `unsafe_code`.
    """
    run_programs([], unsafe_code=unsafe_code)  # without a sandbox, fail before the first look

    def verifier(answers: Sequence[str], prompts: Sequence[Prompt]) -> list[Verification]:
        results: dict[int, Verification] = {}
        jobs: dict[int, Job] = {}
        for i, (answer, prompt) in enumerate(zip(answers, prompts, strict=True)):
            try:
                jobs[i] = make_job(answer, prompt.reference)
            except Exception as error:
                results[i] = unverified(error)
        outcomes = run_programs(list(jobs.values()), limits, unsafe_code=unsafe_code)
        for i, outcome in zip(jobs, outcomes, strict=True):
            results[i] = unverified(outcome.reason) if outcome.passed is None else Verification(outcome.passed, None)
        return [results[i] for i in range(len(answers))]

    return verifier


def humaneval_job(answer: str, row: Any) -> Job:
    """A row of HumanEval: `prompt`, `test` (defines `check`), `entry_point`.

    >>> row = {"prompt": "def f(x):\\n", "test": "def check(f):\\n    assert f(1) == 2", "entry_point": "f"}
    >>> humaneval_job("return x + 1", row).sources[0]
    'def f(x):\\n    return x + 1'
    """
    prompt, test, name = _fields(row, "prompt", "test", "entry_point")
    sources = _functions(prompt, name, extract_code(answer, name))
    return Job(sources, [test], [name], preamble=prompt.rstrip() + "\n    pass\n", check="check")


def _functions(prompt: str, name: str, code: str) -> list[str]:
    """Ways to read the answer as a whole program, the most likely first."""
    # The first line's indentation may have been stripped.
    body = code if code[:1].isspace() else "    " + code
    cut = _AFTER_BODY.split(body)[0]
    whole = re.search(rf"^(?:(?:async )?def {re.escape(name)}\b|{re.escape(name)}\s*=(?!=))", code, re.MULTILINE)
    if whole:
        before = prompt[: prompt.index(f"def {name}")] if f"def {name}" in prompt else ""
        # A body that continues too long may define the function again. Imports or a sentence before it are not a body.
        is_body = not STARTS.match(code) and re.search(r"\b(?:return|yield)\b", cut)
        body_first = [prompt + cut] if is_body else []
        alone = _AFTER_BODY.split(code[whole.start() :])[0]
        return [*body_first, *(f"{before}\n{without_script(program)}" for program in (code, alone))]
    indented = textwrap.indent(code, "    ")
    at_margin = "\n" in code and not code[:1].isspace() and re.search(r"\b(?:return|yield)\b", code)
    if at_margin and _compiles(f"def {name}():\n{indented}"):
        return [prompt + indented]  # a body without indentation
    return [prompt + cut, prompt + body, prompt + indented]


def _compiles(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def mbpp_job(answer: str, row: Any) -> Job:
    """A row of MBPP, full or sanitized: `test_list`, and optionally `test_setup_code`, `test_imports`, `code`.

    >>> mbpp_job("[BEGIN]\\ndef f(x): return x\\n[DONE]", {"test_list": ["assert f(1) == 1"]}).sources
    ['def f(x): return x']
    """
    (tests,) = _fields(row, "test_list")
    imports, names = _of_solution(row.get("code") or "")
    names = names or _called(tests)
    preamble = "\n".join([*(row.get("test_imports") or []), *imports])
    setup = [row["test_setup_code"]] if row.get("test_setup_code") else []
    entry_point = next((name for name in _called(tests) if name in names), None)
    code = extract_code(answer, entry_point)
    sources = list(dict.fromkeys(map(without_script, [code, first_program(code)])))
    return Job([_under_name(source, entry_point) for source in sources], [*setup, *tests], names, preamble)


def _of_solution(code: str) -> tuple[list[str], list[str]]:
    """The imports of the data set's own solution, which its tests may need, and the names that it defines."""
    try:
        body = ast.parse(code).body
    except SyntaxError:
        return [], []
    imports = [ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [n.name for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    return imports, names


def _called(tests: Sequence[str]) -> list[str]:
    """The functions that the tests call by name, outermost first: in `f([Pair(1, 2)])`, `f` is asked for, not `Pair`.

    Built-in ones (`set(f(1))`) count only where the tests call no other.
    """
    calls = [node.func.id for test in tests for node in _calls(test) if isinstance(node.func, ast.Name)]
    own = [name for name in calls if not hasattr(builtins, name)]
    return list(dict.fromkeys(own)) or calls[:1]


def _calls(test: str) -> list[ast.Call]:
    """The calls in a test, outermost first."""
    return [node for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call)]


def _under_name(code: str, name: str | None) -> str:
    """The program with its function available under the tests' name for it, which MBPP's prompt does not give.

    The paper's code renames the function (src/evaluation/code_execution.py, prepare_mbpp_execution). A module's
    `__getattr__` leaves the program itself unchanged: its own calls of a built-in `sum` stay what they are.
    """
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return code
    functions: dict[str, ast.AST] = {n.name: n for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    assigned = [n for n in body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Lambda)]
    functions |= {t.id: n.value for n in assigned for t in n.targets if isinstance(t, ast.Name)}
    bound = {n.id for s in body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {n.name for n in body if isinstance(n, ast.ClassDef)} | {"__getattr__"} & set(functions)
    bound |= {a.asname or a.name for n in body if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names}
    if name is None or name in functions or name in bound:
        return code
    functions = {f: node for f, node in functions.items() if not is_test(f)} or functions
    others = {f: {n.id for n in ast.walk(functions[f]) if isinstance(n, ast.Name)} for f in functions}
    main = [f for f in functions if not any(f in others[g] for g in functions if g != f)] or list(functions)
    if main:
        return f"{code}\n\n{_ALIAS.format(repr(name), main[-1])}"
    # Without a function a test of a built-in name would call Python's own.
    return f"{code}\nglobals()[{name!r}]\n" if hasattr(builtins, name) else code


def _fields(row: Any, *names: str) -> list[Any]:
    missing = [name for name in names if not isinstance(row, dict) or not row.get(name)]
    if missing:
        raise DivwatchError(f"the reference has no {', '.join(missing)}: give the data set's row")
    return [row[name] for name in names]
