from __future__ import annotations

import warnings

import pytest

from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.report.class_figures import class_histogram, co_occurrence
from pipeline.data.report.figure_style import labels, unwritten, written
from pipeline.data.split.dataset_split import Split

NAMES = ["日本語", "人 person", "$x^2$", "_hidden", "naïve Ελλάδα, Москва", "two\nlines\x07", " ", "😀", "صورة"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        pytest.param("cat", "cat", id="plain"),
        pytest.param("Ελλάδα, Москва", "Ελλάδα, Москва", id="greek-and-cyrillic"),
        pytest.param("日本語", "#7", id="a-script-the-font-lacks"),
        pytest.param("人 person", "#7 person", id="half-of-it"),
        pytest.param(" two\nlines\t", "two lines", id="lines"),
        pytest.param("bell\x07", "#7 bell", id="control"),
        pytest.param(" ", "#7", id="blank"),
        pytest.param("a valve of the pump house (left)", "a valve of the …e (left)", id="long"),
    ],
)
def test_labels(name: str, label: str) -> None:
    assert labels([Category(7, name)]) == [label]
    assert len(label) <= 24
    assert unwritten([Category(7, name)]) == ({label: name} if label.startswith("#") else {})


def test_a_text_that_fits_stays() -> None:
    assert written("a" * 24, 24) == "a" * 24
    assert len(written("a" * 25, 24)) == 24


def test_charts_write_every_name_without_a_missing_letter() -> None:
    """Matplotlib warns of a letter that the font lacks, and takes what is between dollars for a formula."""
    categories = tuple(Category(i, name) for i, name in enumerate(NAMES))
    boxes = tuple(Annotation(i, 1, i, (0.0, 0.0, 9.0, 9.0), 81.0) for i in range(len(NAMES)))
    dataset = CocoDataset((Image(1, "a.jpg", 9, 9),), boxes, categories)
    charts = [class_histogram(Split(dataset, dataset, dataset)), co_occurrence(dataset)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for chart in charts:
            chart.to_png()
    shown = [each.get_text() for each in charts[0].axes[0].get_yticklabels()]
    assert shown == labels(categories)
    assert not any(each.get_parse_math() for chart in charts for each in chart.axes[0].get_yticklabels())
