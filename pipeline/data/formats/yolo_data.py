"""The description of a YOLO dataset: class names, splits, number of key points.

It is a `data.yaml` (https://docs.ultralytics.com/datasets/detect/#ultralytics-yolo-format), or one of the plain lists
of names that Darknet and labelling tools write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

from pipeline.data.formats.annotation_files import AnnotationFiles, is_number, label, shown
from pipeline.data.subset_names import subset_named
from pipeline.errors import DataError

_NAME_LISTS = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "predefined_classes.txt")
_NAMES = re.compile(r"""^[{\s]*["']?names["']?\s*:|[{,]\s*["']?names["']?\s*:""", re.MULTILINE)


@dataclass(frozen=True)
class YoloData:
    """Class names by index, the paths of each subset as written, and how many values of key points follow a box."""

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keypoint_values: int = 0


def data_files(files: AnnotationFiles) -> tuple[str, ...]:
    """The YAML files with class names; others are not parsed."""
    named = (name for name in files.ending(".yaml", ".yml") if _NAMES.search(files.text(name)))
    return tuple(name for name in named if "names" in _loaded(files, name))


def name_lists(files: AnnotationFiles) -> tuple[str, ...]:
    """The plain lists of class names, the best known first. A file of labels may be called `labels.txt`, too."""

    def rank(name: str) -> tuple[int, str]:
        last = PurePosixPath(name).name.lower()
        return _NAME_LISTS.index(last) if last in _NAME_LISTS else len(_NAME_LISTS), name

    lists = (name for name in files.names if rank(name)[0] < len(_NAME_LISTS) or name.endswith(".names"))
    return tuple(sorted((name for name in lists if not looks_like_labels(files.head(name))), key=rank))


def looks_like_labels(text: str) -> bool:
    """Whether the first non-empty line could be one of a label file."""
    words = next((line.split() for line in text.splitlines() if line.strip()), [])
    if len(words) < 5 or not all(map(is_number, words)):
        return False
    return float(words[0]).is_integer() and float(words[0]) >= 0


def read_data(files: AnnotationFiles) -> YoloData:
    """Read the dataset's description.

    Raises:
        DataError: There is none, it is broken, or there are several that differ.
    """
    found = data_files(files)
    if found:
        described = {name: _described(_loaded(files, name), name) for name in found}
        if len({each.classes for each in described.values()}) > 1:
            raise _several(found)
        return described[found[0]]
    lists = {name: _listed(files, name) for name in name_lists(files)}
    lists = {name: classes for name, classes in lists.items() if classes}
    if len(set(lists.values())) > 1:
        raise _several(tuple(lists))
    for classes in lists.values():
        return YoloData(classes)
    raise DataError(
        "there are YOLO labels, but no names for their classes",
        where=files.folder,
        expected=f"data.yaml with 'names', or one of {', '.join(_NAME_LISTS)}",
        remedy="add a classes.txt with one name a line, in the order of the indices, or name one in annotations_url",
    )


def _several(names: tuple[str, ...]) -> DataError:
    return DataError(
        f"{len(names)} files name the classes, and they differ: {', '.join(names[:5])}",
        expected="one of them",
        remedy="name the right one in annotations_member, or remove the others",
    )


def _loaded(files: AnnotationFiles, name: str) -> dict[str, Any]:
    text = files.text(name)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"the file is not YAML: {reason}", where=name, expected="a YOLO data.yaml") from error
    return content if isinstance(content, dict) else {}


def _described(content: dict[str, Any], name: str) -> YoloData:
    splits: dict[str, tuple[str, ...]] = {}
    for key in ("train", "val", "valid", "test"):
        paths = content.get(key)
        listed = paths if isinstance(paths, list) else [paths]
        texts = tuple(each for each in listed if isinstance(each, str) and each)
        if texts:
            splits[subset_named(key)] = splits.get(subset_named(key), ()) + texts
    return YoloData(_names(content["names"], name), splits, _keypoint_values(content.get("kpt_shape"), name))


def _names(raw: Any, where: str) -> tuple[str, ...]:
    names = raw
    if isinstance(raw, dict):
        indices = [int(each) if str(each).isdecimal() and len(str(each)) < 10 else -1 for each in raw]
        if sorted(indices) != list(range(len(raw))):
            problem = f"the indices of the {len(raw)} names are not 0 to {len(raw) - 1}"
            raise DataError(problem, where=where, expected="each index once", remedy="correct 'names'")
        names = [each for _, each in sorted(zip(indices, raw.values(), strict=True), key=lambda pair: pair[0])]
    if not isinstance(names, list) or not names:
        raise DataError(f"'names' is {shown(raw)}", where=where, expected="a list of class names, or names by index")
    for each in names:
        # A YAML scalar may be a number (a class called 7) or a boolean (a class called no).
        if not isinstance(each, str | int | float):
            raise DataError(f"a class name is {shown(each)}", where=where, expected="a text", remedy="put it in quotes")
    return tuple(label(str(each), where) for each in names)


def _keypoint_values(shape: Any, where: str) -> int:
    if shape is None:
        return 0
    fits = isinstance(shape, list) and len(shape) == 2 and all(each.__class__ is int for each in shape)
    if not fits or not 0 < shape[0] < 10_000 or shape[1] not in (2, 3):
        raise DataError(f"'kpt_shape' is {shown(shape)}", where=where, expected="[number of key points, 2 or 3]")
    return int(shape[0] * shape[1])


def _listed(files: AnnotationFiles, name: str) -> tuple[str, ...]:
    """Names, one a line. An empty line between them would shift all later ones, and is refused."""
    lines = [line.strip() for line in files.text(name).rstrip().splitlines()]
    if "" in lines:
        where = f"{name}:{lines.index('') + 1}"
        raise DataError("a class has no name", where=where, expected="one name a line", remedy="add the name")
    return tuple(lines)
