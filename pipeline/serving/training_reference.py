"""How much an image differs from those that the model learned from, by their fingerprints in the packed record.

Two thumbnails with much contrast are far apart whatever they show, and a dark one is near to everything. So images are
compared by 22 features of their fingerprints, each with mean 0 and standard deviation 1 over the training images:
brightness, the logarithm of the contrast, mean and spread of the two colour differences, and the layout, 4 x 4 shades
of grey with mean 0 and standard deviation 1. On photographs of COCO, of which 5 % are by definition farther from
the others than the limit, this finds 86 % where they are at a third of their brightness, 68 % in fog and 34 % without
colours. The distance of the plain thumbnails finds at most 1 % of the first two.
"""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.serving.image_fingerprint import COLOUR_SIDE, FINGERPRINT_BYTES, GREYS, LEAST_CONTRAST, SIDE

log = logging.getLogger(__name__)

RECORD_FILE = "learned_images.npz"
"""At the root of a Bento, beside the folder of the service."""
PROPERTIES = ("brightness", "contrast", "red", "blue", "distance")
"""What the drift is told of; all but the last are the first features."""
BINS = 10
LEAST_IMAGES = 150
"""With fewer training images the drift would be noise: without any, it is about 9 / 500 + 9 / N."""

_MOST_IMAGES = 2048  # an image is compared with in 20 µs
_PARTS = 4  # of a side of the layout
_UNUSUAL = 0.95
_LEAST_SPREAD = 1e-3  # of a feature that is the same in all training images


@dataclass(frozen=True)
class Comparison:
    """An image beside the training images."""

    distance: float  # to the nearest of them, in standard deviations of the features
    bins: tuple[int, ...]  # which of the `BINS` ranges of each of the `PROPERTIES` it falls into


class TrainingReference:
    """The images that a model learned from, evenly chosen ones where there are many.

    Args:
        fingerprints: `(N, FINGERPRINT_BYTES)`, N at least `LEAST_IMAGES`.
    """

    def __init__(self, fingerprints: NDArray[np.uint8]) -> None:
        chosen = np.linspace(0, len(fingerprints) - 1, min(len(fingerprints), _MOST_IMAGES)).round().astype(np.intp)
        features = features_of(fingerprints[chosen])
        self._mean, self._spread = features.mean(axis=0), np.maximum(features.std(axis=0), _LEAST_SPREAD)
        self._table = (features - self._mean) / self._spread
        self._squares = (self._table**2).sum(axis=1)
        distances = self._distances_to_another()
        self.unusual = float(np.quantile(distances, _UNUSUAL))
        """The distance that 95 % of the training images keep to their nearest other one."""
        columns = [*features.T[: len(PROPERTIES) - 1], distances]
        self._edges = [np.quantile(column, np.arange(1, BINS) / BINS) for column in columns]
        counts = [
            np.bincount(np.searchsorted(edges, column, side="right"), minlength=BINS)
            for edges, column in zip(self._edges, columns, strict=True)
        ]
        self.shares: NDArray[np.float64] = np.array(counts) / len(features)
        """Of the training images in each range, `(len(PROPERTIES), BINS)`."""

    @property
    def images(self) -> int:
        """How many training images an image is compared with."""
        return len(self._table)

    def compare(self, fingerprint: bytes) -> Comparison:
        """Compare an image, also a flat one, by its fingerprint."""
        (features,) = features_of(np.frombuffer(fingerprint, np.uint8)[None])
        place = (features - self._mean) / self._spread
        nearest = float((self._squares - 2 * (self._table @ place)).min() + place @ place)
        distance = max(nearest, 0.0) ** 0.5
        values = [*features[: len(PROPERTIES) - 1].tolist(), distance]
        bins = (int(edges.searchsorted(value, side="right")) for edges, value in zip(self._edges, values, strict=True))
        return Comparison(distance, tuple(bins))

    def _distances_to_another(self) -> NDArray[np.float32]:
        """Of each image to its nearest other one, `(N,)`."""
        found = np.empty(len(self._table), np.float32)
        for i, place in enumerate(self._table):
            squared = self._squares - 2 * (self._table @ place) + self._squares[i]
            squared[i] = np.inf
            found[i] = max(float(squared.min()), 0.0) ** 0.5
        return found


def features_of(fingerprints: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The features `(N, 22)` of fingerprints `(N, FINGERPRINT_BYTES)`, the first four by `PROPERTIES`."""
    greys = fingerprints[:, :GREYS].astype(np.float32)
    colours = fingerprints[:, GREYS:].reshape(-1, COLOUR_SIDE * COLOUR_SIDE, 2).astype(np.float32)
    brightness = greys.mean(axis=1, keepdims=True)
    contrast = np.maximum(greys.std(axis=1, keepdims=True), LEAST_CONTRAST)
    cells = SIDE // _PARTS
    layout = (greys - brightness).reshape(-1, _PARTS, cells, _PARTS, cells).mean(axis=(2, 4)).reshape(-1, _PARTS**2)
    parts = (brightness, np.log(contrast), colours.mean(axis=1), np.log1p(colours.std(axis=1)), layout / contrast)
    return np.concatenate(parts, axis=1)


def read_reference(record: Path) -> TrainingReference | None:
    """Read the training images from the record in a Bento; None, with a note in the log, where that is of no use."""
    try:
        with np.load(record, allow_pickle=False) as file:
            prints = _fingerprints(dict(file))
    except FileNotFoundError:
        log.warning("the Bento has no %s: requests are not compared with the training images", RECORD_FILE)
        return None
    except (OSError, ValueError, EOFError, TypeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("requests are not compared with the training images: %s cannot be read: %s", record, error)
        return None
    if len(prints) < LEAST_IMAGES:
        log.warning(
            "requests are not compared with the training images: there are %d with a fingerprint, fewer than %d",
            len(prints),
            LEAST_IMAGES,
        )
        return None
    return TrainingReference(prints)


def _fingerprints(arrays: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Those of a record, without flat images, whose rows are zeros."""
    prints = arrays["looks"]
    if prints.dtype != np.uint8 or prints.ndim != 2 or prints.shape[1] != FINGERPRINT_BYTES:
        raise ValueError(f"its fingerprints are {prints.dtype} {prints.shape}")
    return prints[prints.any(axis=1)]
