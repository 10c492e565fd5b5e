"""One file from a place behind an fsspec URL: streamed, retried, continued where it broke, never accepted cut."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing, suppress
from importlib import import_module
from typing import Any, TypeVar

from pipeline.data.fetch.failures import TransientError
from pipeline.data.fetch.partial import PartialFile, Validators
from pipeline.data.fetch.places import Place, reaching, validators_of
from pipeline.errors import DataError, MissingError

logger = logging.getLogger(__name__)

_ATTEMPTS = 5  # in a row that bring less than _PROGRESS
_PROGRESS = 1 << 20  # bytes
_LONGEST_WAIT = 30.0  # seconds
_CHUNK = 1 << 20  # bytes
_BLOCK = 1 << 22  # bytes that a file system reads ahead
_SFTP_PIECE = 1 << 15  # bytes of a request, the most that every server answers in one

T = TypeVar("T")


def persistently(
    attempt: Callable[[Any], T], place: Place, shown: str, backoff: float, arrived: Callable[[], int] = lambda: 0
) -> T:
    """Do something at a place, several times if need be, over a new connection after each failure.

    Args:
        attempt: Takes the connected file system.
        place: Where.
        shown: What stands in messages for the thing that is asked for.
        backoff: Seconds before the second attempt, doubled for each further one.
        arrived: How many bytes are here; as long as it grows, attempts go on.

    Raises:
        MissingError: It failed each time, and nothing came.
        DataError: It failed each time, and a part came.
    """
    failures = 0
    while True:
        before, system = arrived(), None
        try:
            system = place.connected()
            return attempt(system)
        except TransientError as error:
            problem = str(error)
        place.drop(system)
        failures = 1 if arrived() - before >= _PROGRESS else failures + 1
        if failures >= _ATTEMPTS:
            raise _gave_up(problem, shown, arrived())
        wait = min(backoff * 2 ** (failures - 1), _LONGEST_WAIT)
        logger.warning("%s: %s; trying again in %.1f s", shown, problem, wait)
        time.sleep(wait)


def fetch_file(
    place: Place, path: str, shown: str, part: PartialFile, backoff: float, report: Callable[[int], object]
) -> Validators:
    """Fill a partial file, from where it stands, and return the place's word on the version that it now holds.

    Args:
        place: Where the file lies.
        path: Its path in the place's file system.
        shown: What stands for it in messages.
        part: Receives the bytes.
        backoff: Seconds before the second attempt.
        report: Called now and then with the number of bytes that are here.

    Raises:
        MissingError: The file is not there, or cannot be reached.
        DataError: It keeps breaking off, or changing.
    """

    def attempt(system: Any) -> Validators:
        found = _info(system, path, shown)
        if not part.size or not part.validators.same_version(found) or not part.size <= found.size:
            part.reset(found)
        _read(system, path, shown, part, report)
        if found.size not in (part.size, -1):
            raise TransientError(f"the download was cut: {part.size} of {found.size} bytes came")
        if _info(system, path, shown) != found:
            part.reset(Validators())
            raise TransientError("the file changed while it was read")
        return found

    return persistently(attempt, place, shown, backoff, lambda: part.size)


def _info(system: Any, path: str, shown: str) -> Validators:
    with reaching(shown):
        return validators_of(system.info(path))


def _read(system: Any, path: str, shown: str, part: PartialFile, report: Callable[[int], object]) -> None:
    with reaching(shown):
        opened = system.open(path, "rb", block_size=_BLOCK)
    _quieten(opened)
    with closing(opened):
        if part.size and not _sought(opened, part.size):
            part.reset(part.validators)
        report(part.size)
        here, size = part.size, part.validators.size
        try:
            while here != size and (chunk := _chunk(opened, here, size, shown)):
                part.write(chunk)
                here += len(chunk)
                report(here)
        finally:
            part.flush()


def _chunk(opened: Any, start: int, size: int, shown: str) -> bytes:
    with reaching(shown):
        if size < 0 or not hasattr(opened, "readv"):
            return bytes(opened.read(_CHUNK))
        # paramiko's files: one request after the other would wait for each answer
        end = min(start + _CHUNK, size)
        wanted = [(offset, min(_SFTP_PIECE, end - offset)) for offset in range(start, end, _SFTP_PIECE)]
        return b"".join(opened.readv(wanted))


def _quieten(opened: Any) -> None:
    """Keep paramiko's own thread from printing a traceback when a connection breaks: the reader meets the same."""
    asking = getattr(opened, "_prefetch_thread", None)
    if asking is None:
        return

    def ask(*arguments: Any) -> None:
        with suppress(OSError, EOFError, *_ssh_errors()):
            asking(*arguments)

    opened._prefetch_thread = ask


def _ssh_errors() -> tuple[type[Exception], ...]:
    error: type[Exception] = import_module("paramiko").SSHException
    return (error,)


def _sought(opened: Any, position: int) -> bool:
    """Whether reading goes on from a position: not every place can."""
    try:
        opened.seek(position)
        return bool(opened.tell() == position)
    except (OSError, ValueError, NotImplementedError, AttributeError):
        return False


def _gave_up(problem: str, shown: str, arrived: int) -> Exception:
    problem = f"The download failed {_ATTEMPTS} times in a row: {problem}"
    if arrived:
        return DataError(problem, where=shown, remedy="run it again: it continues where it broke off")
    return MissingError(problem, where=shown, remedy="check the URL and the network, then run it again")
