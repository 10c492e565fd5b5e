"""LabelMe: one JSON file an image, with shapes.

Reference: https://github.com/wkentaro/labelme. Coordinates are pixels of the upright picture, which the tool shows.
What encloses an area gets the box around it: rectangle (by all its points, so a turned one too), polygon, circle
(centre and a point on it), and mask (whose two corners are pixels it includes). Lines and points have no area.

A shape whose flags, or fields, have `crowd`, `iscrowd`, `ignore` or `difficult` set is a region that is not judged.
Shapes of one `group_id` stay apart: groups may be of anything, and the boxes drawn are what was meant to be found.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from pipeline.data.boxes import Point, flat, hull, polygon_area
from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Recognition, claim
from pipeline.data.formats.field_values import label, number, shown, whole
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.parsed import ParsedBox, ParsedImage, to_coco
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

LOOKS_FOR = "JSON files with shapes and an imagePath"
_NOT_JUDGED = ("crowd", "iscrowd", "ignore", "difficult")
_POINTS = {"rectangle": 2, "rotation": 3, "polygon": 3, "circle": 2, "mask": 2}  # how many at least


def recognises(files: AnnotationFiles) -> Recognition:
    """Whether one of the files has shapes."""
    why_not = ""
    for name in files.ending(".json"):
        if files.has_json_keys(name, "shapes"):
            if files.has_json_keys(name, "imagePath"):
                return Recognition(name)
            why_not = why_not or f"{name} has shapes, but no 'imagePath'"
    return Recognition(why_not=why_not)


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the shapes of each image. Other JSON files are left out, and so are shapes without an area: it is said.

    Raises:
        DataError: A file is broken; says at which shape.
    """
    pictures, claims, without_area = list[ParsedImage](), dict[str, str](), Counter[str]()
    for name in files.ending(".json"):
        if files.has_json_keys(name, "shapes", "imagePath"):
            content = files.json(name)
            if isinstance(content, dict) and isinstance(content.get("shapes"), list):
                pictures.append(_picture(name, content, images, without_area))
                if pictures[-1].name in images.names:
                    claim(claims, pictures[-1].name, name)
    if without_area:
        kinds = ", ".join(f"{count} of kind '{kind}'" for kind, count in sorted(without_area.items()))
        logger.info("shapes left out, as they have no area: %s", kinds)
    return to_coco(pictures)


def _picture(file: str, content: dict[str, Any], images: ImageIndex, without_area: Counter[str]) -> ParsedImage:
    beside, own = PurePosixPath(file).parent.as_posix(), PurePosixPath(file).stem
    path = content.get("imagePath")
    if path is not None and not isinstance(path, str):
        raise DataError(f"'imagePath' is {shown(path)}", where=file, expected="the image's path")
    name = images.resolve(path, beside) if path else None
    name = name or images.resolve(own, beside) or images.name_of(path or own, file, beside)
    marks, lost = list[ParsedBox](), False
    for i, shape in enumerate(content["shapes"]):
        where = f"{file}: shapes[{i}]"
        if not isinstance(shape, dict):
            raise DataError(f"A shape is {shown(shape)} where an object was expected", where=where)
        points, kind = _points(shape.get("points"), where), str(shape.get("shape_type") or "polygon")
        if kind not in _POINTS:
            without_area[shown(kind).strip("'")] += 1
            lost = True
        else:
            marks.append(_mark(shape, kind, points, where))
    return ParsedImage(name, *_size(file, content, name, images), marks, images.subset_of(beside), unusable=lost)


def _points(raw: Any, where: str) -> list[Point]:
    if not isinstance(raw, list) or not all(isinstance(point, list) and len(point) == 2 for point in raw):
        raise DataError(f"'points' is {shown(raw)}", where=where, expected="a list of points [x, y]")
    return [(number(x, "A point's x", where), number(y, "A point's y", where)) for x, y in raw]


def _mark(shape: dict[str, Any], kind: str, points: list[Point], where: str) -> ParsedBox:
    if len(points) < _POINTS[kind]:
        problem = f"A {kind} has {len(points)} points"
        raise DataError(problem, where=where, expected=f"at least {_POINTS[kind]}", remedy="draw it again")
    name, crowd = label(shape.get("label"), where), int(_not_judged(shape))
    if kind == "circle":
        (x, y), edge = points[0], points[1]
        radius = math.dist((x, y), edge)
        box = (x - radius, y - radius, 2 * radius, 2 * radius)
        return ParsedBox(name, box, crowd, area=math.pi * radius**2)
    x, y, across, down = hull(points)
    if kind == "mask":
        return ParsedBox(name, (x, y, across + 1, down + 1), crowd)
    if kind == "polygon" or len(points) > 2:
        return ParsedBox(name, (x, y, across, down), crowd, [flat(points)], polygon_area(points))
    return ParsedBox(name, (x, y, across, down), crowd)


def _not_judged(shape: dict[str, Any]) -> bool:
    flags = shape.get("flags")
    places = (shape, flags if isinstance(flags, dict) else {})
    return any(place.get(flag) in (True, 1) for place in places for flag in _NOT_JUDGED)


def _size(file: str, content: dict[str, Any], name: str, images: ImageIndex) -> tuple[int, int]:
    declared = content.get("imageWidth"), content.get("imageHeight")
    if not all(declared):
        return images.size(name)
    width, height = (whole(each, "The image's size", file) for each in declared)
    if width < 0 or height < 0:
        raise DataError(f"The image's size is {width}x{height}", where=file, remedy="correct it there")
    return width, height
