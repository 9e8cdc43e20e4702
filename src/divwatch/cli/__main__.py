"""`python -m divwatch.cli` is the `divwatch` command."""

from divwatch.cli import main

main()
