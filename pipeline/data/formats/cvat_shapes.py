"""The shapes of CVAT's XML, each with the box around it; coordinates in pixels, rotations clockwise in degrees.

Reference: https://docs.cvat.ai/docs/dataset_management/formats/xml_format/.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from pipeline.data.boxes import Point, ellipse_hull, flat, hull, polygon_area, rotated_box
from pipeline.data.coco import Box
from pipeline.data.formats.field_values import label, number
from pipeline.data.parsed import ParsedBox
from pipeline.errors import DataError

_DRAWN = frozenset({"polyline", "points", "skeleton"})  # shapes that may have no area
KINDS = frozenset({"box", "polygon", "ellipse", "mask", "cuboid"}) | _DRAWN


def read_shape(shape: Element, name: str, where: str) -> ParsedBox | None:
    """A shape as an object of a class, or None for one without an area, such as a single point.

    The attribute `is_crowd`, under which CVAT keeps COCO's own, makes it a region that is not judged.

    Raises:
        DataError: A coordinate is missing or no number.
    """
    name = label(name, where)
    crowd = int(any(_is_crowd(each) for each in shape.findall("attribute")))
    if shape.tag == "polygon":
        points = _points(shape, where)
        return ParsedBox(name, hull(points), crowd, [flat(points)], polygon_area(points))
    box = _box(shape, where)
    if shape.tag in _DRAWN and min(box[2:]) <= 0:
        return None
    return ParsedBox(name, box, crowd)


def _is_crowd(attribute: Element) -> bool:
    return attribute.get("name") == "is_crowd" and (attribute.text or "").strip().lower() in {"true", "1"}


def _box(shape: Element, where: str) -> Box:
    if shape.tag == "box":
        left, top, right, bottom = (_number(shape, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
        box = (left, top, right - left, bottom - top)
        turned = _rotation(shape, where)
        return hull(rotated_box(box, turned)) if turned else box
    if shape.tag == "mask":
        left, top, width, height = (_number(shape, key, where) for key in ("left", "top", "width", "height"))
        return left, top, width, height
    if shape.tag == "ellipse":
        x, y, across, down = (_number(shape, key, where) for key in ("cx", "cy", "rx", "ry"))
        return ellipse_hull((x, y), (across, down), _rotation(shape, where))
    if shape.tag == "cuboid":
        ends = sorted(key[1:] for key in shape.attrib if key[0] == "x" and f"y{key[1:]}" in shape.attrib)
        return hull([(_number(shape, f"x{end}", where), _number(shape, f"y{end}", where)) for end in ends])
    if shape.tag == "skeleton":
        parts = [each for each in shape.findall("points") if each.get("outside") != "1"]
        return hull([point for each in parts for point in _points(each, where)]) if parts else (0, 0, 0, 0)
    return hull(_points(shape, where))


def _points(shape: Element, where: str) -> list[Point]:
    texts = [each.split(",") for each in shape.get("points", "").split(";") if each.strip()]
    if not texts or any(len(each) != 2 for each in texts):
        problem = f"A {shape.tag} has no points"
        raise DataError(problem, where=where, expected='points="x,y;x,y;…"', remedy="export it again")
    return [(number(x.strip(), "A point's x", where), number(y.strip(), "A point's y", where)) for x, y in texts]


def _rotation(shape: Element, where: str) -> float:
    return number(shape.get("rotation") or "0", "rotation", where)


def _number(shape: Element, key: str, where: str) -> float:
    return number(shape.get(key), f"{key} of a {shape.tag}", where)
