"""`python -m vitlab` is the same as `vitlab`."""

from vitlab.cli.main import run

run()
