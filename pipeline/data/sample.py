"""The embedded sample: images of four plain shapes, drawn locally, the same for the same seed.

It lets the whole pipeline run in minutes on a CPU: a small detector learns it from scratch. It has some difficulties of
real photographs: four classes of unequal number, any rotation, a threefold range of sizes, textured and noisy
backgrounds, clutter of no class, mild overlap, and a few images without objects.

The same versions of numpy and OpenCV give the same bytes; every image depends only on the seed and its own number.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.data.coco import Annotation, Box, Category, CocoDataset, Image
from pipeline.errors import UsageError

Pixels = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

CLASSES = ("circle", "square", "triangle", "star")

_EXAMPLE = "sample://shapes?images=240&size=256&seed=7"
_CLASS_SHARES = (0.3, 0.28, 0.24, 0.18)
_CORNERS = (72, 4, 3, 10)
_EMPTY_SHARE = 0.04  # images with clutter only
_MAX_OBJECTS = 8
_LEAST_VISIBLE = 0.85  # share of a shape that later ones may not cover
_MIN_CONTRAST = 70.0  # BGR distance between a shape and the background
_SUBPIXEL = 4  # fractional bits of the coordinates cv2 draws with


@dataclass(frozen=True)
class SampleSpec:
    """A sample to draw: the number of images, their side in pixels, the seed."""

    images: int = 240
    size: int = 256
    seed: int = 7


@dataclass
class DrawnShape:
    """An object: its mask of 0..255, and which of its pixels later shapes have left visible."""

    category_id: int
    mask: Pixels
    visible: npt.NDArray[np.bool_]

    @property
    def box(self) -> Box:
        """Tight around what is visible, to the pixel."""
        columns, rows = np.flatnonzero(self.visible.any(axis=0)), np.flatnonzero(self.visible.any(axis=1))
        left, top = float(columns[0]), float(rows[0])
        return left, top, float(columns[-1]) + 1 - left, float(rows[-1]) + 1 - top


def parse_sample_url(url: str) -> SampleSpec:
    """Parse a URL such as `sample://shapes?images=240&size=256&seed=7`; these values are the defaults."""
    parts = urlsplit(url)
    if parts.scheme != "sample" or parts.netloc != "shapes" or parts.path not in {"", "/"}:
        raise UsageError(f"there is no sample '{url}'", expected=_EXAMPLE)
    query = parse_qsl(parts.query, keep_blank_values=True)
    known = {each.name for each in fields(SampleSpec)}
    values = {key: int(value) for key, value in query if key in known and value.isascii() and value.isdigit()}
    spec = SampleSpec(**values)
    if len(values) < len(query) or not 1 <= spec.images <= 100_000 or not 64 <= spec.size <= 2048:
        expected = "at most each once: images of 1-100000, size of 64-2048 pixels, seed; all whole numbers"
        raise UsageError("the sample cannot be drawn so", where=url, expected=expected)
    return spec


def make_sample(folder: Path, *, images: int = 240, size: int = 256, seed: int = 7) -> CocoDataset:
    """Draw the sample as JPEG files. Boxes are tight around the visible part of each shape, to the pixel."""
    folder.mkdir(parents=True, exist_ok=True)

    def draw(image: Image) -> list[tuple[int, int, Box]]:
        rng = np.random.default_rng((seed, image.id))
        shapes = compose(rng, size)
        canvas = render(rng, size, [shape.mask for shape in shapes])
        encoded = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        (folder / image.file_name).write_bytes(encoded.tobytes())
        return [(image.id, shape.category_id, shape.box) for shape in shapes]

    records = tuple(Image(number, f"shapes_{number:06d}.jpg", size, size) for number in range(1, images + 1))
    with ThreadPoolExecutor() as pool:  # OpenCV lets go of the interpreter lock
        drawn = list(chain.from_iterable(pool.map(draw, records)))
    annotations = tuple(
        Annotation(number, image_id, category_id, box, box[2] * box[3])
        for number, (image_id, category_id, box) in enumerate(drawn, 1)
    )
    categories = tuple(Category(i, name, "shape") for i, name in enumerate(CLASSES, 1))
    info = {"description": "Embedded sample of shapes", "images": images, "size": size, "seed": seed}
    return CocoDataset(records, annotations, categories, info)


def compose(rng: np.random.Generator, size: int) -> list[DrawnShape]:
    """Place shapes, from back to front; none hides much of another."""
    shapes: list[DrawnShape] = []
    wanted = 0 if rng.random() < _EMPTY_SHARE else int(rng.integers(1, _MAX_OBJECTS + 1))
    tries = 0
    while len(shapes) < wanted and tries < 12 * wanted:
        tries += 1
        category = int(rng.choice(len(CLASSES), p=_CLASS_SHARES))
        radius = size * np.exp(rng.uniform(np.log(0.07), np.log(0.22)))
        centre = rng.uniform(radius, size - radius, 2)
        mask: Pixels = np.zeros((size, size), np.uint8)
        _fill(mask, _outline(category, rng.uniform(0, 2 * np.pi)) * radius + centre, (255.0,))
        solid = mask > 127
        left = [shape.visible & ~solid for shape in shapes]
        visible = [now.sum() / (shape.mask > 127).sum() for now, shape in zip(left, shapes, strict=True)]
        if min(visible, default=1) < _LEAST_VISIBLE:
            continue
        for now, shape in zip(left, shapes, strict=True):
            shape.visible = now
        shapes.append(DrawnShape(category + 1, mask, solid))
    return shapes


def render(rng: np.random.Generator, size: int, masks: list[Pixels]) -> Pixels:
    """Draw the image `(size, size, 3)` BGR: background, clutter, shapes, and a camera's noise over all."""
    canvas = _background(rng, size)
    for _ in range(rng.integers(0, 4)):
        _draw_clutter(rng, canvas)
    for mask in masks:
        left, top, width, height = cv2.boundingRect(mask)
        inside = slice(top, top + height), slice(left, left + width)
        _paint(rng, canvas[inside], mask[inside])
    noise = rng.standard_normal(canvas.shape, np.float32) * np.float32(rng.uniform(1, 7))
    noisy: Pixels = np.clip(canvas + noise, 0, 255).astype(np.uint8)
    return noisy


