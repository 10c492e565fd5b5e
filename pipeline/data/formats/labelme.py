"""LabelMe: one JSON file with shapes for each image.

Reference: https://github.com/wkentaro/labelme. Coordinates are pixels of the upright image. A shape with an area gives
the box around it: rectangle (turned or not), polygon, circle (centre and a point on it), and mask (whose two corners
are pixels inside it). Lines and points have no area.

A shape whose flags or fields have `crowd`, `iscrowd`, `ignore` or `difficult` set is a region that is not judged.
Shapes of one `group_id` stay apart: groups may mean anything.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from pipeline.data.boxes import Point, flat, hull, polygon_area
from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import (
    AnnotationFiles,
    Recognition,
    claim,
    declared_size,
    label,
    number,
    shown,
)
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.parsed import ParsedBox, ParsedImage, to_coco
from pipeline.errors import DataError

log = logging.getLogger(__name__)

LOOKS_FOR = "JSON files with shapes and an imagePath"
_NOT_JUDGED = ("crowd", "iscrowd", "ignore", "difficult")
_POINTS = {"rectangle": 2, "rotation": 3, "polygon": 3, "circle": 2, "mask": 2}  # least number of points


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
    """Read the shapes of each image, without other JSON files and shapes without an area; the log counts the latter.

    Raises:
        DataError: A file is broken; names the shape.
    """
    found, claims, without_area = list[ParsedImage](), dict[str, str](), Counter[str]()
    for name in files.ending(".json"):
        if files.has_json_keys(name, "shapes", "imagePath"):
            content = files.json(name)
            if isinstance(content, dict) and isinstance(content.get("shapes"), list):
                found.append(_image(name, content, images, without_area))
                if found[-1].name in images.names:
                    claim(claims, found[-1].name, name)
    if without_area:
        kinds = ", ".join(f"{count} of kind '{kind}'" for kind, count in sorted(without_area.items()))
        log.info("skipped shapes without an area: %s", kinds)
    return to_coco(found)


def _image(file: str, content: dict[str, Any], images: ImageIndex, without_area: Counter[str]) -> ParsedImage:
    beside, own = PurePosixPath(file).parent.as_posix(), PurePosixPath(file).stem
    path = content.get("imagePath")
    if path is not None and not isinstance(path, str):
        raise DataError(f"'imagePath' is {shown(path)}", where=file, expected="the image's path")
    name = images.resolve(path, beside) if path else None
    name = name or images.resolve(own, beside) or images.name_of(path or own, file, beside)
    boxes, unusable = list[ParsedBox](), False
    for i, shape in enumerate(content["shapes"]):
        where = f"{file}: shapes[{i}]"
        if not isinstance(shape, dict):
            raise DataError(f"a shape is {shown(shape)} where an object was expected", where=where)
        points, kind = _points(shape.get("points"), where), str(shape.get("shape_type") or "polygon")
        if kind not in _POINTS:
            without_area[shown(kind).strip("'")] += 1
            unusable = True
        else:
            boxes.append(_box(shape, kind, points, where))
    size = declared_size(content.get("imageWidth"), content.get("imageHeight"), file) or images.size(name)
    return ParsedImage(name, *size, boxes, images.subset_of(beside), unusable=unusable)


def _points(raw: Any, where: str) -> list[Point]:
    if not isinstance(raw, list) or not all(isinstance(point, list) and len(point) == 2 for point in raw):
        raise DataError(f"'points' is {shown(raw)}", where=where, expected="a list of points [x, y]")
    return [(number(x, "a point's x", where), number(y, "a point's y", where)) for x, y in raw]


def _box(shape: dict[str, Any], kind: str, points: list[Point], where: str) -> ParsedBox:
    if len(points) < _POINTS[kind]:
        problem = f"a {kind} has {len(points)} points"
        raise DataError(problem, where=where, expected=f"at least {_POINTS[kind]}", remedy="draw it again")
    name, crowd = label(shape.get("label"), where), int(_is_crowd(shape))
    if kind == "circle":
        (x, y), edge = points[0], points[1]
        radius = math.dist((x, y), edge)
        return ParsedBox(name, (x - radius, y - radius, 2 * radius, 2 * radius), crowd, area=math.pi * radius**2)
    x, y, across, down = hull(points)
    if kind == "mask":
        return ParsedBox(name, (x, y, across + 1, down + 1), crowd)
    if kind == "polygon" or len(points) > 2:
        return ParsedBox(name, (x, y, across, down), crowd, [flat(points)], polygon_area(points))
    return ParsedBox(name, (x, y, across, down), crowd)


def _is_crowd(shape: dict[str, Any]) -> bool:
    flags = shape.get("flags")
    places = (shape, flags if isinstance(flags, dict) else {})
    return any(place.get(flag) in (True, 1) for place in places for flag in _NOT_JUDGED)
