"""What child processes of tests run: functions that can be imported by name there."""

import os
import sys
import time

from divwatch.errors import DivwatchError


def serve(*arguments):
    """A handler that does what a request [verb, value] says."""

    def handle(request):
        verb, value = request
        if verb == "sleep":
            time.sleep(value)
        elif verb == "raise":
            raise {"wrong": DivwatchError, "broken": ZeroDivisionError}[value]("as asked")
        elif verb == "exit":
            print("last words", file=sys.stderr)
            os._exit(value)
        elif verb == "print":
            print("x" * value, flush=True)
            os.write(1, b"not a reply\n")
        elif verb == "fork":
            if os.fork() == 0:
                time.sleep(1000)
        elif verb == "environment":
            return {name: os.environ.get(name) for name in value}
        elif verb == "state":
            return {"nice": os.nice(0), "session": os.getsid(0), "main": sys.modules["__main__"].__file__}
        elif verb == "set":
            return {value}
        return [*arguments, value]

    return handle


def refuse():
    raise DivwatchError("no such model: choose another")


def fail():
    raise KeyError("planted")


def hold_the_interpreter():
    """A handler that never lets another thread run: one call of C code."""
    return lambda request: len(str(9 ** (9**9)))


def divide_by_zero(token_ids):
    return str(1 // 0)
