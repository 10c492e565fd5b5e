"""Annotations in any known format, detected or named, as one COCO dataset."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.data.coco import CocoDataset
from pipeline.data.formats import coco_json, csv_boxes, cvat_xml, labelme, voc, yolo
from pipeline.data.formats.annotation_files import AnnotationFiles, Recognition
from pipeline.data.formats.image_index import ImageIndex
from pipeline.errors import DataError, UsageError, did_you_mean

log = logging.getLogger(__name__)

_NAME_THEM = "name the file, folder or archive with the annotations in annotations_url"


@dataclass(frozen=True, slots=True)
class AnnotationFormat:
    """What a format looks like, whether files are of it, and how they are read."""

    looks_for: str
    recognises: Callable[[AnnotationFiles], Recognition]
    read: Callable[[AnnotationFiles, ImageIndex], CocoDataset]


FORMATS = {
    "coco": AnnotationFormat(coco_json.LOOKS_FOR, coco_json.recognises, coco_json.read),
    "voc": AnnotationFormat(voc.LOOKS_FOR, voc.recognises, voc.read),
    "yolo": AnnotationFormat(yolo.LOOKS_FOR, yolo.recognises, yolo.read),
    "labelme": AnnotationFormat(labelme.LOOKS_FOR, labelme.recognises, labelme.read),
    "cvat": AnnotationFormat(cvat_xml.LOOKS_FOR, cvat_xml.recognises, cvat_xml.read),
    "csv": AnnotationFormat(csv_boxes.LOOKS_FOR, csv_boxes.recognises, csv_boxes.read),
}


def read_annotations(
    folder: Path,
    images: ImageIndex,
    *,
    format: str = "",  # noqa: A002 - the field's word
    member: str = "",
) -> tuple[str, CocoDataset]:
    """Read the annotation files in a folder.

    Boxes are in pixels, as the files have them; boxes outside the image, without area or with NaN are left to
    validation. Image names are those of the source; an annotated but absent image keeps the annotation's name for it.
    The split that comes with the data is `extra["subset"]` of each image: `train`, `eval` or `test`. Where all images
    have the same subset, that is no split, and the field is dropped.

    Except for a single COCO file, which keeps its ids, images are numbered from 1 by name, and categories from 1 in
    the order the source gives them (`data.yaml`, CVAT's labels), else by name. The same files give the same dataset.

    Args:
        folder: The folder with the annotation files.
        images: The images.
        format: One of `FORMATS`; empty to detect it.
        member: The path of the one file to read, or its end; empty for all.

    Returns:
        The format's name, and the dataset.

    Raises:
        UsageError: There is no such format.
        MissingError: No file, or more than one, matches `member`.
        DataError: No format is recognised, or several are, or a file is broken; says which, where and what to do.
    """
    if format and format not in FORMATS:
        remedy = did_you_mean(format, FORMATS, otherwise="leave it empty to detect it", cutoff=0.3)
        raise UsageError(f"there is no annotation format '{format}'", expected=", ".join(FORMATS), remedy=remedy)
    files = AnnotationFiles.of(folder, named=bool(format))
    if member:
        files = files.only(member)
    name = _checked(format, files) if format else _detected(files)
    dataset = _without_lone_subset(FORMATS[name].read(files, images))
    log.info("annotations read as %s: %d images, %d boxes", name, len(dataset.images), len(dataset.annotations))
    broken = sorted(set(images.unreadable))
    if broken:
        examples = ", ".join(broken[:5]) + (", …" if len(broken) > 5 else "")
        log.warning("%d images have no readable header, and lose boxes relative to it: %s", len(broken), examples)
    return name, dataset


def _without_lone_subset(dataset: CocoDataset) -> CocoDataset:
    """The dataset without the field `subset` where all images have the same one."""
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
        f"there are no annotations in the format {name}" + (f": {recognition.why_not}" if recognition.why_not else ""),
        where=files.folder,
        expected=f"{FORMATS[name].looks_for}; there are {files.summary()}",
        remedy="name another format in annotations_format, or leave it empty to detect it"
        if files.names
        else _NAME_THEM,
    )


def _detected(files: AnnotationFiles) -> str:
    tried = {name: each.recognises(files) for name, each in FORMATS.items()}
    found = {name: recognition.found for name, recognition in tried.items() if recognition.found}
    if len(found) == 1:
        return next(iter(found))
    if found:
        examples = ", ".join(f"{name} ({example})" for name, example in found.items())
        raise DataError(
            f"the annotations are in {len(found)} formats: {examples}",
            where=files.folder,
            expected="one",
            remedy=f"name one in annotations_format: {', '.join(found)}",
        )
    near = [f"{name}: {recognition.why_not}" for name, recognition in tried.items() if recognition.why_not]
    raise DataError(
        f"no annotation format is recognised: there are {files.summary()}" + "".join(f"\n    {each}" for each in near),
        where=files.folder,
        expected="; ".join(f"{name}: {each.looks_for}" for name, each in FORMATS.items()),
        remedy="name the format in annotations_format, or annotations that are elsewhere in annotations_url"
        if files.names
        else _NAME_THEM,
    )
