"""YOLO: a text file of labels for each image, beside it or in a folder `labels` where the image's is `images`.

An empty file means an image without objects. An image without a file is marked as unannotated, even where a list names
it, as a list only gives the subset. The images are those of the splits in `data.yaml`, or all where it names none that
is here. Sizes are those of the upright images, as the format has none.

A line has the index of a class, then a box or a polygon: see `yolo_rows`.

The classes are named in a `data.yaml` (https://docs.ultralytics.com/datasets/detect/#ultralytics-yolo-format), or in
one of the plain lists of names that Darknet and labelling tools write. Names are texts as written: `no` is no boolean
here, and `007` no number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

import yaml

from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Candidates
from pipeline.data.formats.assembly import Record, assemble
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.image_pairing import Reference
from pipeline.data.formats.scalars import is_number, label, number, shown, whole
from pipeline.data.formats.yolo_rows import EXPECTED, Row, Shape, read_row, row_shapes
from pipeline.data.images import is_image_name
from pipeline.data.parsed import ParsedImage, subset_named
from pipeline.errors import DataError

LOOKS_FOR = "text files with lines 'class x y width height', and data.yaml or classes.txt"
_LABEL_FOLDERS = {"labels", "label"}
_NAME_LISTS = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "predefined_classes.txt")
_DOTA = 10  # words in a line of DOTA's labels, which `labelTxt` holds
_NAMES = re.compile(r"""^[{\s]*["']?names["']?\s*:|[{,]\s*["']?names["']?\s*:""", re.MULTILINE)


@dataclass(frozen=True)
class _Description:
    """Class names by index, subsets with a path of each, and how many values of key points follow a box."""

    classes: tuple[str, ...]
    splits: Sequence[tuple[str, str]] = ()
    keypoint_values: int = 0
    file: str = ""


def candidates(files: AnnotationFiles) -> Candidates:
    """The text files, which should have label lines; then a `data.yaml`, alone where all images are empty."""
    for name in _texts(files):
        fits = looks_like_labels(files.head(name))
        yield name, "" if fits else f"{name} does not begin with a line '{EXPECTED}'"
    if files.named or not files.ending(".json", ".xml", ".csv"):
        yield from ((name, "") for name in data_files(files) + (name_lists(files) if files.named else ()))


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the labels of all images."""
    described = _description(files)
    texts = _texts(files)
    lists = [name for name in texts if is_image_list(files, name)]
    subsets = _subsets(files, described, lists, images)
    labels = {name: Counter[str]() for name in texts if name not in lists and _is_label(files, name, images)}
    rows = {name: _rows(files, name, described, left_out) for name, left_out in labels.items()}
    shapes = row_shapes(list(chain.from_iterable(rows.values())), described.keypoint_values, files.faults)
    found = (_record(name, rows[name], shapes, left_out) for name, left_out in labels.items())
    return assemble(found, files, images, described.classes, subsets=subsets, listed=subsets or images.names)


def _rows(files: AnnotationFiles, file: str, described: _Description, left_out: Counter[str]) -> list[Row]:
    rows: list[Row] = []
    for i, line in enumerate(files.text(file).splitlines(), 1):
        if words := line.split():
            where = f"{file}:{i}"
            with files.faults.of(left_out):
                if len(words) == _DOTA and not is_number(words[8]):
                    problem, remedy = "a line has its class after four corners, as of DOTA", "export it as YOLOv8 OBB"
                    raise DataError(problem, where=where, expected=EXPECTED, remedy=remedy)
                name = _class_of(words[0], described.classes, where)
                rows.append(Row(name, tuple(number(word, "a coordinate", where) for word in words[1:]), where))
    return rows


def _class_of(word: str, classes: Sequence[str], where: str) -> str:
    index = whole(word, "the class", where)
    if 0 <= index < len(classes):
        return classes[index]
    problem, expected = f"a line is of class {index}, which has no name", f"0 to {len(classes) - 1}"
    remedy = "add the name to data.yaml or classes.txt, or correct the line"
    raise DataError(problem, where=where, expected=expected, remedy=remedy)


def _record(file: str, rows: Sequence[Row], shapes: Mapping[int, Shape], left_out: Counter[str]) -> Record:
    boxes = [read_row(row, shapes[len(row.values)]) for row in rows if len(row.values) in shapes]
    return Record(Reference("", file, own=True), ParsedImage("", 0, 0, boxes, left_out=left_out), in_fractions=True)


def data_files(files: AnnotationFiles) -> tuple[str, ...]:
    """The YAML files with class names; others are not parsed."""
    named = (name for name in files.ending(".yaml", ".yml") if _NAMES.search(files.text(name)))
    return tuple(name for name in named if "names" in _loaded(files, name))


def name_lists(files: AnnotationFiles) -> tuple[str, ...]:
    """The plain lists of class names, the best known first. A file of labels may be called `labels.txt`, too."""
    ranks = {name: i for i, name in enumerate(_NAME_LISTS)}
    found = [name for name in files.names if _last(name).lower() in ranks or name.endswith(".names")]
    found.sort(key=lambda name: (ranks.get(_last(name).lower(), len(ranks)), name))
    return tuple(name for name in found if not looks_like_labels(files.head(name)))


def looks_like_labels(text: str) -> bool:
    """Whether the first non-empty line could be one of a label file."""
    words = next((line.split() for line in text.splitlines() if line.strip()), [])
    if len(words) < 5 or not all(map(is_number, words)):
        return False
    return float(words[0]).is_integer() and float(words[0]) >= 0


def is_image_list(files: AnnotationFiles, name: str) -> bool:
    """Whether a file is a list of images such as `train.txt`."""
    if not name.lower().endswith(".txt") or not subset_named(PurePosixPath(name).stem):
        return False
    start = files.head(name)
    return bool(start.strip()) and not looks_like_labels(start)


def _subsets(
    files: AnnotationFiles, described: _Description, lists: Sequence[str], images: ImageIndex
) -> dict[str, str]:
    """Subset by image, from the folders and lists that `data.yaml` names, or from lists such as `train.txt`.

    Images that a list names and that do not exist have no size, so no boxes, and are not reported as missing.
    """
    subsets: dict[str, str] = {}
    folder = PurePosixPath(described.file).parent.as_posix()
    for subset, path in described.splits or [(subset_named(PurePosixPath(name).stem), name) for name in lists]:
        found: Iterable[str | None] = ()
        if is_image_name(path):
            found = [images.resolve(path, folder)]
        elif not path.lower().endswith(".txt"):
            found = images.within(path)
        elif name := _list_at(files, path):
            beside = PurePosixPath(name).parent.as_posix()
            found = (images.resolve(line.strip(), beside) for line in files.text(name).splitlines() if line.strip())
        subsets |= {image: subset for image in found if image and image not in subsets}
    return subsets


def _list_at(files: AnnotationFiles, path: str) -> str:
    """The list at a path, of which leading folders may be those of another machine; empty where there is none."""
    ends = [name for name in files.names if f"/{path}".endswith(f"/{name}")]
    ends = ends or [name for name in files.names if _last(name) == _last(path)][:1]
    return max(ends, key=len, default="")


def _texts(files: AnnotationFiles) -> list[str]:
    others = set(name_lists(files))
    others |= {name for name in files.names if _last(name).lower().startswith(("readme", "license"))}
    return [name for name in files.ending(".txt") if name not in others and "ImageSets" not in name.split("/")]


def _is_label(files: AnnotationFiles, name: str, images: ImageIndex) -> bool:
    """Whether a text file has labels: it is in a folder of labels, has lines like them, or has an image's name."""
    path = PurePosixPath(name)
    if any(part.lower() in _LABEL_FOLDERS for part in path.parts[:-1]) or looks_like_labels(files.head(name)):
        return True
    return images.resolve(path.stem, path.parent.as_posix()) is not None


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _description(files: AnnotationFiles) -> _Description:
    found = {name: _described(_loaded(files, name), name) for name in data_files(files)}
    if not found:
        found = {
            name: _Description(classes, file=name) for name in name_lists(files) if (classes := _listed(files, name))
        }
    if len({each.classes for each in found.values()}) > 1:
        problem = f"{len(found)} files name the classes, and they differ: {', '.join([*found][:5])}"
        raise DataError(problem, remedy="name the right one in annotations_member, or remove the others")
    if found:
        return next(iter(found.values()))
    expected = f"data.yaml with 'names', or one of {', '.join(_NAME_LISTS)}"
    remedy = "add a classes.txt with one name a line, in the order of the indices, or name one in annotations_url"
    raise DataError("the classes of the labels have no names", where=files.folder, expected=expected, remedy=remedy)


def _loaded(files: AnnotationFiles, name: str) -> dict[str, Any]:
    text = files.text(name)
    try:
        content = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - it makes texts of all scalars, and nothing else
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"the file is not YAML: {reason}", where=name, expected="a YOLO data.yaml") from error
    return content if isinstance(content, dict) else {}


