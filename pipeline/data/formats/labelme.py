"""LabelMe, and what writes its files, such as X-AnyLabeling: one JSON file with shapes for each image.

Reference: https://github.com/wkentaro/labelme. Coordinates are pixels of the upright image. A shape with an area gives
the box around its points, turned or not: rectangle, polygon, oriented rectangle, cuboid and the like; or around a
circle (centre and a point on it) or a mask (whose two corners are pixels inside it). Lines and points have no area.

A shape whose flags or fields have `crowd`, `iscrowd`, `ignore` or `difficult` set is a region that is not judged.
Shapes of one `group_id` stay apart: groups may mean anything.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from pipeline.data.boxes import hull
from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Candidates
from pipeline.data.formats.assembly import Record, assemble
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.image_pairing import Reference
from pipeline.data.formats.scalars import RecordError, declared_size, flag, label, number, shown
from pipeline.data.parsed import NO_AREA, ParsedBox, ParsedImage
from pipeline.errors import DataError

LOOKS_FOR = "JSON files with shapes and an imagePath"
_NOT_JUDGED = ("crowd", "iscrowd", "ignore", "difficult")
_WITHOUT_AREA = frozenset({"point", "points", "line", "linestrip", "polyline"})
_POINTS = {"rectangle": 2, "circle": 2, "mask": 2}  # least number of points; of others 3


def candidates(files: AnnotationFiles) -> Candidates:
    """The JSON files with shapes."""
    for name in (name for name in files.ending(".json") if files.has_json_keys(name, "shapes")):
        yield name, "" if files.has_json_keys(name, "imagePath") else f"{name} has shapes, but no 'imagePath'"


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the shapes of each image, without shapes without an area.

    Other JSON files are left out, but one that has an image's name, and that cannot be read, is a fault.
    """
    records, others = list[Record](), list[str]()
    for name in files.ending(".json"):
        with files.faults.of():
            is_own = files.has_json_keys(name, "shapes", "imagePath")
            if not is_own and not images.has_stem(name):
                continue
            content = files.json(name)
            if is_own and isinstance(content, dict) and isinstance(content.get("shapes"), list):
                records.append(_record(name, content, files))
            else:
                others.append(name)
    if others:
        files.notes.append(f"left out: {len(others)} JSON files of images without shapes, such as {others[0]}")
    return assemble(records, files, images)


def _record(file: str, content: dict[str, Any], files: AnnotationFiles) -> Record:
    path = content.get("imagePath")
    if path is not None and not isinstance(path, str):
        raise DataError(f"'imagePath' is {shown(path)}", where=file, expected="the image's path")
    boxes, left_out = list[ParsedBox](), Counter[str]()
    for i, shape in enumerate(content["shapes"]):
        with files.faults.of(left_out):
            box = _box(shape, f"{file}: shapes[{i}]")
            boxes += [box] if box else []
            left_out[NO_AREA] += box is None
    size = declared_size(content.get("imageWidth"), content.get("imageHeight"), file)
    return Record(Reference(path or "", file, own=True, size=size), ParsedImage("", 0, 0, boxes, left_out=+left_out))


def _box(shape: Any, where: str) -> ParsedBox | None:
    """The box of a shape; None where it has no area."""
    if not isinstance(shape, dict):
        raise RecordError(f"a shape is {shown(shape)} where an object was expected", where=where)
    kind, raw = str(shape.get("shape_type") or "polygon"), shape.get("points")
    if kind in _WITHOUT_AREA:
        return None
    if not isinstance(raw, list) or not all(isinstance(point, list) and len(point) == 2 for point in raw):
        raise RecordError(f"'points' is {shown(raw)}", where=where, expected="a list of points [x, y]")
    points = [(number(x, "a point's x", where), number(y, "a point's y", where)) for x, y in raw]
    least = _POINTS.get(kind, 3)
    if len(points) < least:
        problem = f"a {kind} has {len(points)} points"
        raise RecordError(problem, where=where, expected=f"at least {least}", remedy="draw it again")
    name, flags = label(shape.get("label"), where), shape.get("flags")
    places = (shape, flags if isinstance(flags, dict) else {})
    crowd = max(flag(place.get(each), each, where) for place in places for each in _NOT_JUDGED)
    if kind == "circle":
        (x, y), edge = points[0], points[1]
        radius = math.dist((x, y), edge)
        box = (x - radius, y - radius, 2 * radius, 2 * radius)
        return ParsedBox(name, box, crowd, area=math.pi * radius**2, source=where)
    x, y, across, down = hull(points)
    if kind == "mask":
        return ParsedBox(name, (x, y, across + 1, down + 1), crowd, source=where)
    if len(points) == 2:
        return ParsedBox(name, (x, y, across, down), crowd, source=where)
    return ParsedBox.around(name, points, crowd, where)
