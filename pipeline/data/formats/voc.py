"""Pascal VOC: one XML file for each image, with the split in `ImageSets/Main`.

Reference: the VOC2012 development kit, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/index.html.

Coordinates: the kit counts pixels from 1 and includes the last, so that a box with `xmin` 1 and `xmax` 3 covers the
first three pixels: x 0, width 3. Many tools write edges counted from 0 instead, and nothing in the file says so.
This rule reads what supervision and globox write within half a pixel:

- a file whose `source` names PASCAL VOC is read the kit's way;
- a file with a decimal point in a coordinate has edges counted from 0 (globox, CVAT and others write such numbers), and
  so has a file of a tool that is known to count so and gives its name;
- all others are read the kit's way, unless one of them has a left or top edge of 0 or less, which the kit never writes.

An object is a `<bndbox>`, roLabelImg's `<robndbox>`, which is turned clockwise around its centre by an angle in
radians, or a `<polygon>` or a mask in a `<box>`, as LabelMe 3.0 has them. The box around all but the first is taken,
with edges counted from 0.

`difficult` objects become crowd regions: VOC's evaluation counts them neither as found nor as missed, as COCO's does
with crowds.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from pipeline.data.boxes import Point, between_corners, hull, rotated_box
from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Candidates
from pipeline.data.formats.assembly import Record, assemble
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.image_pairing import Reference
from pipeline.data.formats.scalars import RecordError, declared_size, flag, label, number
from pipeline.data.images import is_image_name
from pipeline.data.parsed import ParsedBox, ParsedImage, subset_of

log = logging.getLogger(__name__)

LOOKS_FOR = "XML files with <annotation> outermost"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_TURNED = ("cx", "cy", "w", "h", "angle")
_FROM_ZERO = ("LABEL STUDIO", "X-ANYLABELING", "UNSPECIFIED")  # the last is what makesense writes for itself
_LIST = re.compile(r"(?:.*_)?(train|val|test)")  # `train.txt`, or `cat_train.txt` as the kit and VoTT have for a class


@dataclass(slots=True)
class _File:
    """An annotation file: its corners as written, other shapes as boxes, and whether it counts pixels from 1."""

    name: str
    root: Element
    official: bool  # PASCAL VOC's own
    from_one: bool = False
    corners: list[tuple[ParsedBox, tuple[float, ...]]] = field(default_factory=list)
    shapes: list[ParsedBox] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def candidates(files: AnnotationFiles) -> Candidates:
    """The XML files."""
    return files.xml_candidates("annotation")


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the annotations of each image; images without a file are not part of the dataset."""
    found = [_parsed(files, name, root) for name, root in files.xml_documents("annotation")]
    if any(min(corners[:2]) <= 0 for each in found if each.from_one for _, corners in each.corners):
        for each in found:
            each.from_one = each.official
    shifted = sum(each.from_one for each in found)
    if shifted:
        log.info("coordinates count from 1, as in Pascal VOC, in %d of %d files", shifted, len(found))
    subsets = _image_sets(files)
    records: list[Record] = []
    for each in found:
        with files.faults.of():
            records.append(_record(each, subsets))
    return assemble(records, files, images)


def _parsed(files: AnnotationFiles, name: str, root: Element) -> _File:
    source = root.find("source")
    origin = " ".join(source.itertext()).upper() if source is not None else ""
    file = _File(name, root, "PASCAL VOC" in origin or "THE VOC2" in origin)
    owner = (root.findtext("owner/name") or "").upper()
    decimal = any(tool in f"{origin} {owner}" for tool in _FROM_ZERO)
    for i, each in enumerate(root.findall("object"), 1):
        if (each.findtext("deleted") or "").strip() == "1":  # in LabelMe's old tool
            continue
        with files.faults.of(file.left_out):
            decimal |= _read_object(each, file, f"{name}: object {i}")
    file.from_one = file.official or not decimal
    return file


