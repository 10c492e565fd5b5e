"""The split that comes with data, told from the words people name folders and files with."""

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
_PLACES = ("image", "img", "label", "annotation")  # folders of whole data sets, `JPEGImages` and `labelTxt` too


def subset_named(word: str) -> str:
    """`train`, `eval` or `test` for a word such as `Validation`; empty for any other."""
    return _WORDS.get(word.strip().lower(), "")


def subset_of(path: str, classes: Collection[str] = ()) -> str:
    """The subset that a path speaks of, such as `valid/_annotations.coco.json` or `instances_val2017.json`.

    The last folder or file name that has such a word counts; with words for two, as `train_val`, it says nothing.

    Args:
        path: A POSIX path.
        classes: Folders that are named after classes, as `class_folders` finds them, and so after no subset.
    """
    parts = PurePosixPath(path).parts
    for i in range(len(parts), 0, -1):
        found = _subsets(parts[i - 1])
        # Annotations may lie in a folder of their own: `Annotations/train` goes with the images' `train`.
        if found and not ("/".join(parts[:i]) in classes or "/".join(parts[1:i]) in classes):
            return found.pop() if len(found) == 1 else ""
    return ""


def class_folders(names: Iterable[str]) -> frozenset[str]:
    """The folders `train` and `test` that stand beside `bus` and `car`: those are classes, and none of them a subset.

    Folders within or around one of images or labels are subsets, whatever stands beside them.

    Args:
        names: Files, as POSIX paths.
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
