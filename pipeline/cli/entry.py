"""The entry of all three command lines, which says what to do where packages are missing."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.cli import ACTIVATE


def run_steps(mode: str) -> int:
    """Run `step.dev.py` or `step.prod.py`, and return the exit code."""
    try:
        from pipeline.cli import step_commands
    except ImportError as error:
        return _refuse(error)
    return step_commands.main(mode)


def run_command(
    arguments: Sequence[str] | None = None, root: Path | None = None, *, modules: Sequence[str] = ()
) -> int:
    """Run `python -m pipeline COMMAND`, by default in the project around the working directory; the exit code.

    The `modules` hold further commands.
    """
    try:
        from pipeline.cli import run_commands  # noqa: F401  # it registers its commands
        from pipeline.cli.command import COMMANDS, CommandContext, print_result, run_guarded

        for name in modules:
            importlib.import_module(name)
    except ImportError as error:
        return _refuse(error)

    def run() -> int:
        parsed = _parser().parse_args(arguments)
        result = COMMANDS[parsed.command][2](CommandContext(parsed, root))
        text = json.dumps(result.content, indent=2, ensure_ascii=False) if parsed.json else result.text
        if text:
            print_result(text)
        return result.code

    return run_guarded(run)


def _refuse(error: ImportError) -> int:
    sys.stderr.write(f"error: {sys.executable} does not have {error.name}: {ACTIVATE}\n")
    return 2


def _parser() -> argparse.ArgumentParser:
    from pipeline.cli.command import COMMANDS, ShowVersion
    from pipeline.runtime.project import DEFAULT_CONFIG, DEFAULT_MODE, MODES

    parser = argparse.ArgumentParser(
        prog="python -m pipeline", description="Look at runs, maintain their store, and use services."
    )
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version, and exit")
    common = argparse.ArgumentParser(add_help=False)
    mode_help = f"the mode of the runs ({DEFAULT_MODE}; every mode for the command runs)"
    common.add_argument("--mode", choices=MODES, help=mode_help)
    config_help = f"the store and runs of this config; by default all runs in the store of {DEFAULT_CONFIG}"
    common.add_argument("--config", metavar="FILE", help=config_help)
    common.add_argument("--json", action="store_true", help="print JSON, for programs")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (purpose, arguments, _) in COMMANDS.items():
        own = commands.add_parser(name, parents=[common], help=purpose, description=purpose)
        for names, options in arguments:
            own.add_argument(*names, **options)
    return parser
