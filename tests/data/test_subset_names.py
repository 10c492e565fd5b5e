from __future__ import annotations

from typing import Any

import pytest

from pipeline.data.subset_names import class_folders, subset_named, subset_of


@pytest.mark.parametrize(
    ("path", "subset"),
    [
        pytest.param("train/_annotations.coco.json", "train", id="folder"),
        pytest.param("annotations/instances_val2017.json", "eval", id="file"),
        pytest.param("Validation-annotations-bbox.csv", "eval", id="other words, other case"),
        pytest.param("train/test/a.xml", "test", id="the last counts"),
        pytest.param("TEST_SET/labels", "test", id="part of a name"),
        pytest.param("instances_trainval2017.json", "", id="trainval"),
        pytest.param("train_val/a.xml", "", id="both"),
        pytest.param("contest/trains.csv", "", id="part of a word"),
        pytest.param(".", "", id="nothing"),
    ],
)
def test_paths(path: str, subset: str) -> None:
    assert subset_of(path) == subset


@pytest.mark.parametrize(
    ("word", "subset"), [("Train", "train"), (" valid ", "eval"), ("Test", "test"), ("default", "")]
)
def test_words(word: str, subset: str) -> None:
    assert subset_named(word) == subset


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        pytest.param(["bus/1.jpg", "train/1.jpg", "car/1.jpg", "test/1.jpg"], {"train", "test"}, id="classes"),
        pytest.param(["train/bus/1.jpg", "train/train/1.jpg", "val/bus/1.jpg"], {"train/train"}, id="within subsets"),
        pytest.param(["train/1.jpg", "valid/1.jpg", "test2/1.jpg", "a.jpg"], set(), id="subsets"),
        pytest.param(["images/train/1.jpg", "images/more/1.jpg"], set(), id="within images"),
        pytest.param(["train/images/1.jpg", "more/images/1.jpg"], set(), id="around images"),
        pytest.param(["train/1.jpg", "annotations/1.xml"], set(), id="beside annotations"),
    ],
)
def test_folders_of_classes(names: list[Any], classes: Any) -> None:
    assert class_folders(names) == classes


def test_a_folder_of_a_class_says_no_subset() -> None:
    classes = {"train", "val/train"}
    paths = ("train/a.xml", "Annotations/train/a.xml", "val/train/a.xml", "x/test/a.xml", "train/test/a.xml")
    assert [subset_of(path, classes) for path in paths] == ["", "", "eval", "test", "test"]
