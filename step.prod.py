"""Run steps in prod mode; what can be said: python step.prod.py --help."""

from pipeline.cli.step_commands import main

raise SystemExit(main(mode="prod"))
