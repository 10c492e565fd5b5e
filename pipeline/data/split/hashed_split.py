"""A place that follows from a thing's own name: whatever else there is, it stays where it is.

The shares then hold in expectation only: of n things, a subset with share s gets n s, with a standard deviation of
sqrt(n s (1 - s)): of 1,000 images 150 give or take 11, of 100 images 15 give or take 4.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence


def stable_place(key: str, shares: Sequence[float], seed: int) -> int:
    """Which of the shares a key falls into.

    The last share lies first on the line from 0 to 1: train and eval can then be changed against each other without
    any other thing entering or leaving the test set.

    Args:
        key: What the place follows from.
        shares: Add up to 1.
        seed: Another one, another choice.
    """
    # Not the hash that `conversion.draw_order` sorts by: among images drawn by the smallest of those, all would be low.
    digest = hashlib.sha256(f"split/{seed}/{key}".encode()).digest()
    point = int.from_bytes(digest[:7], "big") / 2**56  # exact in a float, and below 1
    places = [i for i in reversed(range(len(shares))) if shares[i] > 0]
    for place in places:
        point -= shares[place]
        if point < 0:
            return place
    return places[-1]


def spread(count: float, share: float) -> float:
    """The standard deviation of how many of so many things fall into a share."""
    return math.sqrt(count * share * (1 - share))
