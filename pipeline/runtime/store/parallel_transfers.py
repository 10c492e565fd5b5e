"""Several transfers at once, with a bar where they are many."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

MANY = 200  # items; more are worth a bar
SHARE = 16  # items at most that a thread takes at once: to hand over a small file takes as long as to hash it
SHARES = 8  # that each thread takes at least, so that all end at about the same time

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_parallel(call: Callable[[_Item], _Result], items: Iterable[_Item], *, at_once: int, label: str) -> list[_Result]:
    """Call something for each item, several at once, and give what comes of it in the items' order.

    The first error ends it: what has not begun by then is not begun.

    Args:
        call: What to do with one.
        items: With which.
        at_once: How many threads.
        label: What is being done, for the bar.
    """
    waiting = list(items)
    if len(waiting) < 2:
        return [call(item) for item in waiting]
    stopped = threading.Event()

    def call_each(share: Sequence[_Item]) -> list[_Result]:
        try:
            return [call(item) for item in share if not stopped.is_set()]
        except BaseException:
            stopped.set()
            raise

    size = max(1, min(SHARE, len(waiting) // (at_once * SHARES)))
    shares = [waiting[start : start + size] for start in range(0, len(waiting), size)]
    with ThreadPoolExecutor(min(at_once, len(shares))) as pool:
        try:
            results = pool.map(call_each, shares)
            return [result for share in _shown(results, label, len(waiting)) for result in share]
        except BaseException:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _shown(results: Iterator[list[_Result]], label: str, total: int) -> Iterator[list[_Result]]:
    if total < MANY:
        yield from results
        return
    from tqdm import tqdm

    with tqdm(None, label, total, unit="file", mininterval=0.5, delay=2, ascii=True) as bar:
        for share in results:
            bar.update(len(share))
            yield share
