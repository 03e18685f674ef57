"""`python -m flaim` is the `flaim` command."""

from flaim.cli import main

main()
