from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.data.checks.findings import Finding
from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.dataset_folder import write_subset
from pipeline.data.report.dataset_figures import class_histogram
from pipeline.data.report.sample_images import choose_findings, class_samples, sample_grid, worst_examples
from pipeline.data.sample import make_sample
from pipeline.errors import UsageError


def shown(gallery: Any) -> Any:
    return {row.heading: [each.caption for each in row.images] for row in gallery.rows}


def test_a_row_for_each_class_by_how_frequent_it_is(two_classes: Any) -> None:
    gallery = class_samples(two_classes.dataset, two_classes.folder, count=9)
    rows = shown(gallery)
    assert list(rows) == ["dog (3 boxes)", "cat (2 boxes)"]
    assert sorted(rows["dog (3 boxes)"]) == ["0.png", "1.png", "2.png"]
    assert sorted(rows["cat (2 boxes)"]) == ["0.png", "3.png"]  # not 3.png as a dog: that is a crowd
    assert {each.alt for row in gallery.rows for each in row.images} >= {"dog in 0.png", "cat in 0.png"}


def test_as_many_as_asked_for_and_the_seed_decides(two_classes: Any) -> None:
    draws = [shown(class_samples(two_classes.dataset, two_classes.folder, count=1, seed=seed)) for seed in range(8)]
    assert all(len(names) == 1 for rows in draws for names in rows.values())
    assert len({rows["dog (3 boxes)"][0] for rows in draws}) > 1
    again = class_samples(two_classes.dataset, two_classes.folder, count=1, seed=3)
    assert again == class_samples(two_classes.dataset, two_classes.folder, count=1, seed=3)
    assert shown(again) == draws[3]


def test_the_order_of_the_records_makes_no_difference(two_classes: Any) -> None:
    dataset = two_classes.dataset
    turned = replace(dataset, images=dataset.images[::-1], annotations=dataset.annotations[::-1])
    assert class_samples(dataset, two_classes.folder) == class_samples(turned, two_classes.folder)


def test_no_image_twice_in_a_row_and_all_are_of_the_class(tmp_path: Path) -> None:
    dataset = make_sample(tmp_path, images=12)
    names = {each.id: each.file_name for each in dataset.images}
    rows = shown(class_samples(dataset, tmp_path, count=5))
    for category in dataset.categories:
        boxes = [each for each in dataset.annotations if each.category_id == category.id]
        captions = rows[f"{category.name} ({len(boxes)} boxes)"]
        having = {names[each.image_id] for each in boxes}
        assert len(captions) == len(set(captions)) == min(5, len(having))
        assert set(captions) <= having


def test_a_page_of_many_classes_stays_small(tmp_path: Path) -> None:
    images = tuple(Image(i, f"{i}.jpg", 100, 100) for i in range(300))
    annotations = tuple(Annotation(i, i % 300, i % 90, (1.0, 1.0, 50.0, 50.0), 2500.0) for i in range(900))
    dataset = CocoDataset(images, annotations, tuple(Category(i, f"kind {i}") for i in range(90)))
    gallery = class_samples(dataset, tmp_path, count=9)
    assert [len(row.images) for row in gallery.rows] == [2] * 80
    assert gallery.rows[0].images[0].alt.endswith("The file is missing.")


@pytest.mark.parametrize(
    ("boxes", "count", "words"),
    [
        pytest.param(False, 4, "There are no boxes to show.", id="no-boxes"),
        pytest.param(True, 0, "No samples were asked for.", id="none-asked-for"),
    ],
)
def test_nothing_to_show_is_said(two_classes: Any, boxes: bool, count: int, words: str) -> None:
    dataset = two_classes.dataset if boxes else replace(two_classes.dataset, annotations=())
    gallery = class_samples(dataset, two_classes.folder, count=count)
    assert gallery.rows == ()
    assert words in gallery._repr_html_()


def test_a_count_below_zero_is_refused(two_classes: Any) -> None:
    with pytest.raises(UsageError):
        class_samples(two_classes.dataset, two_classes.folder, count=-1)


