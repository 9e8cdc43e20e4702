"""What runs inside the sandbox: `runner.py program FD` holds a model's code, `runner.py tests FD` the tests of it.

The two are processes in separate sandboxes, joined by one socket, FD. The tests call the program's functions over it:
arguments go one way, results come back as plain values that are rebuilt on the tests' side. So the program never holds a
test or an expected result, none of its objects takes part in a comparison, and it has no access to the outcome, which the
tests' process writes to its own standard output.

This file runs by path, without the package, twice per program: it imports only the standard library, and of that only
modules that load fast. The job is JSON on standard input.
"""

from __future__ import annotations

import builtins
import json
import os
import resource
import sys
from itertools import islice

TYPE_CHECKING = False  # the imports below would double the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any

LONGEST = 4 << 20  # bytes of one message
ITEMS = 100_000  # taken from an iterator, which may have no end


def main() -> None:
    role, fd = sys.argv[1], int(sys.argv[2])
    with open(0, encoding="utf-8", closefd=False) as request:
        job = json.load(request)
    _limit(job["limits"])
    sys.set_int_max_str_digits(0)
    channel = Channel(fd)
    if role == "program":
        Program(channel).serve(job["sources"])
    else:
        outcome = os.fdopen(os.dup(1), "w")
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - tests may print
        print(json.dumps({"started": True}), file=outcome, flush=True)
        print(json.dumps(try_tests(job, channel)), file=outcome, flush=True)
    os._exit(0)


def _limit(limits: dict) -> None:
    """Called before any of the job's code runs. The limits are hard: the process cannot raise them again."""
    os.nice(19 - os.nice(0))
    for name, value in limits.items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


# messages


class Gone(BaseException):
    """The other side has ended. Not an Exception, so no `except Exception` of a test catches it."""


class Unsendable(BaseException):
    """A test's argument has no plain form: the tests cannot run across processes, whatever the program does."""


class Channel:
    """Messages in both directions, one line of JSON each."""

    def __init__(self, fd: int) -> None:
        self._in, self._out = os.fdopen(fd, "rb"), os.fdopen(os.dup(fd), "wb", buffering=0)

    def send(self, message: dict) -> None:
        data = memoryview(json.dumps(message).encode() + b"\n")
        if len(data) > LONGEST:
            raise ValueError("value too long")
        try:
            while data:
                data = data[self._out.write(data) :]
        except OSError:
            raise Gone from None

    def receive(self) -> dict:
        try:
            line = self._in.readline(LONGEST)
        except OSError:
            raise Gone from None
        if not line.endswith(b"\n"):
            raise Gone
        return json.loads(line)


_PLAIN = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_TYPES: dict[str, type] = _PLAIN | {t.__name__: t for t in (int, float, complex, bool, str, bytes, dict, type(None))}