def _read_object(node: Element, file: _File, where: str) -> bool:
    """Add an object to its file; returns whether its corners have a decimal point."""
    crowd = flag(node.findtext("difficult"), "<difficult>", where)
    kind = label(node.findtext("name"), where)
    box, turned, polygon, mask = (node.find(tag) for tag in ("bndbox", "robndbox", "polygon", "segm/box"))
    if box is not None and box.find("xmin") is not None:
        texts = [box.findtext(side) for side in _SIDES]
        corners = tuple(number(text, f"<{side}>", where) for text, side in zip(texts, _SIDES, strict=True))
        file.corners.append((ParsedBox(kind, (0, 0, 0, 0), crowd, source=where), corners))
        return any("." in (text or "") for text in texts)
    if turned is not None:
        x, y, across, down, angle = (number(turned.findtext(tag), f"<{tag}>", where) for tag in _TURNED)
        outline = rotated_box((x - across / 2, y - down / 2, across, down), math.degrees(angle))
        file.shapes.append(ParsedBox(kind, hull(outline), crowd, source=where))
    elif polygon is not None:
        file.shapes.append(ParsedBox.around(kind, _outline(polygon, where), crowd, where))
    elif mask is not None:
        left, top, right, bottom = (number(mask.findtext(side), f"<{side}>", where) for side in _SIDES)
        file.shapes.append(ParsedBox(kind, between_corners(left, top, right, bottom), crowd, source=where))
    else:
        expected = f"one with {', '.join(_SIDES)}"
        raise RecordError("an object has no <bndbox>", where=where, expected=expected, remedy="correct the file")
    return False


def _outline(polygon: Element, where: str) -> list[Point]:
    """The corners of a polygon: `<x1>`, `<y1>`, and so on, or a `<pt>` each."""
    texts = [(each.findtext("x"), each.findtext("y")) for each in polygon.iterfind("pt")]
    ends = [each.tag[1:] for each in polygon if each.tag[0] == "x" and not texts]
    texts = texts or [(polygon.findtext(f"x{end}"), polygon.findtext(f"y{end}")) for end in ends]
    if len(texts) < 3:
        problem = f"a polygon has {len(texts)} points"
        raise RecordError(problem, where=where, expected="at least 3", remedy="draw it again")
    return [(number(x, "a point's x", where), number(y, "a point's y", where)) for x, y in texts]


def _record(file: _File, subsets: dict[str, str]) -> Record:
    """`folder` is often outdated, and ignored."""
    shift = int(file.from_one)
    boxes = [
        ParsedBox(each.label, between_corners(*corners, first=shift), each.iscrowd, source=each.source)
        for each, corners in file.corners
    ]
    named, path = (file.root.findtext("filename") or "").strip(), PurePosixPath(file.name)
    parts = path.with_suffix("").parts
    ids = [*("/".join(parts[i:]) for i in range(len(parts))), PurePosixPath(named.replace("\\", "/")).stem]
    subset = next((subsets[each] for each in ids if each in subsets), "")
    size = declared_size(file.root.findtext("size/width"), file.root.findtext("size/height"), file.name)
    reference = Reference(named, file.name, own=True, size=size)
    return Record(reference, ParsedImage("", 0, 0, boxes + file.shapes, subset, left_out=file.left_out))


def _image_sets(files: AnnotationFiles) -> dict[str, str]:
    """Subset by image, from `ImageSets/Main/train.txt` and the like; `trainval.txt` says nothing.

    A line of a class's own list ends with whether the image shows one.
    """
    subsets: dict[str, str] = {}
    lists = sorted(map(PurePosixPath, files.ending(".txt")), key=lambda path: "_" in path.stem)
    for path in lists:
        if path.parent.name == "Main" and (subset := _LIST.fullmatch(path.stem)):
            for line in filter(None, map(str.strip, files.text(path.as_posix()).splitlines())):
                name = line if path.stem == subset[1] else re.sub(r"\s+-?[01]$", "", line)
                name = str(PurePosixPath(name).with_suffix("")) if is_image_name(name) else name
                subsets.setdefault(name, subset_of(subset[1]))
    return subsets
