"""Run steps in prod mode; for the arguments see: python step.prod.py --help."""

from pipeline.cli.entry import run_steps

raise SystemExit(run_steps("prod"))
