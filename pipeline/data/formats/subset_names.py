"""The split that comes with data, told from the words people name folders and files with."""

from __future__ import annotations

import re
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


def subset_named(word: str) -> str:
    """`train`, `eval` or `test` for a word such as `Validation`; empty for any other."""
    return _WORDS.get(word.strip().lower(), "")


def subset_of(path: str) -> str:
    """The subset that a path speaks of, such as `valid/_annotations.coco.json` or `instances_val2017.json`.

    The last folder or file name that has such a word counts; with words for two, as `train_val`, it says nothing.
    """
    for part in reversed(PurePosixPath(path).parts):
        found = {_WORDS[word] for word in re.findall("[a-z]+", part.lower()) if word in _WORDS}
        if found:
            return found.pop() if len(found) == 1 else ""
    return ""
