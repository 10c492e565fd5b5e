"""YOLO: a text file of labels for each image, beside it or in a folder `labels` where the image's is `images`.

An empty file means an image without objects. An image without a file is marked as one that nobody annotated, even where
a list names it, as a list says no more than the subset. Images are those of the splits in `data.yaml`; where it names
none that is here, all. Sizes are those of the upright pictures, as the format has none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import PurePosixPath

from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Recognition, claim
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.yolo_data import YoloData, data_files, name_lists, read_data
from pipeline.data.formats.yolo_lines import EXPECTED, looks_like_labels, read_lines
from pipeline.data.parsed import ParsedBox, ParsedImage, to_coco
from pipeline.data.subset_names import subset_named

logger = logging.getLogger(__name__)

LOOKS_FOR = "text files with lines 'class x y width height', and data.yaml or classes.txt"


def recognises(files: AnnotationFiles) -> Recognition:
    """Whether a text file has label lines, or a `data.yaml` stands alone, as where all images are empty."""
    texts = _texts(files)
    for name in texts:
        if looks_like_labels(_start(files, name)):
            return Recognition(name)
    if files.named or not files.ending(".json", ".xml", ".csv"):
        described = data_files(files) + (name_lists(files) if files.named else ())
        if described:
            return Recognition(described[0])
    return Recognition(why_not=f"{texts[0]} does not begin with a line '{EXPECTED}'" if texts else "")


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the labels of all images.

    Labels without an image are listed under their own name, without objects: their boxes have no size.

    Raises:
        DataError: A line is malformed or of an unknown class, or there are no class names; says where.
    """
    data = read_data(files)
    lists = {name for name in _texts(files) if subset_named(PurePosixPath(name).stem) and _is_list(files, name)}
    labels = [name for name in _texts(files) if name not in lists and _is_label(files, name, images)]
    subsets = _subsets(files, data, lists, images)
    pairs: dict[str, str] = {}
    for name in labels:
        image = _image(name, images)
        claim(pairs, image, name)
    listed = set(subsets) if subsets else images.names
    return to_coco((_picture(files, each, pairs, images, data, subsets) for each in listed | set(pairs)), data.classes)


def _picture(
    files: AnnotationFiles,
    image: str,
    pairs: dict[str, str],
    images: ImageIndex,
    data: YoloData,
    subsets: dict[str, str],
) -> ParsedImage:
    size, marks = images.size(image), list[ParsedBox]()
    if image in pairs:
        marks = read_lines(files.text(pairs[image]), pairs[image], data.classes, size, data.keypoint_values)
    subset = subsets.get(image) or images.subset_of(PurePosixPath(image).parent.as_posix())
    if not all(size):
        return ParsedImage(image, *size, (), subset, annotated=image in pairs, unusable=bool(marks))
    return ParsedImage(image, *size, marks, subset, annotated=image in pairs)


def _image(label: str, images: ImageIndex) -> str:
    """The image of a label file: in the folder `images` that goes with its folder `labels`, or beside it."""
    path = PurePosixPath(label)
    parts = list(path.parent.parts)
    swaps = [i for i, part in enumerate(parts) if part.lower() in {"labels", "label"}]
    for i in reversed(swaps):
        swapped = "/".join([*parts[:i], "images", *parts[i + 1 :]])
        found = images.in_folder(path.stem, swapped)
        if found is not None:
            return found
    return images.resolve(path.stem, path.parent.as_posix()) or path.with_suffix("").as_posix()


def _subsets(files: AnnotationFiles, data: YoloData, lists: Iterable[str], images: ImageIndex) -> dict[str, str]:
    """Subset by image, from the folders and lists that `data.yaml` names, or from lists such as `train.txt`."""
    subsets: dict[str, str] = {}
    for subset, paths in data.splits.items():
        for path in paths:
            for image in _in_split(files, path, images):
                subsets.setdefault(image, subset)
    if not data.splits:
        for name in sorted(lists):
            for image in _in_list(files, name, images):
                subsets.setdefault(image, subset_named(PurePosixPath(name).stem))
    return subsets


def _in_split(files: AnnotationFiles, path: str, images: ImageIndex) -> Iterable[str]:
    wanted = path.replace("\\", "/")
    if not wanted.lower().endswith(".txt"):
        return images.within(wanted)
    last = PurePosixPath(wanted).name
    found = [name for name in files.names if wanted.endswith(name)] or [
        name for name in files.names if PurePosixPath(name).name == last
    ]
    return _in_list(files, found[0], images) if found else ()


def _in_list(files: AnnotationFiles, name: str, images: ImageIndex) -> Iterable[str]:
    """The images a list names that are here; those that are not have no size, and so no boxes, and are not missed."""
    beside = PurePosixPath(name).parent.as_posix()
    found = (images.resolve(line.strip(), beside) for line in files.text(name).splitlines() if line.strip())
    return [image for image in found if image is not None]


def _texts(files: AnnotationFiles) -> list[str]:
    def is_other(name: str) -> bool:
        path = PurePosixPath(name)
        return path.stem.lower().startswith(("readme", "license")) or "ImageSets" in path.parts

    names = set(name_lists(files))
    return [name for name in files.ending(".txt") if name not in names and not is_other(name)]


def _is_list(files: AnnotationFiles, name: str) -> bool:
    start = _start(files, name)
    return bool(start.strip()) and not looks_like_labels(start)


def _is_label(files: AnnotationFiles, name: str, images: ImageIndex) -> bool:
    """Whether a text file is one of labels: in a folder of labels, with lines like them, or of the name of an image."""
    path = PurePosixPath(name)
    if any(part.lower() in {"labels", "label"} for part in path.parts[:-1]) or looks_like_labels(_start(files, name)):
        return True
    return images.resolve(path.stem, path.parent.as_posix()) is not None


def _start(files: AnnotationFiles, name: str) -> str:
    return files.head(name).decode("utf-8-sig", "replace")
