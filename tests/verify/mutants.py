"""Programs that are nearly right: each solution with one thing changed. And the plain way to judge them, without a sandbox.

The plain way is the reference that the sandbox's verdicts are compared with: prompt, solution and tests in one namespace,
as the data set's own harness has them, in a forked child with an alarm. Run it as a script: rows of JSON in, verdicts out.
"""

import ast
import copy
import io
import json
import os
import signal
import sys

SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Div: ast.Mult,
}  # fmt: skip


def mutants(prompt, body, most=4):
    """Up to `most` different programs, each with one operator swapped, one number moved or one return emptied in the body.

    Not in the prompt: its helpers are part of the tests.
    """
    source, first = prompt + body, prompt.count("\n") + 1
    tree = ast.parse(source)
    places = [i for i, node in enumerate(ast.walk(tree)) if _mutated(node) is not None and node.lineno >= first]
    step = max(1, len(places) // most)
    mutated = []
    for place in places[::step][:most]:
        changed = copy.deepcopy(tree)
        node = list(ast.walk(changed))[place]
        _apply(node)
        mutated.append(ast.unparse(changed))
    return mutated


def _mutated(node):
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return SWAPS.get(type(node.ops[0]))
    if isinstance(node, ast.BinOp | ast.BoolOp):
        return SWAPS.get(type(node.op))
    if isinstance(node, ast.Constant) and type(node.value) in (int, bool):
        return "constant"
    if isinstance(node, ast.Return) and node.value is not None:
        return "return"
    return None


def _apply(node):
    change = _mutated(node)
    if isinstance(node, ast.Compare):
        node.ops = [change()]
    elif isinstance(node, ast.BinOp | ast.BoolOp):
        node.op = change()
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    else:
        node.value = ast.Constant(None)


def plainly(program, test, entry_point, seconds=3):
    """Does the program pass, run as it is? In a child, which an alarm ends."""
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        sys.stdout = sys.stderr = io.StringIO()
        try:
            space = {}
            exec(program + "\n" + test + f"\ncheck({entry_point})", space)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    json.dump([plainly(**row) for row in json.load(sys.stdin)], sys.stdout)
