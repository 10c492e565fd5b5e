"""Properties by which the test images are divided: their objects, brightness and shape, and fields of their records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.data.figures import read_shades
from pipeline.metrics.coco_matching import Bools, Floats, Ints
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.serving.settings import available_cpus

_MOST_VALUES = 10  # of a field; with more, numbers are divided into quartiles, and texts are names
_MOST_COUNTS = 4  # of objects on an image; with more, the counts are divided into quartiles
_QUARTILES = (0.25, 0.5, 0.75)
_ID = re.compile(r"(?:^|_)(?:id|Id|ID)$|[a-z]I[dD]$")
_SHAPES = (  # name, and the least ratio of width to height
    ("upright", 0.0),
    ("about square", 4 / 5),
    ("wide, up to 8:5", 5 / 4),
    ("wider than 8:5", 8 / 5),
)


@dataclass(frozen=True)
class Division:
    """The images of each value, or range of values, of a property; an image without a value is nowhere."""

    name: str
    parts: Mapping[str, Bools]  # `(I,)` which of the images, in the order of their ids


@dataclass(frozen=True)
class Divisions:
    """The properties by which the images of a test set can be divided, those without a difference left out."""

    found: tuple[Division, ...]
    left_out: tuple[str, ...]  # fields whose values are names or numbers of the images, or no plain values


def divide_images(truth: GroundTruth) -> Divisions:
    """Divide the images by the objects on them, by brightness and shape, and by the fields of their records.

    Raises:
        MissingError: An image of the test set is missing.
        DataError: An image cannot be decoded.
    """
    images = sorted(truth.images, key=lambda image: image.id)
    ratio = np.array([image.width / image.height for image in images])
    own = (
        Division("objects per image", _by_count(_objects(truth))),
        Division("brightness, 0 to 255", _by_range(_brightness(truth))),
        Division("shape", _by_shape(ratio)),
    )
    names = sorted({name for image in images for name in image.extra})
    columns = {name: [image.extra.get(name) for image in images] for name in names}
    by_field = {name: divide_by_field(name, values) for name, values in columns.items()}
    of_fields = [Division(name, parts) for name, parts in by_field.items() if parts]
    return Divisions(
        found=tuple(each for each in (*own, *of_fields) if len(each.parts) > 1),
        left_out=tuple(name for name, parts in by_field.items() if parts is None),
    )


def divide_by_field(name: str, values: Sequence[Any]) -> dict[str, Bools] | None:
    """Divide images by their values of a field, of which there are few, or which are numbers; None otherwise.

    Whole numbers that are all different, or of a field whose name ends in "id", only number the images. An image
    whose value is None or an empty text has none.
    """
    has_value = np.array([value not in (None, "") for value in values])
    known = [value for value in values if value not in (None, "")]
    if not all(isinstance(value, str | int | float) for value in known):
        return None
    words = np.array([_word(value) for value in values])
    distinct = sorted({(isinstance(value, str), value) for value in known})
    if len(distinct) <= _MOST_VALUES and 2 * len(distinct) <= max(len(known), 2):
        return {_word(value): has_value & (words == _word(value)) for _, value in distinct}
    if any(isinstance(value, str) for value in known) or _ID.search(name):
        return None
    if len(distinct) == len(known) and all(isinstance(value, int) for value in known):
        return None
    return _by_range(np.array([np.nan if value in (None, "") else value for value in values], np.float64))


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _objects(truth: GroundTruth) -> Ints:
    """Number of objects on each image, without crowd regions."""
    ids = np.array(sorted(image.id for image in truth.images), np.int64)
    of_objects = np.array([each.image_id for each in truth.annotations if not each.iscrowd], np.int64)
    return np.bincount(np.searchsorted(ids, of_objects), minlength=len(ids))


def _brightness(truth: GroundTruth) -> Floats:
    """The mean shade of grey of each image, a whole number from 0 to 255."""
    paths = [truth.path_of(image.file_name) for image in sorted(truth.images, key=lambda image: image.id)]
    with ThreadPoolExecutor(available_cpus()) as pool:
        means = pool.map(lambda path: read_shades(path).mean().round(), paths)
        return np.array(list(tqdm(means, "brightness", len(paths), unit="img", ascii=True)), np.float64)


def _by_count(counts: Ints) -> dict[str, Bools]:
    """Images without objects by themselves, and the others by each count, or by quartiles."""
    some = counts[counts > 0]
    if len(np.unique(some)) <= _MOST_COUNTS:
        return {str(count): counts == count for count in np.unique(counts).tolist()}
    empty = {"0": counts == 0} if len(some) < len(counts) else {}
    return empty | _by_range(np.where(counts > 0, counts, np.nan))


def _by_shape(ratio: Floats) -> dict[str, Bools]:
    place = np.searchsorted([least for _, least in _SHAPES], ratio, side="right") - 1
    return {name: place == number for number, (name, _) in enumerate(_SHAPES) if (place == number).any()}


def _by_range(values: Floats) -> dict[str, Bools]:
    """Quartiles, named by their least and greatest value; fewer where many values are equal. NaN is in none."""
    known = values[np.isfinite(values)]
    place = np.searchsorted(np.quantile(known, _QUARTILES), values)
    parts = [np.isfinite(values) & (place == number) for number in range(len(_QUARTILES) + 1)]
    return {_range(values[part]): part for part in parts if part.any()}


def _range(values: Floats) -> str:
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return low if low == high else f"{low} to {high}"
