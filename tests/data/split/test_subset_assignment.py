from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.conversion import draw_order
from pipeline.data.split.subset_assignment import hash_deviation, hashed_subset

SHARES = (0.7, 0.15, 0.15)


def test_recorded() -> None:
    """A place once given is given for ever: a change here would move the images of every stable split there is."""
    places = "".join(str(hashed_subset(f"{i}.jpg", SHARES, 7)) for i in range(40))
    assert places == "2000002002000110000202000200102000000000"


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_shares_hold_within_chance(share: float) -> None:
    places = np.array([hashed_subset(f"{i}.jpg", (1 - share, share, 0.0), 0) for i in range(20_000)])
    assert abs((places == 1).sum() - 20_000 * share) < 4 * hash_deviation(20_000, share)
    assert not (places == 2).any()


def test_shares_hold_among_images_drawn_by_max_images() -> None:
    """Those have the lowest keys of `draw_order`: a place by the same hash would put all into one subset."""
    drawn = sorted((f"{i}.jpg" for i in range(4000)), key=lambda name: draw_order(name, 3))[:400]
    counts = np.bincount([hashed_subset(name, SHARES, 3) for name in drawn], minlength=3)
    assert all(
        abs(count - 400 * share) < 4 * hash_deviation(400, share) for count, share in zip(counts, SHARES, strict=True)
    )


def test_the_test_set_stays_when_train_and_eval_share_otherwise() -> None:
    for i in range(300):
        before, after = hashed_subset(f"{i}", SHARES, 0), hashed_subset(f"{i}", (0.5, 0.35, 0.15), 0)
        assert (before == 2) == (after == 2)
        assert after >= before  # a larger eval set takes from train, and gives nothing up


@pytest.mark.parametrize("place", [0, 1, 2])
def test_all_to_one(place: int) -> None:
    shares = [0.0] * 3
    shares[place] = 1.0
    assert {hashed_subset(f"{i}", shares, 0) for i in range(50)} == {place}


def test_shares_that_do_not_fill_the_line() -> None:
    assert {hashed_subset(f"{i}", (0.0, 0.6, 0.0), 0) for i in range(50)} == {1}


def test_seed_decides() -> None:
    assert [hashed_subset(f"{i}", SHARES, 1) for i in range(50)] != [
        hashed_subset(f"{i}", SHARES, 2) for i in range(50)
    ]
