"""`divwatch import`: a run directory from completions that another tool has written."""

from divwatch.imports.build import import_run

__all__ = ["import_run"]
