"""YOLO: a text file of labels for each image, beside it or in a folder `labels` where the image's is `images`.

An empty file means an image without objects. An image without a file is marked as unannotated, even where a list names
it, as a list only gives the subset. The images are those of the splits in `data.yaml`, or all where it names none that
is here. Sizes are those of the upright images, as the format has none.

A line has the index of a class, then a box, a polygon, or a box and key points. Reference:
https://docs.ultralytics.com/datasets/detect/ and /segment/, /pose/, /obb/. Coordinates are fractions of the image's
width and height; a box has its centre and size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from pipeline.data.boxes import flat, hull, polygon_area
from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Recognition, claim, number, shown
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.yolo_data import YoloData, data_files, looks_like_labels, name_lists, read_data
from pipeline.data.parsed import ParsedBox, ParsedImage, to_coco
from pipeline.data.subset_names import subset_named
from pipeline.errors import DataError

LOOKS_FOR = "text files with lines 'class x y width height', and data.yaml or classes.txt"
_EXPECTED = "class x-centre y-centre width height, or class x1 y1 x2 y2 x3 y3 …, as fractions of the image's size"


def recognises(files: AnnotationFiles) -> Recognition:
    """Whether a text file has label lines, or there is only a `data.yaml`, as where all images are empty."""
    texts = _texts(files)
    for name in texts:
        if looks_like_labels(files.head(name)):
            return Recognition(name)
    if files.named or not files.ending(".json", ".xml", ".csv"):
        described = data_files(files) + (name_lists(files) if files.named else ())
        if described:
            return Recognition(described[0])
    return Recognition(why_not=f"{texts[0]} does not begin with a line '{_EXPECTED}'" if texts else "")


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the labels of all images.

    Labels without an image are listed under their own name, without objects, as their boxes have no size.

    Raises:
        DataError: A line is malformed or of an unknown class, or there are no class names; names the line.
    """
    data = read_data(files)
    texts = _texts(files)
    lists = {name for name in texts if subset_named(PurePosixPath(name).stem) and _is_list(files, name)}
    subsets = _subsets(files, data, lists, images)
    labels: dict[str, str] = {}
    for name in texts:
        if name not in lists and _is_label(files, name, images):
            claim(labels, _image_of(name, images), name)
    listed = set(subsets) if subsets else images.names
    found = (_image(files, name, labels.get(name, ""), images, data, subsets) for name in listed | set(labels))
    return to_coco(found, data.classes)


def _image(
    files: AnnotationFiles, name: str, labels: str, images: ImageIndex, data: YoloData, subsets: Mapping[str, str]
) -> ParsedImage:
    size = images.size(name)
    lines = files.text(labels).splitlines() if labels else ()
    boxes = [
        _box(line.split(), f"{labels}:{i}", data.classes, size, data.keypoint_values)
        for i, line in enumerate(lines, 1)
        if line.strip()
    ]
    subset = subsets.get(name) or images.subset_of(PurePosixPath(name).parent.as_posix())
    sized = all(size)
    return ParsedImage(
        name, *size, boxes if sized else (), subset, annotated=bool(labels), unusable=bool(boxes) and not sized
    )


def _box(
    words: list[str], where: str, classes: Sequence[str], size: tuple[int, int], keypoint_values: int
) -> ParsedBox:
    """The object of a line: 5 values are a box, 6 one with its confidence, more of an odd count a polygon."""
    name = _class(words[0], where, classes)
    is_box = len(words) in {5, 6} or (keypoint_values and len(words) == 5 + keypoint_values)
    if not is_box and (len(words) < 7 or len(words) % 2 == 0):
        problem = f"a line has {len(words)} values"
        raise DataError(problem, where=where, expected=_EXPECTED, remedy="correct the line, or remove it")
    values = [number(word, "a coordinate", where) for word in words[1:]]
    width, height = size
    if is_box:
        x, y, across, down = values[:4]
        return ParsedBox(name, ((x - across / 2) * width, (y - down / 2) * height, across * width, down * height))
    points = [(x * width, y * height) for x, y in zip(values[::2], values[1::2], strict=True)]
    return ParsedBox(name, hull(points), 0, [flat(points)], polygon_area(points))


def _class(word: str, where: str, classes: Sequence[str]) -> str:
    index = number(word, "the class", where)
    if not index.is_integer():
        raise DataError(f"the class is {shown(word)} where an index was expected", where=where, expected=_EXPECTED)
    if not 0 <= index < len(classes):
        raise DataError(
            f"a line is of class {int(index)}, which has no name",
            where=where,
            expected=f"0 to {len(classes) - 1}: there are {len(classes)} names",
            remedy="add the name to data.yaml or classes.txt, or correct the line",
        )
    return classes[int(index)]


def _image_of(label: str, images: ImageIndex) -> str:
    """The image of a label file: in the folder `images` that goes with its folder `labels`, or beside it."""
    path = PurePosixPath(label)
    parts = path.parent.parts
    for i in reversed([i for i, part in enumerate(parts) if part.lower() in {"labels", "label"}]):
        found = images.in_folder(path.stem, "/".join([*parts[:i], "images", *parts[i + 1 :]]))
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
    found = [name for name in files.names if wanted.endswith(name)]
    found = found or [name for name in files.names if PurePosixPath(name).name == PurePosixPath(wanted).name]
    return _in_list(files, found[0], images) if found else ()


def _in_list(files: AnnotationFiles, name: str, images: ImageIndex) -> Iterable[str]:
    """The existing images that a list names; the others have no size, so no boxes, and are not reported as missing."""
    beside = PurePosixPath(name).parent.as_posix()
    found = (images.resolve(line.strip(), beside) for line in files.text(name).splitlines() if line.strip())
    return [image for image in found if image is not None]


def _texts(files: AnnotationFiles) -> list[str]:
    """The text files that may be labels or lists of images."""

    def is_other(name: str) -> bool:
        path = PurePosixPath(name)
        return path.stem.lower().startswith(("readme", "license")) or "ImageSets" in path.parts

    names = set(name_lists(files))
    return [name for name in files.ending(".txt") if name not in names and not is_other(name)]


def _is_list(files: AnnotationFiles, name: str) -> bool:
    start = files.head(name)
    return bool(start.strip()) and not looks_like_labels(start)


def _is_label(files: AnnotationFiles, name: str, images: ImageIndex) -> bool:
    """Whether a text file has labels: it is in a folder of labels, has lines like them, or has an image's name."""
    path = PurePosixPath(name)
    if any(part.lower() in {"labels", "label"} for part in path.parts[:-1]) or looks_like_labels(files.head(name)):
        return True
    return images.resolve(path.stem, path.parent.as_posix()) is not None
