"""The split that comes with data, from the usual names of folders and files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

_WORDS = {
    "train": "train",
    "training": "train",
    "val": "eval",
    "valid": "eval",
    "validation": "eval",
    "eval": "eval",
    "dev": "eval",
    "test": "test",
    "testing": "test",
}
_PLACES = ("image", "img", "label", "annotation")  # in names of folders of datasets, also `JPEGImages` and `labelTxt`


def subset_named(word: str) -> str:
    """`train`, `eval` or `test` for a word such as `Validation`; empty for any other."""
    return _WORDS.get(word.strip().lower(), "")


def subset_of(path: str, classes: Collection[str] = ()) -> str:
    """The subset that a path names, such as `valid/_annotations.coco.json` or `instances_val2017.json`.

    The last folder or file name with such a word counts; with words for two subsets, as `train_val`, none is named.

    Args:
        path: A POSIX path.
        classes: Folders named after classes, as found by `class_folders`; they name no subset.
    """
    parts = PurePosixPath(path).parts
    for i in range(len(parts), 0, -1):
        found = _subsets(parts[i - 1])
        # Annotations may be in a folder of their own: `Annotations/train` belongs to the images' `train`.
        if found and not ("/".join(parts[:i]) in classes or "/".join(parts[1:i]) in classes):
            return found.pop() if len(found) == 1 else ""
    return ""


def class_folders(names: Iterable[str]) -> frozenset[str]:
    """The folders such as `train` that name classes, as they are beside others such as `bus` and `car`.

    Folders within or around a folder of images or labels name subsets in any case.
    """
    beside: dict[str, set[str]] = {}
    for folder in {folder for name in names for folder in PurePosixPath(name).parents}:
        if folder.name:
            beside.setdefault(folder.parent.as_posix(), set()).add(folder.name)
    found = set()
    for parent, folders in beside.items():
        if any(map(_is_place, PurePosixPath(parent).parts)) or all(
            _subsets(each) or _is_place(each) for each in folders
        ):
            continue
        for each in folders:
            path = each if parent == "." else f"{parent}/{each}"
            if _subsets(each) and not any(map(_is_place, beside.get(path, ()))):
                found.add(path)
    return frozenset(found)


def _subsets(part: str) -> set[str]:
    return {_WORDS[word] for word in re.findall("[a-z]+", part.lower()) if word in _WORDS}


def _is_place(folder: str) -> bool:
    return any(word in folder.lower() for word in _PLACES)
