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

from pipeline.data.boxes import hull
from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Candidates, claim, label, number, shown
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.parsed import ParsedBox, ParsedImage, to_coco
from pipeline.errors import DataError

log = logging.getLogger(__name__)

LOOKS_FOR = "JSON files with shapes and an imagePath"
_NOT_JUDGED = ("crowd", "iscrowd", "ignore", "difficult")
_POINTS = {"rectangle": 2, "rotation": 3, "polygon": 3, "circle": 2, "mask": 2}  # least number of points


def candidates(files: AnnotationFiles) -> Candidates:
    """The JSON files with shapes."""
    for name in (name for name in files.ending(".json") if files.has_json_keys(name, "shapes")):
        yield name, "" if files.has_json_keys(name, "imagePath") else f"{name} has shapes, but no 'imagePath'"


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the shapes of each image, without other JSON files and shapes without an area; the log counts the latter."""
    found, claims, without_area = list[ParsedImage](), dict[str, str](), Counter[str]()
    for name in files.ending(".json"):
        content = files.json(name) if files.has_json_keys(name, "shapes", "imagePath") else None
        if isinstance(content, dict) and isinstance(content.get("shapes"), list):
            found.append(_image(name, content, images, without_area))
            if found[-1].name in images.names:
                claim(claims, found[-1].name, name)
    if without_area:
        kinds = ", ".join(f"{count} of kind '{kind}'" for kind, count in sorted(without_area.items()))
        log.info("skipped shapes without an area: %s", kinds)
    return to_coco(found)


def _image(file: str, content: dict[str, Any], images: ImageIndex, without_area: Counter[str]) -> ParsedImage:
    path = content.get("imagePath")
    if path is not None and not isinstance(path, str):
        raise DataError(f"'imagePath' is {shown(path)}", where=file, expected="the image's path")
    name = images.image_of(file, path or "")
    boxes, unusable = list[ParsedBox](), False
    for i, shape in enumerate(content["shapes"]):
        where = f"{file}: shapes[{i}]"
        if not isinstance(shape, dict):
            raise DataError(f"a shape is {shown(shape)} where an object was expected", where=where)
        kind = str(shape.get("shape_type") or "polygon")
        if kind in _POINTS:
            boxes.append(_box(shape, kind, where))
        else:
            without_area[shown(kind).strip("'")] += 1
            unusable = True
    size = images.declared_size(name, content.get("imageWidth"), content.get("imageHeight"), file)
    return ParsedImage(name, *size, boxes, images.subset_of(PurePosixPath(file).parent.as_posix()), unusable=unusable)


def _box(shape: dict[str, Any], kind: str, where: str) -> ParsedBox:
    raw = shape.get("points")
    if not isinstance(raw, list) or not all(isinstance(point, list) and len(point) == 2 for point in raw):
        raise DataError(f"'points' is {shown(raw)}", where=where, expected="a list of points [x, y]")
    points = [(number(x, "a point's x", where), number(y, "a point's y", where)) for x, y in raw]
    if len(points) < _POINTS[kind]:
        problem = f"a {kind} has {len(points)} points"
        raise DataError(problem, where=where, expected=f"at least {_POINTS[kind]}", remedy="draw it again")
    name, flags = label(shape.get("label"), where), shape.get("flags")
    places = (shape, flags if isinstance(flags, dict) else {})
    crowd = int(any(place.get(flag) in (True, 1) for place in places for flag in _NOT_JUDGED))
    if kind == "circle":
        (x, y), edge = points[0], points[1]
        radius = math.dist((x, y), edge)
        return ParsedBox(name, (x - radius, y - radius, 2 * radius, 2 * radius), crowd, area=math.pi * radius**2)
    x, y, across, down = hull(points)
    if kind == "mask":
        return ParsedBox(name, (x, y, across + 1, down + 1), crowd)
    return ParsedBox(name, (x, y, across, down), crowd) if len(points) == 2 else ParsedBox.around(name, points, crowd)
