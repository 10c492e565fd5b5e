"""COCO's metrics against pycocotools' own summary, and small cases worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cases import cases
from coco_reference import coco_eval
from detections import found
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.metrics.detection_metrics import LEVELS, evaluate
from pipeline.metrics.ground_truth import GroundTruth, read_ground_truth

CROWD = {"iscrowd": 1}
BOX, OTHER, FAR = [10, 10, 40, 40], [100, 40, 50, 50], [60, 0, 20, 20]
NAN = float("nan")
COCO_NAMES = ["map", "map50", "map75", "map_small", "map_medium", "map_large", "ar1", "ar10", "ar100"]


def assert_parity(truth: GroundTruth, results: list[dict[str, Any]]) -> None:
    """Compare with the first nine of pycocotools' twelve figures, as its users get them."""
    metrics = evaluate(truth, results)
    ours = [-1.0 if getattr(metrics, name) is None else getattr(metrics, name) for name in COCO_NAMES]
    assert ours == pytest.approx(list(coco_eval(truth, results).stats[:9]), abs=1e-12)


def test_parity_with_pycocotools_on_real_annotations(real_truth: GroundTruth, jittered: Callable) -> None:
    assert_parity(real_truth, jittered(real_truth, 0))


boxes = st.builds(
    lambda x, y, w, h: [x, y, w, h],
    st.integers(0, 150), st.integers(0, 60), st.integers(1, 120), st.integers(1, 120),
)  # fmt: skip
truths = st.lists(
    st.tuples(
        st.integers(1, 4), st.integers(1, 3), boxes, st.fixed_dictionaries({"iscrowd": st.sampled_from([0, 0, 1])})
    ),
    min_size=1,
    max_size=12,
)
scores = st.integers(0, 10).map(lambda tenths: tenths / 10)
predictions = st.lists(st.builds(found, st.integers(1, 4), st.integers(1, 3), boxes, scores), min_size=1, max_size=15)


@settings(max_examples=60, deadline=None)
@given(truth=truths, results=predictions, echo=st.booleans())
def test_parity_with_pycocotools_at_random(coco_file: Callable, truth: list, results: list, echo: bool) -> None:
    if echo:  # half of the cases find something for certain
        results = results + [found(image, label, box, 0.5) for image, label, box, _ in truth]
    assert_parity(coco_file(truth), results)


@settings(max_examples=60, deadline=None)
@given(truth=truths, results=predictions)
def test_counts_add_up(coco_file: Callable, truth: list, results: list) -> None:
    results = results + [found(image, label, box, 0.7) for image, label, box, _ in truth[::2]]
    metrics = evaluate(coco_file(truth), results)
    for label, each in enumerate(metrics.classes):
        assert each.best.true_positives + each.best.false_negatives == each.ground_truth
        assert metrics.confusion[label].sum() == each.ground_truth
    right, objects = np.trace(metrics.confusion), metrics.confusion[:-1].sum()
    assert sum(image.true_positives for image in metrics.per_image) == right
    assert sum(image.false_negatives for image in metrics.per_image) == objects - right
    assert sum(image.false_positives for image in metrics.per_image) == metrics.confusion[:, :-1].sum() - right
    assert all(0 <= image.f1 <= 1 for image in metrics.per_image)
    objects_on = {image for image, _, _, extras in truth if not extras["iscrowd"]}
    wrong = [image.false_positives for image in metrics.per_image if image.image_id in objects_on]
    if metrics.fp_per_image_with_objects is not None:
        assert metrics.fp_per_image_with_objects == pytest.approx(sum(wrong) / len(wrong))


