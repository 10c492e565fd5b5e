from __future__ import annotations

import hashlib
import zipfile
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import smooth

from pipeline.data import fingerprints
from pipeline.data.fingerprints import find_similar, group_similar
from pipeline.serving.image_fingerprint import FINGERPRINT_BYTES, fingerprint_of


def encoded(pixels: Any, quality: Any = 90) -> Any:
    return cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def scaled(pixels: Any, share: Any) -> Any:
    return cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)


def trimmed(pixels: Any, left: Any, top: Any, right: Any, bottom: Any) -> Any:
    """Without so many hundredths of each side."""
    height, width = pixels.shape[:2]
    return pixels[
        height * top // 100 : height - height * bottom // 100, width * left // 100 : width - width * right // 100
    ]


def marked(pixels: Any) -> Any:
    return cv2.putText(pixels.copy(), "(c) someone", (8, pixels.shape[0] - 10), 0, 0.8, (255, 255, 255), 2)


# Each with the least share of photographs whose changed copy is found.
CHANGES: dict[str, tuple[Any, float]] = {
    "mirrored, half the size, quality 50": (lambda p: encoded(scaled(p[:, ::-1], 0.5), 50), 1.0),
    "a quarter turn to the left": (lambda p: encoded(np.rot90(p)), 0.98),
    "cropped, half the size, quality 50": (lambda p: encoded(scaled(trimmed(p, 1, 1, 1, 1), 0.5), 50), 0.97),
}
SLOW: dict[str, tuple[Any, float]] = {
    "a quarter of the size": (lambda p: encoded(scaled(p, 0.25)), 1.0),
    "a tenth brighter": (lambda p: encoded(cv2.convertScaleAbs(p, alpha=1.1)), 1.0),
    "25 shades brighter": (lambda p: encoded(cv2.add(p, np.full_like(p, 25))), 1.0),
    "2 % cropped of two sides": (lambda p: encoded(trimmed(p, 2, 2, 0, 0)), 0.95),
    "with a line of text": (marked, 0.95),
}


@pytest.fixture(scope="module")
def photographs(real_data: Path) -> Any:
    with zipfile.ZipFile(real_data / "val2017.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::2]
        return [cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR) for name in names]


