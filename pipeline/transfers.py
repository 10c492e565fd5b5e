"""Several transfers at once, with a bar where they are many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

MANY = 200  # items; more are worth a bar

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
    with ThreadPoolExecutor(min(at_once, len(waiting))) as pool:
        try:
            return list(_shown(pool.map(call, waiting), label, len(waiting)))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _shown(results: Iterator[_Result], label: str, total: int) -> Iterator[_Result]:
    if total < MANY:
        return results
    from tqdm import tqdm

    bar: Iterator[_Result] = iter(tqdm(results, label, total, unit="file", mininterval=0.5, delay=2, ascii=True))
    return bar
