"""Small pictures of boxes on images: each image decoded once, no larger than needed, and cut to where the box is."""

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
from pipeline.data.figures import PALETTE
from pipeline.data.image_drawing import Pixels, encode_jpeg, outline
from pipeline.data.report.box_columns import Floats
from pipeline.errors import DataError
from pipeline.serving.decoding import MAX_PIXELS, read_header

View = tuple[float, float, float, float]  # left, top, right, bottom on the image, in its pixels

_JPEG_QUALITY = 80
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
_CONTEXT = 3.5  # a small box is shown with so many times its side around it
_LEAST_VIEW = 96  # pixels of the image that a picture shows at least, across
_WHOLE = 0.6  # a view of more than this share of the image might as well show all of it
_BEYOND = 0.25  # how far a view follows a box out of the image, as a share of the image's side
_MARGIN = (238, 238, 238)  # grey, where there is no image
_FAINT = 0.6  # opacity of the other boxes
_WORKERS = min(4, os.cpu_count() or 1)  # each may hold an image of MAX_PIXELS


@dataclass(frozen=True, eq=False)
class Shot:
    """A picture to be made.

    Attributes:
        file_name: Of the image, in the images folder.
        marked: `(N, 4)` boxes to look at; what is shown is chosen by the first.
        others: `(M, 4)` boxes around them, drawn thin.
    """

    file_name: str
    marked: Floats
    others: Floats


@dataclass(frozen=True)
class Developed:
    """What became of a shot: a JPEG file, or the reason why there is none."""

    jpeg: bytes = b""
    width: int = 0
    height: int = 0
    problem: str = ""


def develop(folder: Path, shots: Sequence[Shot], *, room: tuple[int, int]) -> list[Developed]:
    """Make small pictures, in the order of the shots; what cannot be shown is told, never raised.

    Args:
        folder: Where the images are.
        shots: Which pictures.
        room: Width and height in pixels that a picture is fitted into.
    """
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, shot in enumerate(shots):
        places[shot.file_name].append(place)
    made: list[Developed] = [Developed()] * len(shots)
    with ThreadPoolExecutor(_WORKERS) as pool:  # OpenCV lets go of the interpreter lock
        groups = [[shots[i] for i in group] for group in places.values()]
        results = pool.map(lambda group: _develop(folder, group, room), groups)
        for group, developed in zip(places.values(), results, strict=True):
            for place, each in zip(group, developed, strict=True):
                made[place] = each
    return made


def choose_view(width: int, height: int, box: Floats | None) -> View:
    """What part of an image shows a box well.

    All of the image, and as far beyond as the box goes, within reason; of an image that is much larger than the box,
    a part around it, four by three.
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


def _develop(folder: Path, shots: Sequence[Shot], room: tuple[int, int]) -> list[Developed]:
    name = shots[0].file_name
    try:
        data = b"" if unsafe_name(name) else (folder / name).read_bytes()
        header = read_header(data)
    except FileNotFoundError:
        return [Developed(problem="The file is missing.")] * len(shots)
    except (OSError, DataError):
        return [Developed(problem="The file is not a picture that can be shown.")] * len(shots)
    width, height = header.width, header.height
    if header.pixels > MAX_PIXELS:
        return [Developed(problem=f"{header.pixels / 1e6:.0f} megapixels are too many to show.")] * len(shots)
    zoom = max(_zoom(choose_view(width, height, _first(each)), room) for each in shots)
    pixels = _decode(data, zoom)
    if pixels is None:
        return [Developed(problem="The file cannot be decoded.")] * len(shots)
    if (pixels.shape[1] > pixels.shape[0]) != (width > height) and width != height:
        width, height = height, width  # EXIF has turned it
    return [_shoot(pixels, (width, height), each, room) for each in shots]


def _decode(data: bytes, zoom: float) -> Pixels | None:
    """The image upright, `(height, width, 3)` BGR, at the smallest size that is not below `zoom`."""
    flag = next((flag for divisor, flag in _REDUCED.items() if divisor * zoom <= 1), cv2.IMREAD_COLOR)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        return None
    return None if pixels is None else pixels.astype(np.uint8, copy=False)


def _first(shot: Shot) -> Floats | None:
    return shot.marked[0] if len(shot.marked) else None


def _zoom(view: View, room: tuple[int, int]) -> float:
    return min(room[0] / (view[2] - view[0]), room[1] / (view[3] - view[1]))


def _shoot(pixels: Pixels, size: tuple[int, int], shot: Shot, room: tuple[int, int]) -> Developed:
    view = choose_view(*size, _first(shot))
    zoom = _zoom(view, room)
    picture = _cut(pixels, size, view, zoom)
    others = (shot.others - [view[0], view[1], 0, 0]) * zoom
    marked = (shot.marked - [view[0], view[1], 0, 0]) * zoom
    faint = picture.copy()
    for box in others:
        outline(faint, box, "#FFFFFF", 1)
    picture = cv2.addWeighted(faint, _FAINT, picture, 1 - _FAINT, 0).astype(np.uint8)
    for box in marked[::-1]:
        outline(picture, box, "#FFFFFF", 4)  # an edge, so that the box stands out on dark and on light
        outline(picture, box, PALETTE[5], 2)
    return Developed(encode_jpeg(picture, _JPEG_QUALITY), picture.shape[1], picture.shape[0])


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
