"""`python -m pipeline`."""

from pipeline.cli.run_commands import inspect

raise SystemExit(inspect())
