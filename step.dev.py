"""Run steps in dev mode; for the arguments see: python step.dev.py --help."""

from pipeline.cli.entry import run_steps

raise SystemExit(run_steps("dev"))
