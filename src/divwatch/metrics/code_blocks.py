"""Finding the program in an answer: fenced blocks, [BEGIN] and [DONE], quotes, prose around code.

Fences are read line by line, as Markdown does: the closing fence of a block opens nothing. Of several Python blocks the
solution is the last that defines the function asked for; what it needs from the other blocks is put before it. Usage
examples, tests and earlier drafts are left out.
"""

from __future__ import annotations

import ast
import builtins
import html
import re
import textwrap
from collections.abc import Iterable, Sequence

_FENCE = re.compile(r"^[ \t>]*(`{3,}|~{3,})[ \t]*([^\s`{]*)[^`\n]*$")
_PYTHON = {"", "python", "python3", "py", "py3", "python2", "ipython", "python-repl", "python-console", "pycon"}
_ON_ONE_LINE = re.compile(r"```(?:python3?|py)?[ \t]+([^`\n]+)```")
_TAGS = re.compile(r"</?(?:pre|code)\b[^>]*>")
_QUOTED = re.compile(r"^[ \t]*(?:>[ \t]?)+", re.MULTILINE)
_PROMPT = re.compile(r"^(?:>>>|\.\.\.)(?: |$)")
_MARKED = re.compile(r"\[BEGIN\](.*?)(?:\[DONE\]|\Z)", re.DOTALL)
_QUOTES = ('"""', "'''", "`", '"', "'")
STARTS = re.compile(r"^(?:async def|def|class|from|import|@)\b|^@", re.MULTILINE)
_STATEMENT = re.compile(r"^[A-Za-z_]\w*\s*=(?!=)", re.MULTILINE)  # a constant before the definitions
_TRIES = 10
_LONGEST = 100_000  # characters; the parser needs too much memory for more


def extract_code(text: str, name: str | None = None) -> str:
    r"""The program in an answer, stripped; the text itself if nothing is fenced, marked or quoted.

    name: the function asked for; without it, the last that is neither a test nor another block's helper.

    >>> extract_code("Here:\n```python\nx = 1\n```\nDone.")
    'x = 1'
    >>> extract_code("```bash\npython f.py\n```\n```python\ndef f(x): return x\n```\n```python\nprint(f(1) + f(2))\n```")
    'def f(x): return x'
    """
    for part in _marked(text):
        blocks = fenced_blocks(part)
        python = [code for language, code in blocks if language in _PYTHON and code]
        if python or blocks:
            return _solution(python or [code for _, code in blocks], name)
        unquoted = _unquoted(html.unescape(_TAGS.sub("\n", part)) if _TAGS.search(part) else part)
        if unquoted != text.strip():
            return unquoted
    return text


