"""The one error a user can mend: its message is a single line that names the thing and the mend."""


class DivwatchError(ValueError):
    """Wrong input. Shown without a traceback by the command line and the recipes (exit status 2)."""
