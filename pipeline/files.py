"""Local files: atomic writes, digests, and retries of what a network or disk may refuse for a moment."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from tenacity import RetryCallState, Retrying


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a crash at any moment, finds the old content or the new one, never a part.

    Args:
        path: The file. Its folder exists.
        content: All of it; text is encoded as UTF-8.
    """
    with atomic_path(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; when the block ends without an error, the file takes `path`'s place.

    The content reaches the disk before the name does. After an error, no draft is left and `path` is unchanged.
    """
    draft = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield draft
        with draft.open("rb+") as stream:
            os.fsync(stream.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk: until then a crash may lose the name of a file that was renamed into it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def retrying(
    is_transient: Callable[[BaseException], bool],
    *,
    attempts: int,
    first_wait: float = 0.5,
    longest_wait: float = 30.0,
    before_wait: Callable[[BaseException, float], None] | None = None,
) -> Retrying:
    """The project's retry policy: exponential waits with jitter, and the wait a server asks for where that is longer.

    Call the result with a function and its arguments. The last error is raised as it is.

    Args:
        is_transient: Whether an error may go away by itself.
        attempts: How many in all.
        first_wait: Seconds before the second attempt; each later wait is twice as long.
        longest_wait: Seconds that no wait exceeds. An error's attribute `retry_after`, in seconds, counts up to it.
        before_wait: Is told of the error and the seconds that follow, to log them.
    """
    import tenacity

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        exponential = first_wait * 2.0 ** (state.attempt_number - 1) * random.uniform(0.75, 1.25)  # noqa: S311
        return min(max(exponential, getattr(error, "retry_after", None) or 0.0), longest_wait)

    def told(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if before_wait and error and state.next_action:
            before_wait(error, state.next_action.sleep)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        stop=tenacity.stop_after_attempt(attempts),
        wait=wait,
        before_sleep=told,
        reraise=True,
    )