def pack(value: Any, refer: Callable[[Any], int], depth: int = 0) -> Any:
    """`value` as JSON: a plain value by its kind, any other object by the number that `refer` gives it."""
    if depth > 200:
        raise ValueError("value too deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return {"int": hex(int(value))}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, dict):
        return {"dict": [[pack(k, refer, depth + 1), pack(v, refer, depth + 1)] for k, v in value.items()]}
    for name, kind in _PLAIN.items():
        if isinstance(value, kind):
            return {name: [pack(v, refer, depth + 1) for v in value]}
    for name, builtin in _TYPES.items():
        if value is builtin:
            return {"type": name}
    if hasattr(value, "__next__") or isinstance(value, type({}.keys()) | type({}.values()) | type({}.items())):
        return {"iterator": [pack(v, refer, depth + 1) for v in islice(value, ITEMS)]}
    return {"object": refer(value)}


def unpack(data: Any, resolve: Callable[[int], Any]) -> Any:
    """The value that `pack` packed, made of built-in types only; an object is what `resolve` returns for its number."""
    if not isinstance(data, dict):
        return data
    ((kind, inner),) = data.items()
    if kind == "int":
        return int(inner, 16)
    if kind == "complex":
        return complex(*inner)
    if kind == "bytes":
        return bytes.fromhex(inner)
    if kind == "range":
        return range(*inner)
    if kind == "dict":
        return {unpack(k, resolve): unpack(v, resolve) for k, v in inner}
    if kind == "type":
        return _TYPES[inner]
    if kind == "object":
        return resolve(inner)
    values = [unpack(v, resolve) for v in inner]
    return iter(values) if kind == "iterator" else _PLAIN[kind](values)


# the program's side


class Program:
    """Runs the program, then answers requests for its objects. The program controls all of this: any reply may be a lie."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.objects: list[Any] = []

    def serve(self, sources: list[str]) -> None:
        self.channel.send({"started": True})
        self.answer(lambda: self.load(sources))
        try:
            while True:
                request = self.channel.receive()
                self.answer(lambda request=request: self.handle(**request))
        except Gone:
            pass

    def load(self, sources: list[str]) -> None:
        """Runs the first source that compiles; raises the error of the last one if none does."""
        for source in sources:
            try:
                code = compile(source, "<program>", "exec", dont_inherit=True)
                break
            except (SyntaxError, ValueError):
                if source is sources[-1]:
                    raise
        module = type(sys)("program")  # not __main__: code for running as a script does not run
        sys.modules["program"] = module
        self.objects.append(module)
        exec(code, module.__dict__)

    def answer(self, act) -> None:
        try:
            reply = {"value": pack(act(), self.refer)}
            self.channel.send(reply)
        except Gone:
            raise
        except BaseException as error:
            self.channel.send({"error": type(error).__name__, "text": _first_line(error)})

    def handle(self, on: int, do: str, name: str = "", value=None, args=None, kwargs=None):
        target = self.objects[on]
        if do == "get":
            return getattr(target, name)
        if do == "set":
            return setattr(target, name, unpack(value, self.resolve))
        return target(*unpack(args, self.resolve), **unpack(kwargs, self.resolve))

    def refer(self, value: object) -> int:
        self.objects.append(value)
        return len(self.objects) - 1

    def resolve(self, index: int) -> object:
        return self.objects[index]


def _first_line(error: BaseException) -> str:
    try:
        return str(error).split("\n", 1)[0][:200]
    except BaseException:
        return ""


# the tests' side


class Remote:
    """An object of the program, known by its number. It equals nothing but itself, whatever the object's class says."""

    def __init__(self, channel: Channel, index: int) -> None:
        object.__setattr__(self, "_ask", (channel, index))

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return _ask(self, do="get", name=name)

    def __setattr__(self, name: str, value: object) -> None:
        _ask(self, do="set", name=name, value=pack(value, _reference))

    def __call__(self, *args: object, **kwargs: object):
        return _ask(self, do="call", args=pack(args, _reference), kwargs=pack(kwargs, _reference))


class RemoteError(Exception):
    """An exception of the program that is not a built-in one."""


def _reference(value: object) -> int:
    if type(value) is Remote:
        return object.__getattribute__(value, "_ask")[1]
    raise Unsendable(f"an argument is a {type(value).__name__}")


def _ask(remote: Remote, **request: object):
    channel, index = object.__getattribute__(remote, "_ask")
    channel.send({"on": index} | request)
    return _result(channel)


def _result(channel: Channel):
    reply = channel.receive()
    if "error" not in reply:
        return unpack(reply["value"], lambda index: Remote(channel, index))
    kind = getattr(builtins, str(reply["error"]), None)
    # StopIteration would end a loop of the tests early instead of failing it.
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, StopIteration):
        try:
            raised = kind(reply["text"])
        except TypeError:  # such as UnicodeDecodeError, which needs more than a text
            raised = RemoteError(reply["error"], reply["text"])
        raise raised
    raise RemoteError(f"{reply['error']}: {reply['text']}")


def try_tests(job: dict, channel: Channel) -> dict:
    """{"passed": True, False, or None if the tests could not be run, "reason"}."""
    try:
        channel.receive()
    except Gone:
        return {"passed": None, "reason": "the program's sandbox did not start"}
    try:
        _result(channel)
        run_tests(job, Remote(channel, 0))
    except Gone:
        return {"passed": False, "reason": "the program ended before its tests did"}
    except Unsendable as error:
        return {"passed": None, "reason": f"the tests cannot be run across processes: {error}"}
    except BrokenTests as error:
        return {"passed": None, "reason": f"the tests do not run: {error}"}
    except BaseException as error:
        return {"passed": False, "reason": f"{type(error).__name__}: {_first_line(error)}"}
    return {"passed": True, "reason": ""}


class BrokenTests(BaseException):
    """The data set's own code does not run."""


def run_tests(job: dict, program: Remote) -> None:
    """Runs `preamble` and `tests` here, with `names` bound to what the program defines under these names.

    `check`, if there is one, is the name of a function of the tests that takes the program's `names[0]`.
    """
    space: dict = {"__name__": "tests"}
    try:
        exec(compile(job["preamble"], "<preamble>", "exec", dont_inherit=True), space)
        code = [compile(test, "<tests>", "exec", dont_inherit=True) for test in job["tests"]]
    except Exception as error:
        raise BrokenTests(f"{type(error).__name__}: {_first_line(error)}") from None
    if job["check"]:
        (name,) = job["names"]
        space[name] = getattr(program, name)
    else:
        for name in {name for part in code for name in _names(part)} - set(space):
            _bind(name, job["names"], space, program)
    for part in code:
        exec(part, space)
    if job["check"]:
        space[job["check"]](space[name])


def _names(code: CodeType) -> set[str]:
    """The names that the code uses, in its functions too. Attributes are among them, which does no harm."""
    return set(code.co_names).union(*(_names(c) for c in code.co_consts if isinstance(c, type(code))))


def _bind(name: str, defined: list[str], space: dict, program: Remote) -> None:
    """Binds a name that the tests use to what the program defines.

    A built-in name or a standard module keeps its meaning unless the data set's solution defines it too: a program that
    defines `set` must not change what the tests mean by it.
    """
    if name in sys.stdlib_module_names and name not in defined:
        space[name] = __import__(name)
    elif name in defined or not hasattr(builtins, name):
        try:  # noqa: SIM105 - contextlib is slow to start
            space[name] = getattr(program, name)
        except AttributeError:
            pass  # an attribute, or defined by the tests; otherwise they raise NameError


if __name__ == "__main__":
    main()