def test_curves_by_score_are_those_of_pycocotools_matches(real_truth: GroundTruth, jittered: Callable) -> None:
    """Counted one detection at a time, where COCO's evaluation matched them: at IoU 0.5, without what it ignores."""
    results = jittered(real_truth, 4)
    metrics = evaluate(real_truth, results)
    reference = coco_eval(real_truth, results)
    pairs = [each for each in reference.evalImgs if each is not None and each["aRng"] == reference.params.areaRng[0]]
    for label, category in enumerate(real_truth.categories):
        mine = [each for each in pairs if each["category_id"] == category]
        objects = sum(1 - int(ignored) for each in mine for ignored in each["gtIgnore"])
        detections = [
            (score, match > 0)
            for each in mine
            for score, match, ignored in zip(each["dtScores"], each["dtMatches"][0], each["dtIgnore"][0], strict=True)
            if not ignored
        ]
        for level in range(0, 101, 10):
            kept = [is_right for score, is_right in detections if score >= LEVELS[level]]
            right = sum(kept)
            expected = (
                right / len(kept) if kept and objects else NAN,
                right / objects if objects else NAN,
                2 * right / (len(kept) + objects) if objects else NAN,
            )
            curves = metrics.precision_by_score, metrics.recall_by_score, metrics.f1_by_score
            assert [each[label, level] for each in curves] == pytest.approx(expected, abs=1e-12, nan_ok=True)


ONE, TWO = [(1, 1, BOX)], [(1, 1, BOX), (2, 1, BOX)]


def of_two(map50: float, threshold: float, precision: float, recall: float) -> dict[str, Any]:
    """The figures of a data set of one class with two objects; nan: not defined."""
    best = {"cat.best.threshold": threshold, "cat.best.precision": precision, "cat.best.recall": recall}
    return {"all.map50": map50, "cat.ap50": map50} | best


def wrong(with_objects: int, without: int, on_them: float, on_empty: float) -> dict[str, Any]:
    """Images with and without objects, and false positives on each; nan: not defined."""
    images = {"all.images_with_objects": with_objects, "all.images_without_objects": without}
    return images | {"all.fp_per_image_with_objects": on_them, "all.fp_per_image_without_objects": on_empty}


