"""The split that comes with data, from the usual names of folders and files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "dev"), "eval"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_PLACES = ("image", "img", "label", "annotation")  # in names of folders of datasets, also `JPEGImages` and `labelTxt`


def subset_named(word: str) -> str:
    """`train`, `eval` or `test` for a word such as `Validation`; empty for any other."""
    return _WORDS.get(word.strip().lower(), "")


def subset_of(path: str, classes: Collection[str] = ()) -> str:
    """The subset that a POSIX path names, such as `valid/_annotations.coco.json` or `instances_val2017.json`.

    The last folder or file name with such a word counts; with words for two subsets, as `train_val`, none is named.
    Folders named after classes, as found by `class_folders`, name no subset.
    """
    parts = PurePosixPath(path).parts
    for i in range(len(parts), 0, -1):
        found = _subsets(parts[i - 1])
        # Annotations may be in a folder of their own: `Annotations/train` belongs to the images' `train`.
        if found and not {"/".join(parts[:i]), "/".join(parts[1:i])}.intersection(classes):
            return found.pop() if len(found) == 1 else ""
    return ""


def class_folders(names: Iterable[str]) -> frozenset[str]:
    """The folders such as `train` that name classes, as they are beside others such as `bus` and `car`.

    Folders within or around a folder of images or labels name subsets in any case.
    """
    inside: dict[PurePosixPath, set[str]] = {}
    for folder in {folder for name in names for folder in PurePosixPath(name).parents if folder.name}:
        inside.setdefault(folder.parent, set()).add(folder.name)
    return frozenset(
        (parent / each).as_posix()
        for parent, folders in inside.items()
        if not any(map(_is_place, parent.parts)) and not all(_subsets(each) or _is_place(each) for each in folders)
        for each in folders
        if _subsets(each) and not any(map(_is_place, inside.get(parent / each, ())))
    )


def _subsets(part: str) -> set[str]:
    return {_WORDS[word] for word in re.findall("[a-z]+", part.lower()) if word in _WORDS}


def _is_place(folder: str) -> bool:
    return any(word in folder.lower() for word in _PLACES)
