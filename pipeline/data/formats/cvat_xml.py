"""CVAT's own XML, "CVAT for images 1.1" and "CVAT for video 1.1".

Reference: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/. Every shape with an area gets the box
around it; labels come in the order of `<meta>`. Attributes, occlusion and groups are left out, but for `is_crowd`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Recognition
from pipeline.data.formats.cvat_shapes import KINDS, read_shape
from pipeline.data.formats.cvat_tracks import read_tracks
from pipeline.data.formats.field_values import whole
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.parsed import ParsedBox, ParsedImage, to_coco
from pipeline.data.subset_names import subset_named
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

LOOKS_FOR = "an XML file with <annotations> outermost"


def recognises(files: AnnotationFiles) -> Recognition:
    """Whether one of the files is an export of CVAT's."""
    why_not = ""
    for name in files.ending(".xml"):
        root = files.xml_root(name)
        if root == "annotations":
            return Recognition(name)
        why_not = why_not or f"{name} has {f'<{root}>' if root else 'nothing'} outermost"
    return Recognition(why_not=why_not)


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read images and tracks. Shapes without an area are left out: it is said.

    Raises:
        DataError: A file is broken; says at which image or track.
    """
    labels: dict[str, None] = {}
    pictures: list[ParsedImage] = []
    without_area = Counter[str]()
    for name in files.ending(".xml"):
        if files.xml_root(name) != "annotations":
            continue
        root = files.xml(name)
        labels |= dict.fromkeys(_labels(root))
        pictures += _images(root, name, images, without_area)
        if root.find("track") is not None:
            pictures += read_tracks(root, name, images, without_area)
    if without_area:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(without_area.items()))
        logger.info("shapes left out, as they have no area: %s", kinds)
    return to_coco(pictures, tuple(labels))


def _labels(root: Element) -> Iterator[str]:
    """The labels in order, less those of a skeleton's points."""
    for each in root.iterfind("meta//labels/label"):
        name = (each.findtext("name") or "").strip()
        if name and not each.findtext("parent"):
            yield name


def _images(root: Element, file: str, images: ImageIndex, without_area: Counter[str]) -> Iterator[ParsedImage]:
    beside = PurePosixPath(file).parent.as_posix()
    for i, node in enumerate(root.findall("image"), 1):
        written = (node.get("name") or "").strip()
        if not written:
            raise DataError("An image has no name", where=f"{file}: image {i}", expected="its path")
        where = f"{file}: image {written[:100]}"
        marks, lost = list[ParsedBox](), False
        for shape in node:
            mark = read_shape(shape, shape.get("label", ""), where) if shape.tag in KINDS else None
            if mark is not None:
                marks.append(mark)
            elif shape.tag in KINDS or shape.tag == "tag":
                without_area[shape.tag] += 1
                lost = lost or shape.tag != "tag"  # which is not drawn: it says something of the whole image
        name = images.name_of(written, where, beside)
        subset = subset_named(node.get("subset") or "") or images.subset_of(PurePosixPath(written).parent.as_posix())
        yield ParsedImage(name, *_size(node, name, where, images), marks, subset, unusable=lost)


def _size(node: Element, name: str, where: str, images: ImageIndex) -> tuple[int, int]:
    if not node.get("width") or not node.get("height"):
        return images.size(name)
    width, height = (whole(node.get(side), f"The image's {side}", where) for side in ("width", "height"))
    if width < 0 or height < 0:
        raise DataError(f"The image's size is {width}x{height}", where=where, remedy="correct it there")
    return width, height
