"""`python -m pipeline`."""

from pipeline.cli.entry import run_command

raise SystemExit(run_command())
