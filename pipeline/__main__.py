"""`python -m pipeline`."""

from pipeline.cli import inspect

raise SystemExit(inspect())