def _described(content: dict[str, Any], name: str) -> _Description:
    splits = []
    for key in ("train", "val", "valid", "test"):
        paths = content.get(key)
        texts = [each for each in (paths if isinstance(paths, list) else [paths]) if each and isinstance(each, str)]
        splits += [(subset_named(key), each.replace("\\", "/")) for each in texts]
    shape, values = content.get("kpt_shape"), 0
    if shape is not None:
        fits = isinstance(shape, list) and len(shape) == 2 and all(str(each).isdecimal() for each in shape)
        points, each = map(int, shape) if fits else (0, 0)
        if not 0 < points < 10_000 or each not in (2, 3):
            raise DataError(f"'kpt_shape' is {shown(shape)}", where=name, expected="[number of key points, 2 or 3]")
        values = points * each
    return _Description(_names(content["names"], name), splits, values, name)


def _names(raw: Any, where: str) -> tuple[str, ...]:
    names = raw
    if isinstance(raw, dict):
        by_index, indices = dict(raw), [str(i) for i in range(len(raw))]
        if set(by_index) != set(indices):
            problem = f"the indices of the {len(raw)} names are not 0 to {len(raw) - 1}"
            raise DataError(problem, where=where, expected="each index once", remedy="correct 'names'")
        names = [by_index[i] for i in indices]
    if not isinstance(names, list) or not names:
        raise DataError(f"'names' is {shown(raw)}", where=where, expected="a list of class names, or names by index")
    return tuple(label(each, where) for each in names)


def _listed(files: AnnotationFiles, name: str) -> tuple[str, ...]:
    """Names, one a line. An empty line between them would shift all later ones, and is refused."""
    lines = [line.strip() for line in files.text(name).rstrip().splitlines()]
    if "" in lines:
        where = f"{name}:{lines.index('') + 1}"
        raise DataError("a class has no name", where=where, expected="one name a line", remedy="add the name")
    return tuple(lines)
