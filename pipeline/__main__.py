"""`python -m pipeline`."""

from pipeline.cli.entry import run_command
from pipeline.commands import MODULES

raise SystemExit(run_command(modules=MODULES))
