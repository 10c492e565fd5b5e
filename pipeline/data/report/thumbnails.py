"""Thumbnails of boxes on images: each image is decoded once, no larger than needed, and cropped to the box."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.data.coco import unsafe_name
from pipeline.data.figures import PALETTE, Pixels, encode_jpeg, outline
from pipeline.data.report.box_columns import Floats
from pipeline.errors import DataError
from pipeline.serving.decoding import MAX_PIXELS, read_header

View = tuple[float, float, float, float]  # left, top, right, bottom on the image, in its pixels

_JPEG_QUALITY = 80
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
_CONTEXT = 3.5  # times its side that is shown around a small box
_LEAST_VIEW = 96  # fewest pixels of the image that a thumbnail shows across
_WHOLE = 0.6  # share of the image from which on all of it is shown
_BEYOND = 0.25  # share of the image's side by which a view may follow a box out of the image
_MARGIN = (238, 238, 238)  # grey, where there is no image
_FAINT = 0.6  # opacity of the other boxes
_WORKERS = min(4, os.cpu_count() or 1)  # each may hold an image of MAX_PIXELS


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A thumbnail to draw.

    Attributes:
        file_name: The image's file in the images folder.
        marked: `(N, 4)` boxes to mark; the first decides which part of the image is shown.
        others: `(M, 4)` other boxes, drawn thin.
    """

    file_name: str
    marked: Floats
    others: Floats


@dataclass(frozen=True)
class DrawnThumbnail:
    """A thumbnail as a JPEG file, or the reason why there is none."""

    jpeg: bytes = b""
    width: int = 0
    height: int = 0
    problem: str = ""


