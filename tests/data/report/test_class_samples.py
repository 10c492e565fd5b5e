from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.report.dataset_figures import class_samples
from pipeline.data.sample.dataset import make_sample
from pipeline.errors import UsageError


def shown(gallery):
    return {row.heading: [each.caption for each in row.pictures] for row in gallery.rows}


def test_a_row_for_each_class_by_how_frequent_it_is(two_classes):
    gallery = class_samples(two_classes.dataset, two_classes.folder, count=9)
    rows = shown(gallery)
    assert list(rows) == ["dog (3 boxes)", "cat (2 boxes)"]
    assert sorted(rows["dog (3 boxes)"]) == ["0.png", "1.png", "2.png"]
    assert sorted(rows["cat (2 boxes)"]) == ["0.png", "3.png"]  # not 3.png as a dog: that is a crowd
    assert {each.alt for row in gallery.rows for each in row.pictures} >= {"dog in 0.png", "cat in 0.png"}


def test_as_many_as_asked_for_and_the_seed_decides(two_classes):
    draws = [shown(class_samples(two_classes.dataset, two_classes.folder, count=1, seed=seed)) for seed in range(8)]
    assert all(len(names) == 1 for rows in draws for names in rows.values())
    assert len({rows["dog (3 boxes)"][0] for rows in draws}) > 1
    again = class_samples(two_classes.dataset, two_classes.folder, count=1, seed=3)
    assert again == class_samples(two_classes.dataset, two_classes.folder, count=1, seed=3)
    assert shown(again) == draws[3]


def test_the_order_of_the_records_makes_no_difference(two_classes):
    dataset = two_classes.dataset
    turned = replace(dataset, images=dataset.images[::-1], annotations=dataset.annotations[::-1])
    assert class_samples(dataset, two_classes.folder) == class_samples(turned, two_classes.folder)


def test_no_image_twice_in_a_row_and_all_are_of_the_class(tmp_path):
    dataset = make_sample(tmp_path, images=12)
    names = {each.id: each.file_name for each in dataset.images}
    rows = shown(class_samples(dataset, tmp_path, count=5))
    for category in dataset.categories:
        boxes = [each for each in dataset.annotations if each.category_id == category.id]
        captions = rows[f"{category.name} ({len(boxes)} boxes)"]
        having = {names[each.image_id] for each in boxes}
        assert len(captions) == len(set(captions)) == min(5, len(having))
        assert set(captions) <= having


def test_a_page_of_many_classes_stays_small(tmp_path):
    images = tuple(Image(i, f"{i}.jpg", 100, 100) for i in range(300))
    annotations = tuple(Annotation(i, i % 300, i % 90, (1.0, 1.0, 50.0, 50.0), 2500.0) for i in range(900))
    dataset = CocoDataset(images, annotations, tuple(Category(i, f"kind {i}") for i in range(90)))
    gallery = class_samples(dataset, tmp_path, count=9)
    assert [len(row.pictures) for row in gallery.rows] == [2] * 80
    assert gallery.rows[0].pictures[0].alt.endswith("The file is missing.")


@pytest.mark.parametrize(
    ("boxes", "count", "words"),
    [
        pytest.param(False, 4, "There are no boxes to show.", id="no-boxes"),
        pytest.param(True, 0, "No samples were asked for.", id="none-asked-for"),
    ],
)
def test_nothing_to_show_is_said(two_classes, boxes, count, words):
    dataset = two_classes.dataset if boxes else replace(two_classes.dataset, annotations=())
    gallery = class_samples(dataset, two_classes.folder, count=count)
    assert gallery.rows == ()
    assert words in gallery._repr_html_()


def test_a_count_below_zero_is_refused(two_classes):
    with pytest.raises(UsageError):
        class_samples(two_classes.dataset, two_classes.folder, count=-1)


def test_the_largest_box_of_the_class_is_shown(tmp_path):
    """The view, all of the image or a part of it, is chosen by the larger of two boxes."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((300, 800, 3), np.uint8))
    boxes = ((700.0, 200.0, 9.0, 9.0), (10.0, 10.0, 700.0, 200.0))
    annotations = tuple(Annotation(i, 1, 1, box, box[2] * box[3]) for i, box in enumerate(boxes))
    dataset = CocoDataset((Image(1, "a.png", 800, 300),), annotations, (Category(1, "cat"),))
    both, small = dataset, replace(dataset, annotations=annotations[:1])
    sizes = [
        (each.width, each.height)
        for each in (class_samples(one, tmp_path).rows[0].pictures[0] for one in (both, small))
    ]
    assert sizes == [(260, 98), (240, 180)]