def fenced_blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of each fenced block; of a single fence without a language, the side that is code.

    A last block that never closes goes to the end of the text.
    """
    lines = text.split("\n")
    blocks: list[tuple[str, str]] = []
    mark, language, start, deepest = "", "", 0, 0
    for i, line in enumerate(lines):
        fence = _FENCE.match(line)
        if not mark:
            if fence:
                mark, language, start, deepest = fence[1], fence[2].lower(), i + 1, _indentation(line) + 3
        elif fence and _indentation(line) > deepest:
            continue  # in a docstring
        elif fence and fence[1].startswith(mark) and not fence[2]:
            blocks.append((language, _trim("\n".join(lines[start:i]))))
            mark = ""
        elif line.endswith(mark) and line.strip(" `~"):  # return x```
            blocks.append((language, _trim("\n".join([*lines[start:i], line[: -len(mark)]]))))
            mark = ""
    if mark:
        after, before = _trim("\n".join(lines[start:])), _trim("\n".join(lines[: start - 1]))
        alone = not blocks and not language
        blocks.append(
            (language, before if alone and (not after or (_parses(before) and not _parses(after))) else after)
        )
    return blocks or [("", code.strip()) for code in _ON_ONE_LINE.findall(text)]


def _indentation(line: str) -> int:
    line = line.expandtabs(4)
    return len(line) - len(line.lstrip(" >"))


def first_program(text: str) -> str:
    """The lines from the first definition, import or constant on, as far as they are Python; `text` itself if there are none.

    >>> first_program("Sure, here it is:\\n\\ndef f(x):\\n    return x\\n\\nIt returns x.")
    'def f(x):\\n    return x'
    """
    starts = [m.start() for m in _STATEMENT.finditer(text)][:_TRIES]
    first = STARTS.search(text)
    for start in starts if first is None else [s for s in starts if s < first.start()] + [first.start()]:
        lines = text[start:].split("\n")
        for end in range(len(lines), max(0, len(lines) - 10 * _TRIES), -1):
            tree = _tree(code) if (code := "\n".join(lines[:end]).rstrip()) else None
            if tree is not None and _definitions(tree):
                return code
    return text


def without_script(code: str) -> str:
    """The definitions, imports and constants of a program that also reads from the terminal; else the program itself."""
    tree = _tree(code)
    if tree is None or not any(_reads_terminal(node) for node in tree.body):
        return code
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign)
    return ast.unparse(ast.Module([n for n in tree.body if isinstance(n, kinds) and not _reads_terminal(n)], []))


def _reads_terminal(statement: ast.stmt) -> bool:
    names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
    names |= {n.attr for n in ast.walk(statement) if isinstance(n, ast.Attribute)}
    return bool(names & {"input", "stdin", "argv"}) and not isinstance(statement, ast.FunctionDef | ast.ClassDef)


def _marked(text: str) -> list[str]:
    """The parts of the answer that may hold the program, the most likely first."""
    before_done = text.split("[DONE]", 1)[0]
    if "[BEGIN]" not in before_done:
        return [before_done]
    parts = _MARKED.findall(text)
    return [*[part for part in parts if STARTS.search(part)][:1], *parts[-1:]]


def _unquoted(text: str) -> str:
    """Without quotes around it all, or a triple quote alone on its first or last line."""
    text = text.strip()
    for quote in _QUOTES:
        if len(text) > 2 * len(quote) and text.startswith(quote) and text.endswith(quote):
            inner = text[len(quote) : -len(quote)]
            if quote not in inner or not _parses(text):
                return _trim(inner)
    for quote in _QUOTES[:2]:
        if text.count(quote) % 2 and (text.startswith(quote) or text.endswith(quote)):
            return _trim(text.removeprefix(quote) if text.startswith(quote) else text.removesuffix(quote))
    return text


def _trim(code: str) -> str:
    """Without the indentation, quote marks and prompts of the interpreter that all of it has."""
    lines = [line for line in code.split("\n") if line.strip()]
    if lines and all(line.lstrip().startswith(">") and not line.lstrip().startswith(">>>") for line in lines):
        code = _QUOTED.sub("", code)
    code = textwrap.dedent(code.strip("\n")).strip()
    if code.startswith(">>>"):
        code = "\n".join(_PROMPT.sub("", line) for line in code.split("\n") if _PROMPT.match(line))
    return code.replace("\u00a0", " ") if "\u00a0" in code and not _parses(code) else code


def _solution(blocks: Sequence[str], name: str | None) -> str:
    trees = {code: tree for code in blocks if (tree := _tree(code)) is not None}
    if name is not None:
        definition = re.compile(rf"^(?:async )?def {re.escape(name)}\b", re.MULTILINE)
        defining = [code for code in blocks if definition.search(code)]
        readable = [code for code in defining if code in trees] or defining
    else:
        readable = []
    if not readable:
        readable = [code for code, tree in trees.items() if any(not is_test(n) for n in _definitions(tree))]
        # Not what another block builds on.
        readable = [
            c for c in readable if not any(_needs(trees[o]) & _bound(trees[c].body) for o in readable if o != c)
        ] or readable
    if not readable:
        return max([*trees] or blocks, key=len)
    solution = readable[-1]
    if solution not in trees:
        return solution
    helpers = _helpers(trees[solution], [tree for code, tree in trees.items() if code != solution])
    return "\n".join([*helpers, solution])


def _helpers(solution: ast.Module, others: Iterable[ast.Module]) -> list[str]:
    """The statements of other blocks that define what the solution uses and does not define, in their order."""
    statements = [s for tree in others for s in tree.body if _bound([s])]
    missing, chosen = _needs(solution), set[int]()
    while True:
        more = [i for i, s in enumerate(statements) if i not in chosen and _bound([s]) & missing]
        if not more:
            return [ast.unparse(statements[i]) for i in sorted(chosen)]
        for i in more:
            missing |= _needs(ast.Module([statements[i]], []))
        chosen.update(more)


def _needs(tree: ast.Module) -> set[str]:
    """Names that the code reads and does not bind anywhere."""
    read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    local = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    arguments = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    return read - local - arguments - _bound(ast.walk(tree)) - set(dir(builtins))


def _bound(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that definitions, imports and plain assignments bind."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((a.asname or a.name).split(".")[0] for a in node.names)
        elif isinstance(node, ast.Assign):
            names.update(t.id for t in node.targets if isinstance(t, ast.Name))
    return names


def _definitions(tree: ast.Module) -> list[str]:
    return [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]


def is_test(name: str) -> bool:
    return name.lower().startswith("test") or name in ("main", "check")


def _parses(code: str) -> bool:
    tree = _tree(code)
    return tree is not None and bool(tree.body)


def _tree(code: str) -> ast.Module | None:
    if len(code) > _LONGEST:
        return None
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