def test_the_largest_box_of_the_class_is_shown(tmp_path: Path) -> None:
    """The view, all of the image or a part of it, is chosen by the larger of two boxes."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((300, 800, 3), np.uint8))
    boxes = ((700.0, 200.0, 9.0, 9.0), (10.0, 10.0, 700.0, 200.0))
    annotations = tuple(Annotation(i, 1, 1, box, box[2] * box[3]) for i, box in enumerate(boxes))
    dataset = CocoDataset((Image(1, "a.png", 800, 300),), annotations, (Category(1, "cat"),))
    both, small = dataset, replace(dataset, annotations=annotations[:1])
    sizes = [
        (each.width, each.height) for each in (class_samples(one, tmp_path).rows[0].images[0] for one in (both, small))
    ]
    assert sizes == [(260, 98), (240, 180)]


def finding(rule: Any, severity: Any = "warning", file_name: Any = "0.png", bbox: Any = None) -> Any:
    return Finding(rule, severity, f"image {file_name}", "repaired", f"what {rule} found", file_name, bbox)


def rules(findings: Any, count: Any) -> Any:
    return [(each.rule, each.file_name) for each in choose_findings(findings, count)]


MANY = [finding("outside", file_name=f"{i}.png") for i in range(50)]


@pytest.mark.parametrize(
    ("findings", "count", "expected"),
    [
        pytest.param([], 3, [], id="none"),
        pytest.param([finding("class", file_name="")], 3, [], id="about-no-image"),
        pytest.param(
            [*MANY, finding("broken", "error"), finding("dark", "info")],
            4,
            [("broken", "0.png"), ("outside", "0.png"), ("outside", "1.png"), ("dark", "0.png")],
            id="every-rule-has-a-turn-and-the-severe-come-first",
        ),
        pytest.param(
            [*MANY, finding("broken", "error"), finding("dark", "info")],
            2,
            [("broken", "0.png"), ("outside", "0.png")],
            id="too-few-places-go-to-the-severe",
        ),
        pytest.param([finding("twice"), finding("twice")], 9, [("twice", "0.png")], id="an-image-once-for-a-rule"),
        pytest.param(
            [finding("mixed", "info", "a.png"), finding("mixed", "error", "b.png")],
            1,
            [("mixed", "b.png")],
            id="the-severest-of-a-rule",
        ),
        pytest.param(MANY, 0, [], id="none-asked-for"),
    ],
)
def test_chosen_findings(findings: Any, count: int, expected: list[Any]) -> None:
    assert rules(findings, count) == expected


def test_findings_as_images_and_texts(two_classes: Any) -> None:
    (two_classes.folder / "broken.png").write_bytes(b"nothing")
    gallery = worst_examples(
        [
            finding("outside", bbox=(-5.0, 0.0, 30.0, 30.0)),
            finding("broken", "error", "broken.png"),
            finding("missing", "error", "gone <b>.png"),
        ],
        two_classes.folder,
    )
    broken, missing, outside = gallery.rows[0].images
    assert outside.data.startswith(b"\xff\xd8\xff")
    assert outside.caption == "outside, repaired: what outside found (0.png)"
    assert (broken.data, broken.alt) == (b"", "The file is not an image that can be shown.")
    assert (missing.data, missing.alt) == (b"", "The file is missing.")
    page = gallery._repr_html_()
    assert page.count("<img") == 1
    assert "gone &lt;b&gt;.png" in page
    assert "The file is missing." in page


def test_no_finding_is_about_an_image() -> None:
    assert "No finding is about an image." in worst_examples([], Path("nowhere"))._repr_html_()


def pixels(chart: Any) -> Any:
    return cv2.imdecode(np.frombuffer(chart._repr_png_(), np.uint8), cv2.IMREAD_COLOR)


def test_grid_shows_boxes(tiny: tuple[CocoDataset, Path], tmp_path: Path) -> None:
    write_subset(*tiny, tmp_path / "with")
    write_subset(replace(tiny[0], annotations=()), tiny[1], tmp_path / "without")
    bare, boxed = (pixels(sample_grid(tmp_path / name, count=3)) for name in ("without", "with"))
    assert bare.shape == boxed.shape
    assert (bare != boxed).any(axis=2).mean() > 0.01
    assert len(sample_grid(tmp_path / "with", count=2).axes) == 2


def test_grid_of_crowds_and_many_classes(tiny: tuple[CocoDataset, Path], tmp_path: Path) -> None:
    dataset, pictures = tiny
    categories = tuple(Category(i, f"class {i}") for i in range(1, 31))
    crowd = tuple(Annotation(i, 1, i, (float(i), 2.0, 9.0, 9.0), 81.0, iscrowd=i % 2) for i in range(1, 31))
    write_subset(CocoDataset(dataset.images, crowd, categories), pictures, tmp_path / "out")
    assert pixels(sample_grid(tmp_path / "out")).std() > 5


def test_grid_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        sample_grid(tmp_path, count=0)


def test_odd_names_are_written(tiny: tuple[CocoDataset, Path], tmp_path: Path) -> None:
    dataset, pictures = tiny
    named = replace(dataset, categories=(Category(7, "日本語"), Category(3, "$x^2$ & y")))
    (pictures / "1.png").rename(pictures / "a $b$ 日本.png")
    images = (replace(named.images[0], file_name="a $b$ 日本.png"), *named.images[1:])
    write_subset(replace(named, images=images), pictures, tmp_path / "out")
    chart = sample_grid(tmp_path / "out")
    assert "a $b$ .png" in [axes.get_title() for axes in chart.axes]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(chart).std() > 5


def test_no_global_state(two_classes: Any) -> None:
    assert pixels(class_histogram(two_classes.parts)).shape[1] == 900
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
