"""The embedded sample: images of four plain shapes, drawn locally, the same for the same seed.

It lets the whole pipeline run in minutes on a CPU: a small detector learns it from scratch. It has some difficulties of
real photographs: four classes of unequal number, any rotation, a threefold range of sizes, textured and noisy
backgrounds, clutter of no class, mild overlap, and a few images without objects.

The same versions of numpy and OpenCV give the same bytes; every image depends only on the seed and its own number.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import cv2
import numpy as np

from pipeline.data.coco import Annotation, Box, Category, CocoDataset, Image
from pipeline.data.sample.drawing import CLASSES, compose, render
from pipeline.errors import DataError, UsageError, did_you_mean

_EXAMPLE = "sample://shapes?images=240&size=256&seed=7"


@dataclass(frozen=True)
class SampleSpec:
    """A sample to draw: the number of images, their side in pixels, the seed."""

    images: int = 240
    size: int = 256
    seed: int = 7


def parse_sample_url(url: str) -> SampleSpec:
    """Parse a URL such as `sample://shapes?images=240&size=256&seed=7`; these values are the defaults.

    Raises:
        UsageError: The sample, or a key of the query, is unknown, or a value is out of range.
    """
    parts = urlsplit(url)
    if parts.scheme != "sample" or parts.netloc != "shapes" or parts.path not in {"", "/"}:
        raise UsageError(f"there is no sample '{url}'", expected=_EXAMPLE)
    known = [each.name for each in fields(SampleSpec)]
    values: dict[str, int] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in known:
            remedy = did_you_mean(key, known, otherwise=f"there are: {', '.join(known)}")
            raise UsageError(f"the sample URL has an unknown key '{key}'", where=url, remedy=remedy)
        if key in values or not value.isascii() or not value.isdigit():
            raise UsageError(f"the sample URL's '{key}' is not one whole number", where=url, expected=_EXAMPLE)
        values[key] = int(value)
    return _checked(SampleSpec(**values), url)


def make_sample(folder: Path, *, images: int = 240, size: int = 256, seed: int = 7) -> CocoDataset:
    """Draw the sample into a folder as JPEG files.

    Args:
        folder: The folder to write to.
        images: The number of images.
        size: Their side in pixels.
        seed: The seed.

    Returns:
        The annotations: boxes tight around the visible part of each shape, to the pixel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return _dataset(_checked(SampleSpec(images, size, seed), folder), folder)


def sample_dataset(spec: SampleSpec) -> CocoDataset:
    """The annotations that `make_sample` returns, without writing any image."""
    return _dataset(spec, None)


def _checked(spec: SampleSpec, where: object) -> SampleSpec:
    if not 1 <= spec.images <= 100_000 or not 64 <= spec.size <= 2048:
        raise UsageError("the sample cannot be drawn so", where=where, expected="1-100000 images, size 64-2048 pixels")
    return spec


def _dataset(spec: SampleSpec, folder: Path | None) -> CocoDataset:
    with ThreadPoolExecutor() as pool:  # OpenCV lets go of the interpreter lock
        drawn = list(pool.map(partial(_draw_image, spec, folder), range(1, spec.images + 1)))
    images: list[Image] = []
    annotations: list[Annotation] = []
    for image, shapes in drawn:
        images.append(image)
        for category_id, box in shapes:
            number = len(annotations) + 1
            annotations.append(Annotation(number, image.id, category_id, box, box[2] * box[3]))
    categories = tuple(Category(i, name, "shape") for i, name in enumerate(CLASSES, 1))
    info = {"description": "Embedded sample of shapes", "images": spec.images, "size": spec.size, "seed": spec.seed}
    return CocoDataset(tuple(images), tuple(annotations), categories, info)


def _draw_image(spec: SampleSpec, folder: Path | None, number: int) -> tuple[Image, list[tuple[int, Box]]]:
    rng = np.random.default_rng((spec.seed, number))
    shapes = compose(rng, spec.size)
    image = Image(number, f"shapes_{number:06d}.jpg", spec.size, spec.size)
    if folder is not None:
        canvas = render(rng, spec.size, [shape.mask for shape in shapes])
        done, encoded = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 92])
        if not done:
            raise DataError("OpenCV cannot encode an image of the sample", where=image.file_name)
        (folder / image.file_name).write_bytes(encoded.tobytes())
    return image, [(shape.category_id, shape.box) for shape in shapes]
