from __future__ import annotations

from typing import Any

import pytest
from cases import cases

from pipeline.data.parsed import class_folders, subset_named, subset_of


@cases(
    "path, subset",
    {
        "folder": ("train/_annotations.coco.json", "train"),
        "file": ("annotations/instances_val2017.json", "eval"),
        "other words, other case": ("Validation-annotations-bbox.csv", "eval"),
        "the last counts": ("train/test/a.xml", "test"),
        "part of a name": ("TEST_SET/labels", "test"),
        "trainval": ("instances_trainval2017.json", ""),
        "both": ("train_val/a.xml", ""),
        "part of a word": ("contest/trains.csv", ""),
        "nothing": (".", ""),
    },
)
def test_paths(path: str, subset: str) -> None:
    assert subset_of(path) == subset


@pytest.mark.parametrize(
    ("word", "subset"), [("Train", "train"), (" valid ", "eval"), ("Test", "test"), ("default", "")]
)
def test_words(word: str, subset: str) -> None:
    assert subset_named(word) == subset


@cases(
    "names, classes",
    {
        "classes": (["bus/1.jpg", "train/1.jpg", "car/1.jpg", "test/1.jpg"], {"train", "test"}),
        "within subsets": (["train/bus/1.jpg", "train/train/1.jpg", "val/bus/1.jpg"], {"train/train"}),
        "subsets": (["train/1.jpg", "valid/1.jpg", "test2/1.jpg", "a.jpg"], set()),
        "within images": (["images/train/1.jpg", "images/more/1.jpg"], set()),
        "around images": (["train/images/1.jpg", "more/images/1.jpg"], set()),
        "beside annotations": (["train/1.jpg", "annotations/1.xml"], set()),
    },
)
def test_folders_of_classes(names: list[Any], classes: Any) -> None:
    assert class_folders(names) == classes


def test_a_folder_of_a_class_says_no_subset() -> None:
    classes = {"train", "val/train"}
    paths = ("train/a.xml", "Annotations/train/a.xml", "val/train/a.xml", "x/test/a.xml", "train/test/a.xml")
    assert [subset_of(path, classes) for path in paths] == ["", "", "eval", "test", "test"]
