"""Annotations in any known format, detected or named, as one COCO data set."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from pipeline.data.coco import CocoDataset
from pipeline.data.formats import coco_json, csv_boxes, cvat_xml, labelme, voc, yolo
from pipeline.data.formats.annotation_files import AnnotationFiles, Recognition
from pipeline.data.formats.image_index import ImageIndex
from pipeline.errors import DataError, UsageError

logger = logging.getLogger(__name__)

_GIVE = "name the file, folder or archive with the annotations in annotations_url"


@dataclass(frozen=True, slots=True)
class _Format:
    """A format: what is looked for, whether files are of it, and how they are read."""

    looks_for: str
    recognises: Callable[[AnnotationFiles], Recognition]
    read: Callable[[AnnotationFiles, ImageIndex], CocoDataset]


FORMATS = {
    "coco": _Format(coco_json.LOOKS_FOR, coco_json.recognises, coco_json.read),
    "voc": _Format(voc.LOOKS_FOR, voc.recognises, voc.read),
    "yolo": _Format(yolo.LOOKS_FOR, yolo.recognises, yolo.read),
    "labelme": _Format(labelme.LOOKS_FOR, labelme.recognises, labelme.read),
    "cvat": _Format(cvat_xml.LOOKS_FOR, cvat_xml.recognises, cvat_xml.read),
    "csv": _Format(csv_boxes.LOOKS_FOR, csv_boxes.recognises, csv_boxes.read),
}


def read_markup(
    markup: Path,
    images: ImageIndex,
    *,
    format: str = "",  # noqa: A002 - the word for it
    member: str = "",
) -> CocoDataset:
    """Read the annotation files in a folder, as `read_with_format` does."""
    return read_with_format(markup, images, format=format, member=member)[1]


def read_with_format(
    markup: Path,
    images: ImageIndex,
    *,
    format: str = "",  # noqa: A002
    member: str = "",
) -> tuple[str, CocoDataset]:
    """Read the annotation files in a folder, and say which format they are in.

    Boxes are in pixels, as the files have them: what lies outside, has no area or is NaN is left to validation. Image
    names are those of the source, and an image that is annotated but absent keeps the annotation's name for it. The
    split that comes with the data is `extra["subset"]` of each image: `train`, `eval` or `test`; where all images are
    of one subset, that is no split, and left out.

    Except for a single COCO file, which keeps its ids, images are numbered from 1 by name, and categories from 1 in
    the order the source gives them (`data.yaml`, CVAT's labels), else by name. The same files give the same data set.

    Args:
        markup: The folder with the annotation files.
        images: Which images there are.
        format: One of `FORMATS`; empty to tell it from the files.
        member: The path in `markup`, or its end, of the one file meant, where there are several; empty for all.

    Raises:
        UsageError: There is no such format.
        MissingError: There is no file that `member` means.
        DataError: No format is recognised, or several are, or a file is broken; says which, where and what to do.
    """
    if format and format not in FORMATS:
        near = get_close_matches(format.lower(), FORMATS, 1, 0.3)
        remedy = f"did you mean {near[0]}?" if near else "leave it empty to have it detected"
        raise UsageError(f"There is no annotation format '{format}'", expected=", ".join(FORMATS), remedy=remedy)
    files = AnnotationFiles.of(markup, named=bool(format))
    if member:
        files = files.only(member)
    name = _checked(format, files) if format else _detected(files)
    dataset = _without_lone_subset(FORMATS[name].read(files, images))
    _log(name, dataset, images)
    return name, dataset


def _without_lone_subset(dataset: CocoDataset) -> CocoDataset:
    """The dataset without the field `subset` where all images have the same: one part alone is no split."""
    subsets = {image.extra.get("subset", "") for image in dataset.images}
    if len(subsets) != 1 or subsets == {""}:
        return dataset
    without = ({key: value for key, value in image.extra.items() if key != "subset"} for image in dataset.images)
    images = (replace(image, extra=extra) for image, extra in zip(dataset.images, without, strict=True))
    return replace(dataset, images=tuple(images))


def _checked(name: str, files: AnnotationFiles) -> str:
    recognition = FORMATS[name].recognises(files)
    if recognition.found:
        return name
    raise DataError(
        f"There are no annotations in the format {name}" + (f": {recognition.why_not}" if recognition.why_not else ""),
        where=files.folder,
        expected=f"{FORMATS[name].looks_for}; there are {files.summary()}",
        remedy="name another format in annotations_format, or leave it empty to have it detected"
        if files.names
        else _GIVE,
    )


def _detected(files: AnnotationFiles) -> str:
    tried = {name: each.recognises(files) for name, each in FORMATS.items()}
    found = {name: recognition.found for name, recognition in tried.items() if recognition.found}
    if len(found) == 1:
        return next(iter(found))
    if found:
        raise DataError(
            f"The annotations are in {len(found)} formats: "
            + ", ".join(f"{name} ({example})" for name, example in found.items()),
            where=files.folder,
            expected="one",
            remedy=f"name one in annotations_format: {', '.join(found)}",
        )
    near = [f"{name}: {recognition.why_not}" for name, recognition in tried.items() if recognition.why_not]
    raise DataError(
        f"No annotation format is recognised: there are {files.summary()}" + "".join(f"\n    {each}" for each in near),
        where=files.folder,
        expected="; ".join(f"{name}: {each.looks_for}" for name, each in FORMATS.items()),
        remedy="name the format in annotations_format, or the annotations, if they lie elsewhere, in annotations_url"
        if files.names
        else _GIVE,
    )


def _log(name: str, dataset: CocoDataset, images: ImageIndex) -> None:
    logger.info("annotations read as %s: %d images, %d boxes", name, len(dataset.images), len(dataset.annotations))
    broken = sorted(set(images.unreadable))
    if broken:
        shown = ", ".join(broken[:5]) + (", …" if len(broken) > 5 else "")
        logger.warning("%d images have no readable header, and lose boxes relative to it: %s", len(broken), shown)
