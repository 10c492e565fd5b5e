"""Pascal VOC: one XML file for each image, with the split in `ImageSets/Main`.

Reference: the VOC2012 development kit, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/index.html.

Coordinates: the kit counts pixels from 1 and includes the last, so that a box with `xmin` 1 and `xmax` 3 covers the
first three pixels: x 0, width 3. Many tools write edges counted from 0 instead, and nothing in the file says so.
This rule reads what supervision and globox write within half a pixel:

- a file whose `source` names PASCAL VOC is read the kit's way;
- a file with a decimal point in a coordinate has edges counted from 0 (globox, CVAT and others write such numbers);
- all others are read the kit's way, unless one of them has a left or top edge of 0 or less, which the kit never writes.

`difficult` objects become crowd regions: VOC's evaluation counts them neither as found nor as missed, as COCO's does
with crowds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Candidates, claim, label, number
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.parsed import ParsedBox, ParsedImage, subset_of, to_coco
from pipeline.errors import DataError

log = logging.getLogger(__name__)

LOOKS_FOR = "XML files with <annotation> outermost"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_NO = {"", "0", "false", "no", "unspecified"}


@dataclass(slots=True)
class _File:
    """An annotation file: objects are class, corners as written, and whether not judged."""

    name: str
    root: Element
    objects: list[tuple[str, tuple[float, ...], bool]]
    official: bool  # PASCAL VOC's own
    from_one: bool  # whether it counts pixels from 1


def candidates(files: AnnotationFiles) -> Candidates:
    """The XML files."""
    return files.xml_candidates("annotation")


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the annotations of each image; images without a file are not part of the dataset."""
    found = [_parsed(files, name) for name in files.ending(".xml") if files.xml_root(name) == "annotation"]
    if any(min(corners[:2]) <= 0 for each in found if each.from_one for _, corners, _ in each.objects):
        for each in found:
            each.from_one = each.official
    shifted = sum(each.from_one for each in found)
    if shifted:
        log.info("coordinates count from 1, as in Pascal VOC, in %d of %d files", shifted, len(found))
    subsets, claims, parsed = _image_sets(files), dict[str, str](), list[ParsedImage]()
    for each in found:
        parsed.append(_image(each, images, subsets))
        if parsed[-1].name in images.names:
            claim(claims, parsed[-1].name, each.name)
    return to_coco(parsed)


def _parsed(files: AnnotationFiles, name: str) -> _File:
    root = files.xml(name)
    source = root.find("source")
    origin = " ".join(source.itertext()).upper() if source is not None else ""
    objects, decimal = [], False
    for i, each in enumerate(root.findall("object"), 1):
        where = f"{name}: object {i}"
        box = each.find("bndbox")
        if box is None:
            raise DataError("an object has no <bndbox>", where=where, expected=f"one with {', '.join(_SIDES)}")
        texts = {side: box.findtext(side) for side in _SIDES}
        decimal = decimal or any("." in (text or "") for text in texts.values())
        corners = tuple(number(text, f"<{side}>", where) for side, text in texts.items())
        difficult = (each.findtext("difficult") or "").strip().lower() not in _NO
        objects.append((label(each.findtext("name"), where), corners, difficult))
    official = "PASCAL VOC" in origin or "THE VOC2" in origin
    return _File(name, root, objects, official, official or not decimal)


def _image(file: _File, images: ImageIndex, subsets: dict[str, str]) -> ParsedImage:
    """`folder` is often outdated, and ignored."""
    name = images.image_of(file.name, (file.root.findtext("filename") or "").strip())
    shift = int(file.from_one)
    boxes = [
        ParsedBox(kind, (left - shift, top - shift, right - (left - shift), bottom - (top - shift)), int(difficult))
        for kind, (left, top, right, bottom), difficult in file.objects
    ]
    path = PurePosixPath(file.name)
    by_list = subsets.get(path.stem) or subsets.get(PurePosixPath(name).stem)
    width, height = file.root.findtext("size/width"), file.root.findtext("size/height")
    size = images.declared_size(name, width, height, file.name)
    return ParsedImage(name, *size, boxes, by_list or images.subset_of(path.parent.as_posix()))


def _image_sets(files: AnnotationFiles) -> dict[str, str]:
    """Subset by image, from `ImageSets/Main/train.txt` and the like; `trainval.txt` says nothing."""
    subsets: dict[str, str] = {}
    for path in map(PurePosixPath, files.ending(".txt")):
        if path.parent.name == "Main" and path.stem in {"train", "val", "test"}:
            for words in map(str.split, files.text(path.as_posix()).splitlines()):
                if words:
                    subsets.setdefault(words[0], subset_of(path.stem))
    return subsets
