"""Pictures of ground truth and predictions: which images, which boxes, which colours."""

import cv2
import numpy as np
import pytest

from pipeline.errors import DataError, MissingError
from pipeline.evaluation.metrics import evaluate
from pipeline.evaluation.prediction_images import comparison_pictures, thumbnail

BLUE, ORANGE = np.array([178, 114, 0]), np.array([0, 94, 213])  # BGR of right and wrong
BOX = [8, 8, 32, 32]


def found(image_id, category_id, score=0.9, box=BOX):
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "score": score}


def has(panel, colour) -> bool:
    return bool((np.abs(panel.astype(int) - colour).max(axis=2) < 40).sum() > 50)


def halves(picture):
    image = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[:2] == (picture.height, picture.width)
    middle = picture.width // 2
    return image[:, : middle - 4], image[:, middle + 4 :]


@pytest.fixture
def dataset(write_dataset):
    """Five images with one object each: 0..2 bright (category 1), 3..4 dark (category 2)."""
    return write_dataset([250, 240, 230, 60, 50])


def test_the_worst_come_first_and_the_typical_are_others(dataset):
    results = [found(n, 1) for n in (0, 1)] + [found(2, 1, box=[40, 40, 20, 20]), found(3, 1)]
    metrics = evaluate(dataset, results)
    pictures = comparison_pictures(dataset, results, metrics, worst=2, typical=2)
    assert [one.worst for one in pictures] == [True, True, False, False]
    assert [one.errors.image_id for one in pictures[:2]] == [2, 3]
    assert {one.errors.image_id for one in pictures[2:]} <= {0, 1, 4}
    assert pictures[0].caption == "2.png: 0 found, 1 missed, 1 false or mislabelled"
    assert pictures._repr_html_().count("<img") == 4


def test_without_errors_there_is_no_worst_image(dataset):
    results = [found(n, 1 if n < 3 else 2) for n in range(5)]
    pictures = comparison_pictures(dataset, results, evaluate(dataset, results))
    assert not any(one.worst for one in pictures)
    assert len(pictures) == 3


@pytest.mark.parametrize(
    ("results", "left", "right"),
    [
        pytest.param([found(0, 1)], (True, False), (True, False), id="right"),
        pytest.param([found(0, 2)], (False, True), (False, True), id="mislabelled"),
        pytest.param([], (False, True), (False, False), id="missed"),
        pytest.param([found(0, 1), found(0, 2, box=[40, 40, 20, 20])], (True, False), (True, True), id="one-false"),
    ],
)
def test_blue_is_right_and_orange_is_wrong(write_dataset, results, left, right):
    dataset = write_dataset([250])
    (picture,) = comparison_pictures(dataset, results, evaluate(dataset, results), worst=1, typical=1)
    truth, predictions = halves(picture)
    assert (has(truth, BLUE), has(truth, ORANGE)) == left
    assert (has(predictions, BLUE), has(predictions, ORANGE)) == right


def test_many_boxes_and_names_in_any_script(write_dataset):
    dataset = write_dataset([250, 240], categories=("bright", "велосипед"))
    rng = np.random.default_rng(0)
    results = [found(0, 2, 0.9, [*rng.integers(0, 40, 2).tolist(), 20, 20]) for _ in range(40)] + [found(1, 1)]
    pictures = comparison_pictures(dataset, results, evaluate(dataset, results))
    assert pictures[0].errors.false_positives == 40


def test_an_image_without_boxes_can_be_drawn(write_dataset):
    dataset = write_dataset([250, 60], categories=("bright", "owl"))
    results = [found(0, 1), found(1, 2)]
    pictures = comparison_pictures(dataset, results, evaluate(dataset, results))
    assert {one.errors.image_id for one in pictures} == {0, 1}


@pytest.mark.parametrize(("content", "error"), [(None, MissingError), (b"", DataError), (b"junk", DataError)])
def test_an_image_that_cannot_be_read_is_named(dataset, content, error):
    metrics = evaluate(dataset, [])
    for image in (dataset / "images").iterdir():
        image.unlink() if content is None else image.write_bytes(content)
    with pytest.raises(error, match=r"\.png"):
        comparison_pictures(dataset, [], metrics)


@pytest.mark.parametrize(
    ("size", "expected"), [((400, 800), (200, 100)), ((900, 300), (67, 200)), ((30, 20), (20, 30))]
)  # fmt: skip
def test_a_thumbnail_is_small_and_never_enlarged(tmp_path, size, expected):
    width, height = size
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((height, width, 3), np.uint8))
    assert cv2.imdecode(np.frombuffer(thumbnail(tmp_path / "photo.png"), np.uint8), 1).shape[:2] == expected