def _paint(rng: np.random.Generator, canvas: Pixels, mask: Pixels) -> None:
    behind = canvas[mask > 127].mean(axis=0)
    colour = rng.uniform(0, 255, 3)
    while np.linalg.norm(colour - behind) < _MIN_CONTRAST:
        colour = rng.uniform(0, 255, 3)
    along = _ramp(rng, *mask.shape)
    style = rng.integers(3)
    shade = np.zeros(mask.shape)
    if style == 1:
        shade = (along - 0.5) * rng.uniform(60, 150)
    if style == 2:
        shade = np.sign(np.sin(along * rng.uniform(15, 40))) * 14
    alpha = mask[..., None] / 255.0
    canvas[:] = np.clip(canvas * (1 - alpha) + (colour + shade[..., None]) * alpha, 0, 255).astype(np.uint8)


def _background(rng: np.random.Generator, size: int) -> Pixels:
    first, second = rng.uniform(20, 235, (2, 3))
    style = rng.integers(4)
    if style == 0:
        mix: Points = np.zeros((size, size))
    elif style == 1:
        mix = _ramp(rng, size, size)
    elif style == 2:
        coarse = rng.random((int(rng.integers(4, 24)),) * 2).astype(np.float32)
        mix = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.float64) * 0.6
    else:
        mix = (np.sin(_ramp(rng, size, size) * rng.uniform(10, 60)) + 1) * 0.2
    pixels: Pixels = np.clip(first + (second - first) * mix[..., None], 0, 255).astype(np.uint8)
    return pixels


def _draw_clutter(rng: np.random.Generator, canvas: Pixels) -> None:
    size = canvas.shape[0]
    colour = tuple(float(value) for value in rng.uniform(0, 255, 3))
    centre = tuple(int(value) for value in rng.integers(0, size, 2))
    angle = float(rng.uniform(0, 180))
    long = float(rng.uniform(0.06, 0.25) * size)
    style = rng.integers(3)
    if style == 0:
        end = tuple(int(value) for value in rng.integers(0, size, 2))
        cv2.line(canvas, centre, end, colour, int(rng.integers(1, 3)), cv2.LINE_AA)
    elif style == 1:
        corners = cv2.boxPoints((centre, (long, long * rng.uniform(0.1, 0.25)), angle))
        _fill(canvas, corners.astype(np.float64), colour)
    else:
        axes = (int(long / 2), max(1, int(long * rng.uniform(0.06, 0.15))))
        cv2.ellipse(canvas, centre, axes, angle, 0, 360, colour, -1, cv2.LINE_AA)


def _ramp(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float64]:
    """A slope from about 0 to 1 in any direction, `(height, width)`."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.linspace(-0.5, 0.5, height)[:, None], np.linspace(-0.5, 0.5, width)[None]
    slope: npt.NDArray[np.float64] = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2) + 0.5
    return slope


def _fill(canvas: Pixels, corners: Points, colour: tuple[float, ...]) -> None:
    fixed = np.round(corners * (1 << _SUBPIXEL)).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], colour, cv2.LINE_AA, _SUBPIXEL)


def _outline(category: int, angle: float) -> Points:
    """The corners of a shape in the unit circle, `(corners, 2)`."""
    count = _CORNERS[category]
    angles = angle + np.arange(count) * 2 * np.pi / count
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if CLASSES[category] == "star":
        corners[1::2] *= 0.42
    return corners
