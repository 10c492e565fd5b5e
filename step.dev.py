"""Run steps in dev mode; what can be said: python step.dev.py --help."""

from pipeline.cli import main

raise SystemExit(main(mode="dev"))