PAIR = [(1, 1, BOX), (1, 2, OTHER), (2, 1, BOX), (2, 2, OTHER)]
BY_HAND: dict[str, tuple[list, list, dict[str, Any]]] = {
    "all found": (TWO, [found(1, 1, BOX, 0.9), found(2, 1, BOX, 0.8)], of_two(1.0, 0.4, 1.0, 1.0)),
    "one of two found": (TWO, [found(1, 1, BOX, 0.9)], of_two(51 / 101, 0.45, 1.0, 0.5)),
    "precision 1 up to recall .5 (51 levels), then 2/3": (
        TWO, [found(1, 1, BOX, 0.9), found(1, 1, OTHER, 0.8), found(2, 1, BOX, 0.7)],
        of_two((51 + 50 * 2 / 3) / 101, 0.35, 2 / 3, 1.0),
    ),
    "a double detection is wrong": (
        TWO, [found(1, 1, BOX, 0.9), found(1, 1, BOX, 0.8), found(2, 1, BOX, 0.7)],
        of_two((51 + 50 * 2 / 3) / 101, 0.35, 2 / 3, 1.0),
    ),
    "nothing right": (TWO, [found(1, 1, FAR, 0.9)], of_two(0.0, 0.5, 0.0, 0.0)),
    "a tie is not cut": (TWO, [found(1, 1, BOX, 0.5), found(1, 1, FAR, 0.5)], of_two(51 / 101, 0.25, 0.5, 0.5)),
    "no detections": (TWO, [], of_two(0.0, 0.5, NAN, 0.0)),
    "no predictions are zero, and a class without truth stays out of the mean": (
        [(1, 1, BOX), (2, 2, BOX)], [],
        dict.fromkeys(("all.map", "all.map50", "all.ar100", "all.f1", "cat.ap"), 0.0)
        | {"owl.ap": NAN, "all.threshold": NAN, "all.errors_at": 0.5},
    ),
    "without any object there is no figure and every detection is wrong": (
        [], [found(1, 1, BOX, 0.9)], {"all.map": NAN, "all.f1": NAN, "all.threshold": NAN, "all.detections": 1},
    ),
    "a class without truth counts its false positives at the common threshold": (
        ONE, [found(1, 1, BOX, 0.9), found(1, 3, OTHER, 0.8), found(1, 3, FAR, 0.1)],
        {"all.map": 1.0, "all.threshold": 0.45, "owl.ap": NAN, "owl.best.recall": NAN, "owl.best.threshold": 0.45,
         "owl.best.false_positives": 1, "all.confusion": [[1, 0, 0, 0], [0] * 4, [0] * 4, [0, 0, 1, 0]]},
    ),
    "a confusion is an object found under another name": (
        PAIR, [found(1, 1, BOX, 0.9), found(2, 2, BOX, 0.9), found(1, 2, OTHER, 0.9), found(2, 2, OTHER, 0.9),
               found(3, 1, BOX, 0.9)],
        {"all.confusion": [[1, 1, 0, 0], [0, 2, 0, 0], [0] * 4, [1, 0, 0, 0]]},
    ),
    "an object is confused only once": (
        ONE, [found(1, 2, BOX, 0.9), found(1, 3, BOX, 0.8), found(1, 2, BOX, 0.7)],
        {"all.confusion": [[0, 1, 0, 0], [0] * 4, [0] * 4, [0, 1, 1, 0]]},
    ),
    "images: nothing found": (ONE, [], wrong(1, 3, NAN, NAN)),
    "images: nothing right": (ONE, [found(1, 1, FAR, 0.9), found(2, 1, FAR, 0.9)], wrong(1, 3, 1.0, 1 / 3)),
    "images: nothing at the score where errors count": (ONE, [found(1, 1, FAR, 0.4)], wrong(1, 3, NAN, NAN)),
    "images: both": (
        ONE, [found(1, 1, BOX, 0.9), found(1, 2, FAR, 0.9), found(3, 2, FAR, 0.9)], wrong(1, 3, 1.0, 1 / 3),
    ),
    "images: with objects": (TWO, [found(1, 1, BOX, 0.9), found(2, 1, FAR, 0.9)], wrong(2, 2, 0.5, 0.0)),
    "images: below the threshold": (ONE, [found(1, 1, BOX, 0.9), found(2, 1, FAR, 0.1)], wrong(1, 3, 0.0, 0.0)),
    "images: no object anywhere": ([], [found(4, 3, FAR, 0.9)], wrong(0, 4, NAN, 0.25)),
    "images: all have": ([(image, 1, BOX) for image in (1, 2, 3, 4)], [found(1, 1, BOX, 0.9)], wrong(4, 0, 0.0, NAN)),
    # neither kind: what is found in the crowd is not judged, and beside it is no empty scene
    "images: a crowd only": (
        [*ONE, (2, 1, OTHER, CROWD)],
        [found(1, 1, BOX, 0.9), found(2, 1, OTHER, 0.9), found(2, 1, BOX, 0.9), found(3, 1, BOX, 0.9)],
        wrong(1, 2, 0.0, 0.5),
    ),
}  # fmt: skip


@cases("truth, results, expected", BY_HAND)
def test_by_hand(coco_file: Callable, truth: list, results: list, expected: dict[str, Any]) -> None:
    metrics = evaluate(coco_file(truth, first_id=0), results)  # an annotation's id of 0 must not count as no match
    shown = SimpleNamespace(all=metrics, cat=metrics.classes[0], owl=metrics.classes[2])
    values = {name: attrgetter(name)(shown) for name in expected}
    if "all.confusion" in values:
        assert values.pop("all.confusion").tolist() == expected["all.confusion"]
    for name, value in values.items():
        assert (NAN if value is None else value) == pytest.approx(expected[name], nan_ok=True), name


