"""Run steps in dev mode; what can be said: python step.dev.py --help."""

from pipeline.cli.step_commands import main

raise SystemExit(main(mode="dev"))
