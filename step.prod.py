"""Run steps in prod mode; what can be said: python step.prod.py --help."""

from pipeline.cli import main

raise SystemExit(main(mode="prod"))