def test_an_ignored_region_is_as_if_neither_it_nor_what_is_found_there_were(coco_file: Callable) -> None:
    """A region of cats over the right of image 1; another image with nothing else. All at IoU 0.5."""
    truth = [(1, 1, BOX), (2, 2, BOX), (2, 2, FAR)]
    regions = [(1, 1, [80, 0, 120, 100], CROWD), (3, 1, [0, 0, 100, 100], CROWD)]
    judged = [
        found(1, 1, BOX, 0.9),
        found(1, 1, [50, 40, 50, 40], 0.8),  # two fifths of it are in the region
        found(1, 2, OTHER, 0.85),  # a dog among ignored cats
        found(2, 1, OTHER, 0.75),  # where image 1 has its region
        found(2, 2, BOX, 0.6), found(2, 1, FAR, 0.7),
        found(4, 1, BOX, 0.3),
    ]  # fmt: skip
    not_judged = [
        found(1, 1, OTHER, 0.95), found(1, 1, OTHER, 0.94), found(1, 1, [120, 0, 60, 60], 0.65),
        found(1, 1, [60, 40, 40, 40], 0.9),  # half of it is in the region
        found(3, 1, BOX, 0.99),
    ]  # fmt: skip
    without = evaluate(coco_file(truth), judged)
    metrics = evaluate(coco_file(truth + regions), not_judged + judged)
    assert metrics.confusion.tolist() == without.confusion.tolist()
    assert metrics.per_image == without.per_image
    assert (metrics.threshold, metrics.f1, metrics.map50) == (without.threshold, without.f1, without.map50)
    for each, other in zip(metrics.classes, without.classes, strict=True):
        assert (each.best, each.ap50, each.ground_truth) == (other.best, other.ap50, other.ground_truth)
    for name in ("precision", "precision_by_score", "recall_by_score", "f1_by_score"):
        assert np.array_equal(getattr(metrics, name), getattr(without, name), equal_nan=True)
    assert metrics.objects == 3
    assert metrics.per_image[2].f1 == 1.0
    assert_parity(coco_file(truth + regions), not_judged + judged)  # at other overlaps too


@settings(max_examples=60, deadline=None)
@given(truth=truths, results=predictions)
def test_within_an_ignored_region_nothing_is_wrong_and_all_that_was_right_is(
    coco_file: Callable, truth: list, results: list
) -> None:
    """The whole of image 1 is ignored for cats."""
    objects = [each for each in truth if not each[3]["iscrowd"]] + [(1, 1, BOX, {"iscrowd": 0})]
    results = results + [found(image, label, box, 0.7) for image, label, box, _ in objects[::2]]
    before = evaluate(coco_file(objects), results)
    after = evaluate(coco_file([*objects, (1, 1, [-500, -500, 2000, 2000], {"iscrowd": 1})]), results)
    assert after.objects == before.objects
    matches = after.matches
    assert not ((matches.image_ids == 1) & (matches.labels == 0) & (matches.truth < 0)).any()
    assert after.classes[0].ap50 >= before.classes[0].ap50 - 1e-12
    assert [each.ap for each in after.classes[1:]] == [each.ap for each in before.classes[1:]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param({"images": []}, "the test set is empty", id="no-images"),
        pytest.param({"categories": []}, "the test set is empty", id="no-categories"),
        pytest.param({"images": [{"id": 7, "file_name": "7.png", "width": 9, "height": 9}]}, "image 1", id="foreign"),
        pytest.param({"annotations": None}, "annotations", id="not-coco"),
    ],
)
def test_a_bad_test_set_is_refused(coco_file: Callable, spoil: dict, message: str) -> None:
    path = coco_file([(1, 1, BOX)]).folder / "annotations.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | spoil))
    with pytest.raises(DataError, match=message) as raised:
        read_ground_truth(path)
    assert "annotations.json" in str(raised.value)
