"""Annotations in any known format, detected or named, as one COCO dataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.data.coco import CocoDataset
from pipeline.data.formats import coco_json, csv_boxes, cvat_xml, labelme, voc, yolo
from pipeline.data.formats.annotation_files import AnnotationFiles
from pipeline.data.formats.box_plausibility import check_boxes
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.scalars import RecordError, together
from pipeline.data.parsed import LEFT_OUT_FIELD
from pipeline.errors import DataError, UsageError, did_you_mean

log = logging.getLogger(__name__)

# Each module says what it LOOKS_FOR, which files are `candidates`, and how to `read` them.
FORMATS = {
    "coco": coco_json,
    "voc": voc,
    "yolo": yolo,
    "labelme": labelme,
    "cvat": cvat_xml,
    "csv": csv_boxes,
}
_NOT_READ = {  # words in the files of a tool, and what its users can export instead
    "Label Studio": (("rectanglelabels",), "COCO or YOLO with images"),
    "VoTT": (('"asset"', '"boundingBox"'), "CSV or Pascal VOC"),
    "CreateML": (('"coordinates"', '"annotations"'), "COCO or YOLO"),
    "Darwin": (('"bounding_box"', '"annotations"'), "COCO or YOLO"),
    "Datumaro": (('"categories"', '"items"', '"annotations"'), "COCO or YOLO"),
    "FiftyOne": (('"samples"', '"detections"'), "COCO or YOLO"),
}
DESCRIBED = ("yolo", "csv")  # the formats that take class names from files of their own


@dataclass(frozen=True)
class ReadAnnotations:
    """The annotations of a source."""

    format: str
    dataset: CocoDataset
    unreadable: tuple[RecordError, ...]  # the boxes that were left out, as their records cannot be read
    left_out: Mapping[str, int]  # boxes of no known image that were left out, by reason
    notes: tuple[str, ...]  # what the user should know of the reading, a sentence each

    @property
    def shapes_left_out(self) -> int:
        """How many shapes are not used as boxes, on images and elsewhere."""
        marks = (image.extra.get(LEFT_OUT_FIELD) or {} for image in self.dataset.images)
        return sum(self.left_out.values()) + sum(sum(each.values()) for each in marks)


def read_annotations(
    folder: Path,
    images: ImageIndex,
    *,
    format: str = "",  # noqa: A002 - the field's word
    member: str = "",
    pair_by: str = "",
) -> ReadAnnotations:
    """Read the annotation files in a folder.

    Boxes are in pixels, as the files have them; boxes outside the image, without area or with NaN are left to
    validation. Image names are those of the source; an annotated but absent image keeps the annotation's name for it.
    The split that comes with the data is `extra["subset"]` of each image: `train`, `eval` or `test`. Where all images
    have the same subset, that is no split, and the field is dropped.

    Except for a single COCO file, which keeps its ids, images are numbered from 1 by name, and categories from 1 in
    the order the source gives them (`data.yaml`, CVAT's labels), else by name. The same files give the same dataset.

    `format` is one of `FORMATS`, or empty to detect it; `member` is the path of the one file to read, or its end. For
    `pair_by` see `image_pairing`.

    Raises:
        UsageError: There is no such format.
        DataError: The annotations are in no known format, in several, or faulty; all faults are told at once. A few
            boxes that cannot be read are left out instead.
    """
    if format and format not in FORMATS:
        remedy = did_you_mean(format, FORMATS, otherwise="leave it empty to detect it", cutoff=0.3)
        raise UsageError(f"there is no annotation format '{format}'", expected=", ".join(FORMATS), remedy=remedy)
    files = AnnotationFiles.of(folder, named=bool(format), pair_by=pair_by)
    if member:
        files = files.only(member)
    name = _recognised(files, format)
    try:
        dataset = FORMATS[name].read(files, images)
    except DataError as error:
        raise together([*files.faults.errors, error]) from error
    faults = files.faults.settle(len(dataset.annotations))
    check_boxes(dataset)
    if len({image.extra.get("subset", "") for image in dataset.images}) == 1:
        without = ({key: each for key, each in image.extra.items() if key != "subset"} for image in dataset.images)
        pairs = zip(dataset.images, without, strict=True)
        dataset = replace(dataset, images=tuple(replace(image, extra=extra) for image, extra in pairs))
    for note in files.notes:
        log.info("%s", note)
    log.info("annotations read as %s: %d images, %d boxes", name, len(dataset.images), len(dataset.annotations))
    broken = sorted(set(images.unreadable))
    if broken:
        examples = ", ".join(broken[:5]) + (", …" if len(broken) > 5 else "")
        log.warning("%d images have no readable header, and lose boxes relative to it: %s", len(broken), examples)
    return ReadAnnotations(name, dataset, tuple(faults), files.left_out, tuple(files.notes))


def _recognised(files: AnnotationFiles, format: str) -> str:  # noqa: A002
    tried = [format] if format else list(FORMATS)
    found: dict[str, str] = {}  # the first file of each format
    reasons: dict[str, str] = {}  # why the first file is not of the format
    for name in tried:
        for file, why_not in FORMATS[name].candidates(files):
            if not why_not:
                found[name] = file
                break
            reasons.setdefault(name, why_not)
    if len(found) == 1:
        return next(iter(found))
    if found:
        examples = ", ".join(f"{name} ({example})" for name, example in found.items())
        problem = f"the annotations are in {len(found)} formats: {examples}"
        raise DataError(problem, where=files.folder, remedy=f"name one in annotations_format: {', '.join(found)}")
    problem = f"there are no annotations in the format {format}" if format else "no annotation format is recognised"
    problem += f": there are {files.summary()}"
    problem += "".join(f"\n    {name}: {why_not}" for name, why_not in reasons.items())
    expected = "; ".join(f"{name}: {FORMATS[name].LOOKS_FOR}" for name in tried)
    remedy = "name the annotations in annotations_url"
    if format:
        remedy += ", or leave annotations_format empty to detect the format"
    elif files.names:
        remedy = _of_another_tool(files) or f"{remedy}, or their format in annotations_format"
    raise DataError(problem, where=files.folder, expected=expected, remedy=remedy)


def _of_another_tool(files: AnnotationFiles) -> str:
    """What to do about files of a tool whose own format is not read; empty where none is recognised."""
    for name in files.ending(".json", ".csv"):
        head = files.head(name)
        for tool, (words, exports) in _NOT_READ.items():
            if all(word in head for word in words):
                return f"{name} is of {tool}, whose own format is not read: export it as {exports}"
    return ""


def only_describe(folder: Path) -> bool:
    """Whether a folder only has files that name classes, and lists of images such as `train.txt`."""
    files = AnnotationFiles.of(folder)
    found = _descriptions(files)
    return bool(found) and all(name in found or yolo.is_image_list(files, name) for name in files.names)


def lay_over(own: Path, given: Path, folder: Path) -> tuple[str, ...]:
    """Link a source's annotation files into a new folder, with the given class names in place of its own.

    The names in the folder of the given files are returned.
    """
    files, over = AnnotationFiles.of(own), AnnotationFiles.of(given).names
    described = _descriptions(files)
    sources = {name: own / name for name in files.names if name not in described}
    for name, source in (sources | {name: given / name for name in over}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(source.resolve())
    if described:
        log.info("skipped, as annotations_url names the classes: %s", ", ".join(described))
    return over


def _descriptions(files: AnnotationFiles) -> tuple[str, ...]:
    """`data.yaml`, `classes.txt`, `obj.names`, `class-descriptions.csv` and the like."""
    return (*yolo.data_files(files), *yolo.name_lists(files), *files.class_descriptions())
