"""Pascal VOC: one XML file an image, with the split in `ImageSets/Main`.

Reference: the VOC2012 development kit, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/index.html.

Coordinates: the kit counts pixels from 1 and includes the last, so that a box of `xmin` 1 and `xmax` 3 covers the
first three pixels: x 0, width 3. Many tools write edges counted from 0 instead, and nothing in the file says so.
The rule here, which reads back what supervision and globox write within half a pixel:

- a file whose `source` names PASCAL VOC is read the kit's way;
- a file with a decimal point in a coordinate has edges counted from 0 (globox, CVAT and others write such numbers);
- all others are read the kit's way, unless a left or top edge in any of them is 0 or less, which the kit does not know.

`difficult` objects become crowd regions: VOC's evaluation counts them neither as found nor as missed, which is what
COCO's does with crowds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Recognition, claim
from pipeline.data.formats.field_values import label, number, shown, whole
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.parsed import ParsedBox, ParsedImage, to_coco
from pipeline.data.subset_names import subset_of
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

LOOKS_FOR = "XML files with <annotation> outermost"
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class _File:
    """An annotation file: its name, its root, its objects' class, corners as written, and whether not judged."""

    name: str
    root: Element
    objects: tuple[tuple[str, tuple[float, ...], bool], ...]
    official: bool
    decimal: bool


def recognises(files: AnnotationFiles) -> Recognition:
    """Whether one of the files is an image's annotation."""
    other = ""
    for name in files.ending(".xml"):
        root = files.xml_root(name)
        if root == "annotation":
            return Recognition(name)
        other = other or f"{name} has {f'<{root}>' if root else 'nothing'} outermost"
    return Recognition(why_not=other)


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the annotation of each image; images without a file are no part of the data set.

    Raises:
        DataError: A file is broken, or has no box where one was expected; says at which object.
    """
    found = [_parsed(files, name) for name in files.ending(".xml") if files.xml_root(name) == "annotation"]
    from_zero = any(min(corners[:2]) <= 0 for each in found if _by_the_kit(each) for _, corners, _ in each.objects)
    shifted = sum(_by_the_kit(each, from_zero) for each in found)
    if shifted:
        logger.info("coordinates counted from 1, as in Pascal VOC, in %d of %d files", shifted, len(found))
    subsets, claims, pictures = _image_sets(files), dict[str, str](), list[ParsedImage]()
    for each in found:
        pictures.append(_picture(each, images, subsets, _by_the_kit(each, from_zero)))
        if pictures[-1].name in images.names:
            claim(claims, pictures[-1].name, each.name)
    return to_coco(pictures)


def _parsed(files: AnnotationFiles, name: str) -> _File:
    root = files.xml(name)
    source = root.find("source")
    told = " ".join(source.itertext()).upper() if source is not None else ""
    objects, decimal = [], False
    for i, each in enumerate(root.findall("object"), 1):
        where = f"{name}: object {i}"
        box = each.find("bndbox")
        if box is None:
            raise DataError("An object has no <bndbox>", where=where, expected=f"one with {', '.join(_SIDES)}")
        texts = [box.findtext(side) for side in _SIDES]
        decimal = decimal or any("." in (text or "") for text in texts)
        corners = tuple(number(text, f"<{side}>", where) for side, text in zip(_SIDES, texts, strict=True))
        objects.append((label(each.findtext("name"), where), corners, _is_true(each.findtext("difficult"))))
    return _File(name, root, tuple(objects), "PASCAL VOC" in told or "THE VOC2" in told, decimal)


def _by_the_kit(file: _File, from_zero: bool = False) -> bool:
    return file.official or not (file.decimal or from_zero)


def _picture(file: _File, images: ImageIndex, subsets: dict[str, str], by_the_kit: bool) -> ParsedImage:
    name = _image(file, images)
    shift = 1 if by_the_kit else 0
    marks = []
    for kind, (left, top, right, bottom), ignored in file.objects:
        x, y = left - shift, top - shift
        marks.append(ParsedBox(kind, (x, y, right - x, bottom - y), int(ignored)))
    stem = PurePosixPath(file.name).stem
    subset = subsets.get(stem) or subsets.get(PurePosixPath(name).stem) or images.subset_of(_folder(file.name))
    return ParsedImage(name, *(_size(file) or images.size(name)), marks, subset)


def _image(file: _File, images: ImageIndex) -> str:
    """By the file name inside, or else by the annotation's own; `folder` is often stale, and not asked."""
    beside = _folder(file.name)
    named = (file.root.findtext("filename") or "").strip()
    own = PurePosixPath(file.name).stem
    found = images.resolve(named, beside) or images.resolve(own, beside)
    return found or images.name_of(named or own, file.name, beside)


def _size(file: _File) -> tuple[int, int] | None:
    """The declared size, or None where there is none, or one of 0, as some tools write."""
    texts = [file.root.findtext(f"size/{side}") for side in ("width", "height")]
    if not all(texts):
        return None
    width, height = (whole(text, "The image's size", file.name) for text in texts)
    if width < 0 or height < 0:
        raise DataError(f"The image's size is {width}x{height}", where=file.name, remedy="correct it there")
    return (width, height) if width and height else None


def _image_sets(files: AnnotationFiles) -> dict[str, str]:
    """Subset by image, from `ImageSets/Main/train.txt` and the like; `trainval.txt` says nothing."""
    subsets: dict[str, str] = {}
    for name in files.ending(".txt"):
        path = PurePosixPath(name)
        if path.parent.name == "Main" and path.stem in {"train", "val", "test"}:
            for stem in _first_words(files.text(name).splitlines()):
                subsets.setdefault(stem, subset_of(path.stem))
    return subsets


def _first_words(lines: Iterable[str]) -> Iterable[str]:
    return (words[0] for words in map(str.split, lines) if words)


def _is_true(text: str | None) -> bool:
    value = (text or "").strip().lower()
    if value in {"", "0", "false", "no", "unspecified"}:
        return False
    if value not in {"1", "true", "yes"}:
        logger.debug("'difficult' is %s: taken as yes", shown(value))
    return True


def _folder(name: str) -> str:
    return PurePosixPath(name).parent.as_posix()