@pytest.mark.parametrize("name", [*CHANGES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_changed_photographs_are_found_and_no_others(photographs: Any, name: str) -> None:
    """Each photograph and its changed copy among those of all others."""
    change, least = {**CHANGES, **SLOW}[name]
    count = len(photographs)
    prints = [fingerprint_of(p) for p in photographs] + [fingerprint_of(change(p)) for p in photographs]
    firsts = group_similar(prints)
    assert firsts == group_similar(prints, whole_chains=True)
    assert firsts[:count] == list(range(count))
    assert all(first in (i, count + i) for i, first in enumerate(firsts[count:]))
    assert sum(first == i for i, first in enumerate(firsts[count:])) >= least * count


def digest(found: Any) -> str:
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


def test_the_same_results_as_in_earlier_versions(pan: Any) -> None:
    """Records in older models are compared with new ones, and groups decide a split."""
    rng = np.random.default_rng(3)
    noisy = [np.frombuffer(pan[i % 500], np.uint8) + rng.integers(-6, 7, FINGERPRINT_BYTES) for i in range(600)]
    several = [np.clip(each, 0, 255).astype(np.uint8).tobytes() for each in noisy] + pan + [b""] * 3
    several += [
        fingerprint_of(np.ascontiguousarray(np.rot90(smooth(seed // 8), seed % 4)[:, :: -1 if seed % 8 > 3 else 1]))
        for seed in range(800)
    ]
    assert digest(pan) == "b2fb8018405716f7"
    assert digest(group_similar(several)) == "d2aa9149f479d47c"
    assert digest(group_similar(several, whole_chains=True)) == "48af140542466bdf"


@pytest.mark.parametrize("noise", [0, 1, 2])
def test_flat_pictures_look_like_nothing(noise: int) -> None:
    """Else thousands of walls, skies and blank pages would be one group."""
    rng = np.random.default_rng(0)
    grey = np.full((90, 120, 3), 128, np.uint8)
    flat = [np.clip(grey + rng.normal(0, noise, grey.shape), 0, 255).astype(np.uint8) for _ in range(5)]
    prints = [fingerprint_of(pixels) for pixels in flat]
    assert prints == [b""] * 5
    assert group_similar(prints) == list(range(5))


def test_same_shape_in_another_colour_is_another_picture() -> None:
    def disc(colour: Any) -> Any:
        return cv2.circle(np.full((200, 200, 3), 200, np.uint8), (100, 100), 60, colour, -1)

    red, green = disc((40, 40, 220)), disc((40, 132, 40))  # of about one brightness
    assert group_similar([fingerprint_of(red), fingerprint_of(green), fingerprint_of(encoded(red, 60))]) == [0, 1, 0]


@pytest.mark.parametrize("side", [20, 80])
def test_another_object_before_the_same_background(side: int) -> None:
    """A fixed camera: a frame with something in it that stands out is no copy of one without, large or small."""
    scene = smooth(5, (320, 240))
    other = scene.copy()
    other[100 : 100 + side, 120 : 120 + side] = 255
    assert group_similar([fingerprint_of(scene), fingerprint_of(other)]) == [0, 1]


@pytest.fixture(scope="module")
def pan() -> Any:
    """Looks of frames of which each is like the next one, while the first and the last have nothing in common."""
    wide = smooth(8, (2400, 240), 24)
    return [fingerprint_of(np.ascontiguousarray(wide[:, x : x + 320])) for x in range(0, 2000, 4)]


def test_the_first_of_a_slow_pan_stands_for_what_is_like_it_alone(pan: Any) -> None:
    firsts = group_similar(pan)
    assert all(abs(i - first) * 4 < 160 for i, first in enumerate(firsts))
    alone = sum(first == i for i, first in enumerate(firsts))
    assert alone < len(pan) / 2  # frames next to each other are found
    assert sum(a != b for a, b in pairwise(firsts)) > 10


def test_a_slow_pan_is_one_whole_chain(pan: Any) -> None:
    """Cut anywhere, the frames beside the cut would be alike: in a split, one to learn from and one to test on."""
    other = [fingerprint_of(smooth(100 + seed)) for seed in range(50)]
    assert group_similar(pan[::-1] + other, whole_chains=True) == [0] * len(pan) + list(range(len(pan), len(pan) + 50))


def table(count: Any, alike: Any, seed: Any = 0) -> Any:
    """Looks of which the first ones are alike, up to noise."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 255, (count, 6, 6), np.uint8)
    greys = [cv2.resize(each, (16, 16), interpolation=cv2.INTER_CUBIC) for each in cells]
    prints = np.concatenate(
        [np.reshape(greys, (count, 256)), rng.integers(100, 150, (count, FINGERPRINT_BYTES - 256))], axis=1
    )
    prints[:alike] = np.clip(prints[0] + rng.integers(-3, 4, (alike, FINGERPRINT_BYTES)), 0, 255)
    return [each.tobytes() for each in prints.astype(np.uint8)]


def test_compared_pairs_grow_with_the_number_though_most_are_similar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs compared by their bits, and of those the ones compared by their thumbnails."""
    compared = {"bits": 0, "thumbnails": 0}
    bitwise_count, are_similar = np.bitwise_count, fingerprints._are_similar

    def counted_bits(pairs: Any) -> Any:
        compared["bits"] += pairs.size
        return bitwise_count(pairs)

    def counted_thumbnails(one: Any, *others: Any) -> Any:
        compared["thumbnails"] += len(one)
        return are_similar(one, *others)

    monkeypatch.setattr(np, "bitwise_count", counted_bits)
    monkeypatch.setattr(fingerprints, "_are_similar", counted_thumbnails)

    def pairs(count: Any) -> Any:
        compared.update(bits=0, thumbnails=0)
        firsts = group_similar(table(count, count // 2))
        assert len(set(firsts)) == count - count // 2 + 1
        return dict(compared)

    few, many = pairs(500), pairs(10_000)
    most = 16 * (2 * 30 + 8 * 2)  # 16 neighbours in each turn of each order
    assert many["bits"] <= 1.01 * most * 10_000  # a few at the edges of the parts are compared twice
    assert many["thumbnails"] <= 25 * few["thumbnails"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 8), max_size=40))
def test_groups_are_those_of_equal_looks(seeds: Any) -> None:
    """With pictures of which each is equal to or unlike the others, in whatever order, mirrored or not."""
    prints = [fingerprint_of(smooth(seed // 2)[:, :: -1 if seed % 2 else 1]) if seed else b"" for seed in seeds]
    firsts = group_similar(prints)
    kinds = [(seed // 2 if seed else f"flat {i}") for i, seed in enumerate(seeds)]
    assert firsts == [kinds.index(kind) for kind in kinds]


def are_similar(one: Any, other: Any) -> bool:
    """Two fingerprints by the definition, in floats of twice the precision and without a shortcut."""
    a, b = (np.asarray(each[: fingerprints.GREYS], np.float64) for each in (one, other))
    a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    colours = np.abs(np.asarray(one, np.float64) - other)[fingerprints.GREYS :].mean()
    return bool(1 - (a * b).mean() <= 0.08 and np.abs(a - b).max() <= 1.75 and colours <= 6)


def one_by_one(prints: Any, whole_chains: bool) -> list[int]:
    """The search as it is described, pair by pair in one thread; `fingerprints` has the orders and the bits alone."""
    table = np.stack([np.frombuffer(each, np.uint8) for each in prints])
    count, bits, roots = len(table), fingerprints._bits(table), list(range(len(table)))
    turned = [table[:, fingerprints._CELLS[turn]] for turn in range(8)]

    def root(row: int) -> int:
        return row if roots[row] == row else root(roots[row])

    for number in range(32):
        keys = fingerprints._keys(bits, fingerprints._order(number), 2 if number < 30 else 8)
        order = sorted(range(len(keys)), key=keys.__getitem__)
        for start in range(0, len(order), fingerprints._AT_ONCE):
            near = order[start : start + fingerprints._AT_ONCE + 16]
            for step in range(1, 17):
                for one, other in zip(near, near[step:], strict=False):
                    low, high = min(one, other), max(one, other)
                    turn, high = divmod(high, count)
                    if low >= count or (int(keys[one]) ^ int(keys[other])).bit_count() > 12:
                        continue
                    if not are_similar(table[low], turned[turn][high]):
                        continue
                    first, second = sorted((root(low), root(high)))
                    nearly = first == second or whole_chains or {first, second} == {low, high}
                    pairs = table[[first] * 8], table[[second] * 8]
                    if nearly or fingerprints._are_similar(*pairs, np.arange(8), 2.0).any():
                        roots[second] = first
    return [root(row) for row in range(count)]


def varied(seed: int, count: int, quarters: int = 4) -> list[bytes]:
    """Fingerprints of a few pictures, turned or only mirrored, with so much noise that some pairs are similar."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        pixels = np.rot90(smooth(int(rng.integers(0, 5))), int(rng.integers(0, quarters)))[
            :, :: int(rng.choice([-1, 1]))
        ]
        plain = np.frombuffer(fingerprint_of(np.ascontiguousarray(pixels)), np.uint8)
        grain = rng.normal(0, rng.choice([1, 6, 14]), FINGERPRINT_BYTES)
        grain[fingerprints.GREYS :] = rng.integers(-9, 10, FINGERPRINT_BYTES - fingerprints.GREYS) * rng.choice([0, 1])
        found.append(np.clip(plain + grain, 0, 255).astype(np.uint8).tobytes())
    return found


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 30), st.sampled_from([16, 8192]), st.booleans())
def test_the_search_finds_what_a_comparison_pair_by_pair_finds(
    seed: Any, count: Any, at_once: Any, chains: Any
) -> None:
    """With all shortcuts and threads, also where fingerprints are taken in parts."""
    prints = varied(seed, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprints, "_AT_ONCE", at_once)
        assert group_similar(prints, whole_chains=chains) == one_by_one(prints, chains)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 8))
def test_among_few_all_similar_pairs_are_found(seed: Any, count: Any) -> None:
    """Of 8 fingerprints, mirrored or not, each is a neighbour of all: by brute force there are no other pairs."""
    prints = varied(seed, count, quarters=1)
    table = np.stack([np.frombuffer(each, np.uint8) for each in prints])
    bits = fingerprints._keys(fingerprints._bits(table), fingerprints._order(0), 2).reshape(2, -1)
    roots = list(range(count))
    for turn in range(2):
        for low, high in combinations(range(count), 2):
            is_near = (int(bits[0, low]) ^ int(bits[turn, high])).bit_count() <= 12
            if is_near and are_similar(table[low], table[high][fingerprints._CELLS[turn]]):
                one, other = sorted((roots[low], roots[high]))
                roots = [one if each == other else each for each in roots]
    assert group_similar(prints, whole_chains=True) == roots


def table_of(pictures: Any) -> Any:
    return np.frombuffer(b"".join(fingerprint_of(np.ascontiguousarray(p)) for p in pictures), np.uint8).reshape(
        -1, FINGERPRINT_BYTES
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=20), st.lists(st.integers(0, 12), max_size=20), st.integers(1, 8))
def test_found_among_others_are_those_that_are_there_in_any_orientation(
    seeds: Any, other_seeds: Any, orientation: Any
) -> None:
    def turned(pixels: Any) -> Any:
        pixels = pixels.transpose(1, 0, 2) if orientation > 4 else pixels
        return encoded(np.ascontiguousarray(np.rot90(pixels, orientation % 4)))

    found = find_similar(table_of(smooth(s) for s in seeds), table_of(turned(smooth(s)) for s in other_seeds))
    assert found.tolist() == [seed in other_seeds for seed in seeds]


@pytest.mark.parametrize("place", [0, 8191, 8192, 19_999])
def test_one_of_many_is_found_wherever_it_stands(place: int) -> None:
    """Also where the others are taken in parts."""
    others = np.frombuffer(b"".join(table(20_000, 0)), np.uint8).reshape(-1, FINGERPRINT_BYTES).copy()
    prints = table_of(smooth(seed) for seed in range(3))
    others[place] = prints[1]
    assert find_similar(prints, others).tolist() == [False, True, False]
