"""The error that users can fix, and the one-line form of any other error."""

# Characters that an error may take inside a message or a record.
LIMIT = 200


class DivwatchError(ValueError):
    """Wrong input. The message is one line that names the problem and the fix.

    The command line and the recipes print it without a traceback and exit with status 2.
    """


def reason_of(error: BaseException) -> str:
    """Why something failed, in one line: what a DivwatchError says, any other error as `one_line` has it."""
    return str(error) if isinstance(error, DivwatchError) else one_line(error)


def one_line(error: BaseException, kind: bool = True) -> str:
    """The first line of an error's message, at most 200 characters, after the error's class name.

    kind: False omits the class name, unless the error has no message.

    >>> one_line(ValueError("no such file\\nand more"))
    'ValueError: no such file'
    >>> one_line(ValueError("no such file"), kind=False), one_line(KeyboardInterrupt())
    ('no such file', 'KeyboardInterrupt')
    """
    name = type(error).__name__
    message = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = ": ".join(part for part in (name if kind or not message else "", message) if part)
    return text if len(text) <= LIMIT else text[: LIMIT - 3] + "..."
