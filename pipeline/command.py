"""What every command line has in common: which config a call means, what goes to the screen, how errors end it.

Exit code 0 when what was asked for succeeded, 1 when a step or gate failed, 2 for a wrong call, 130 after Ctrl-C, 143
after SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pipeline.config import as_config, read_config
from pipeline.errors import PipelineError, UsageError
from pipeline.manifest import RunManifest
from pipeline.notebook import StepNotebook
from pipeline.project import DEFAULT_CONFIG, Project

log = logging.getLogger(__name__)


def guarded(action: Callable[[], int], stopped: str = "stopped") -> int:
    """Do what was asked for, and turn what goes wrong into a line of text and an exit code.

    Args:
        action: What to do.
        stopped: What to say after Ctrl-C.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        return action()
    except UsageError as error:
        log.error("error: %s", error)
        return 2
    except PipelineError as error:
        log.error("error: %s", error)
        return 1
    except KeyboardInterrupt as stop:
        log.error("%s", stopped)
        return 128 + int(stop.args[0] if stop.args else signal.SIGINT)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # the disk is full or read-only, a store does not answer
        log.error("error: %s: %s", type(error).__name__, error)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)


def say(text: str) -> None:
    """Print what was asked for; everything else is logged."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def config_path(root: Path, typed: str | None) -> Path:
    """A config is looked for where the user stands, then in the project."""
    return Path(typed) if typed and Path(typed).is_file() else root / (typed or DEFAULT_CONFIG)


def with_config(mode: str, path: Path, root: Path, steps: dict[str, StepNotebook]) -> Project:
    """The project in one mode with one config, which is noted relative to the project where it lies in it."""
    config, whole, top = read_config(path), path.resolve(), root.resolve()
    noted = whole.relative_to(top) if whole.is_relative_to(top) else whole
    return Project(root, mode, config, noted.as_posix(), steps)


def with_config_of(manifest: RunManifest, root: Path, steps: dict[str, StepNotebook]) -> Project:
    """The project with a run's own config: as its file is now, or as it was recorded where there is none any more."""
    path = root / manifest.config_file
    if path.is_file():
        return with_config(manifest.mode, path, root, steps)
    recorded = {key: value for key, value in manifest.config.items() if key not in ("set", "input")}
    return Project(root, manifest.mode, as_config(recorded, path), manifest.config_file, steps)


def _terminated(number: int, _: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number)
