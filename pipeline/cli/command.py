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
from types import FrameType
from typing import NoReturn

from pipeline.errors import PipelineError, UsageError

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


def _terminated(number: int, _: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number)