def draw_thumbnails(folder: Path, wanted: Sequence[Thumbnail], *, room: tuple[int, int]) -> list[DrawnThumbnail]:
    """Draw thumbnails, in the given order; an image that cannot be shown gives a problem, never an error."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, thumbnail in enumerate(wanted):
        places[thumbnail.file_name].append(place)
    made: list[DrawnThumbnail] = [DrawnThumbnail()] * len(wanted)
    with ThreadPoolExecutor(_WORKERS) as pool:  # OpenCV lets go of the interpreter lock
        groups = [[wanted[i] for i in group] for group in places.values()]
        results = pool.map(lambda group: _draw_all(folder, group, room), groups)
        for group, developed in zip(places.values(), results, strict=True):
            for place, each in zip(group, developed, strict=True):
                made[place] = each
    return made


def choose_view(width: int, height: int, box: Floats | None) -> View:
    """The part of an image that shows a box well.

    That is all of the image and a margin for a box that leaves it; for a small box a part around it, four by three.
    """
    if box is None or not np.isfinite(box).all():
        return 0.0, 0.0, float(width), float(height)
    x, y, across, down = box.tolist()
    wide = max(_LEAST_VIEW, _CONTEXT * max(across, down * 4 / 3))
    tall = wide * 3 / 4
    inside = 0 <= x + across / 2 <= width and 0 <= y + down / 2 <= height
    if inside and wide <= _WHOLE * width and tall <= _WHOLE * height:
        left = min(max(x + across / 2 - wide / 2, 0), width - wide)
        top = min(max(y + down / 2 - tall / 2, 0), height - tall)
        return left, top, left + wide, top + tall
    return (
        max(min(0.0, x), -_BEYOND * width),
        max(min(0.0, y), -_BEYOND * height),
        min(max(width, x + across), (1 + _BEYOND) * width),
        min(max(height, y + down), (1 + _BEYOND) * height),
    )


def _draw_all(folder: Path, wanted: Sequence[Thumbnail], room: tuple[int, int]) -> list[DrawnThumbnail]:
    name = wanted[0].file_name
    try:
        data = b"" if unsafe_name(name) else (folder / name).read_bytes()
        header = read_header(data)
    except FileNotFoundError:
        return [DrawnThumbnail(problem="The file is missing.")] * len(wanted)
    except (OSError, DataError):
        return [DrawnThumbnail(problem="The file is not an image that can be shown.")] * len(wanted)
    width, height = header.width, header.height
    if header.pixels > MAX_PIXELS:
        return [DrawnThumbnail(problem=f"{header.pixels / 1e6:.0f} megapixels are too many to show.")] * len(wanted)
    zoom = max(_zoom(choose_view(width, height, _first(each)), room) for each in wanted)
    pixels = _decode(data, zoom)
    if pixels is None:
        return [DrawnThumbnail(problem="The file cannot be decoded.")] * len(wanted)
    if (pixels.shape[1] > pixels.shape[0]) != (width > height) and width != height:
        width, height = height, width  # EXIF has turned it
    return [_draw(pixels, (width, height), each, room) for each in wanted]


def _decode(data: bytes, zoom: float) -> Pixels | None:
    """Decode the upright image, `(height, width, 3)` BGR, at the smallest size not below `zoom`."""
    flag = next((flag for divisor, flag in _REDUCED.items() if divisor * zoom <= 1), cv2.IMREAD_COLOR)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        return None
    return None if pixels is None else pixels.astype(np.uint8, copy=False)


def _first(thumbnail: Thumbnail) -> Floats | None:
    return thumbnail.marked[0] if len(thumbnail.marked) else None


def _zoom(view: View, room: tuple[int, int]) -> float:
    return min(room[0] / (view[2] - view[0]), room[1] / (view[3] - view[1]))


def _draw(pixels: Pixels, size: tuple[int, int], thumbnail: Thumbnail, room: tuple[int, int]) -> DrawnThumbnail:
    view = choose_view(*size, _first(thumbnail))
    zoom = _zoom(view, room)
    drawn = _cut(pixels, size, view, zoom)
    others = (thumbnail.others - [view[0], view[1], 0, 0]) * zoom
    marked = (thumbnail.marked - [view[0], view[1], 0, 0]) * zoom
    faint = drawn.copy()
    for box in others:
        outline(faint, box, "#FFFFFF", 1)
    drawn = cv2.addWeighted(faint, _FAINT, drawn, 1 - _FAINT, 0).astype(np.uint8)
    for box in marked[::-1]:
        outline(drawn, box, "#FFFFFF", 4)  # an edge, so that the box stands out on dark and on light
        outline(drawn, box, PALETTE[5], 2)
    return DrawnThumbnail(encode_jpeg(drawn, _JPEG_QUALITY), drawn.shape[1], drawn.shape[0])


def _cut(pixels: Pixels, size: tuple[int, int], view: View, zoom: float) -> Pixels:
    """The view at its final size, with a margin where it goes beyond the image."""
    across, down = pixels.shape[1] / size[0], pixels.shape[0] / size[1]  # below 1 where the decoder has reduced it
    left, top = (max(0.0, view[0]) * across, max(0.0, view[1]) * down)
    right, bottom = (min(size[0], view[2]) * across, min(size[1], view[3]) * down)
    part = pixels[int(top) : max(int(top) + 1, round(bottom)), int(left) : max(int(left) + 1, round(right))]
    shown = (
        max(1, round((min(size[0], view[2]) - max(0.0, view[0])) * zoom)),
        max(1, round((min(size[1], view[3]) - max(0.0, view[1])) * zoom)),
    )
    small = cv2.resize(part, shown, interpolation=cv2.INTER_AREA if shown[0] < part.shape[1] else cv2.INTER_LINEAR)
    before = (max(0, round(-view[1] * zoom)), max(0, round(-view[0] * zoom)))
    after = (max(0, round((view[3] - size[1]) * zoom)), max(0, round((view[2] - size[0]) * zoom)))
    margins = (before[0], after[0], before[1], after[1])
    whole: Any = cv2.copyMakeBorder(small, *margins, cv2.BORDER_CONSTANT, value=_MARGIN)
    return np.ascontiguousarray(whole, np.uint8)
