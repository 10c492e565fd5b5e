"""The one policy of retries for everything that is fetched, and the error when it gives up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import DataError, MissingError
from pipeline.files import retrying

log = logging.getLogger(__name__)

ATTEMPTS = 5
_PROGRESS = 1 << 20  # bytes; where so many came, another round of attempts is made
_LONGEST_WAIT = 60.0  # seconds

T = TypeVar("T")


class TransientError(Exception):
    """A failure that may go away by itself; `retry_after` is the wait that the server asks for, in seconds."""

    def __init__(self, problem: str, retry_after: float = 0.0) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


def retried(attempt: Callable[[], T], *, shown: str, backoff: float, arrived: Callable[[], int] = lambda: 0) -> T:
    """Call `attempt` until it raises no `TransientError`, at most five times without progress.

    Args:
        attempt: What may fail.
        shown: What is fetched, for messages: a URL without secrets.
        backoff: Seconds before the second attempt, about doubled for each further one.
        arrived: How many bytes have come; after a mebibyte of progress the attempts count from one again.

    Raises:
        MissingError: All attempts failed, and nothing came.
        DataError: All attempts failed, and a part came.
    """

    def warn(error: BaseException, wait: float) -> None:
        log.warning("%s: %s; trying again in %.1f s", shown, error, wait)

    policy = retrying(
        lambda error: isinstance(error, TransientError),
        attempts=ATTEMPTS,
        first_wait=backoff,
        longest_wait=_LONGEST_WAIT,
        before_wait=warn,
    )
    while True:
        before = arrived()
        try:
            return policy(attempt)
        except TransientError as error:
            if arrived() - before >= _PROGRESS:
                continue
            problem = f"the request failed {ATTEMPTS} times in a row: {error}"
        if arrived():
            raise DataError(problem, where=shown, remedy="run it again: it continues where it broke off")
        raise MissingError(problem, where=shown, remedy="check the URL and the network, then run it again")
