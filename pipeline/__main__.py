"""`python -m pipeline`."""

from pipeline.inspection.commands import inspect

raise SystemExit(inspect())
