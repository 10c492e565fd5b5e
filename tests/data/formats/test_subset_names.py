from __future__ import annotations

import pytest

from pipeline.data.formats.subset_names import subset_named, subset_of


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
def test_paths(path, subset):
    assert subset_of(path) == subset


@pytest.mark.parametrize(
    ("word", "subset"), [("Train", "train"), (" valid ", "eval"), ("Test", "test"), ("default", "")]
)
def test_words(word, subset):
    assert subset_named(word) == subset
