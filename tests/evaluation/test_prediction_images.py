"""Images of ground truth and predictions: which ones, which boxes, which colours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.data.figures import Pixels
from pipeline.data.report.inline_images import InlineImage
from pipeline.errors import DataError, MissingError
from pipeline.evaluation.ground_truth import GroundTruth
from pipeline.evaluation.metrics import evaluate
from pipeline.evaluation.prediction_images import draw_comparisons

BLUE, ORANGE = np.array([178, 114, 0]), np.array([0, 94, 213])  # BGR of right and wrong
BOX = [8, 8, 32, 32]


def found(image_id: int, category_id: int, score: float = 0.9, box: Any = BOX) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "score": score}


def has(panel: Pixels, colour: np.ndarray) -> bool:
    return bool((np.abs(panel.astype(int) - colour).max(axis=2) < 40).sum() > 50)


def halves(picture: InlineImage) -> tuple[Pixels, Pixels]:
    image = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[:2] == (picture.height, picture.width)
    middle = picture.width // 2
    return image[:, : middle - 4], image[:, middle + 4 :]


@pytest.fixture
def truth(write_dataset: Callable) -> GroundTruth:
    """Five images with one object each: 0..2 bright (category 1), 3..4 dark (category 2)."""
    return write_dataset([250, 240, 230, 60, 50])


def test_the_worst_come_first_and_the_typical_are_others(truth: GroundTruth) -> None:
    results = [found(n, 1) for n in (0, 1)] + [found(2, 1, box=[40, 40, 20, 20]), found(3, 1)]
    worst, typical = draw_comparisons(truth, results, evaluate(truth, results), worst=2, typical=2).rows
    assert [each.caption for each in worst.images] == [
        "2.png: 0 found, 1 missed, 1 false or mislabelled",
        "3.png: 0 found, 1 missed, 1 false or mislabelled",
    ]
    assert (
        len(
            {each.caption for each in typical.images}
            & {f"{n}.png: 1 found, 0 missed, 0 false or mislabelled" for n in (0, 1)}
        )
        >= 1
    )
    assert (worst.heading, typical.heading) == ("With the most errors", "Typical")


def test_without_errors_there_is_no_worst_image(truth: GroundTruth) -> None:
    results = [found(n, 1 if n < 3 else 2) for n in range(5)]
    (typical,) = draw_comparisons(truth, results, evaluate(truth, results)).rows
    assert (typical.heading, len(typical.images)) == ("Typical", 3)


@pytest.mark.parametrize(
    ("results", "left", "right"),
    [
        pytest.param([found(0, 1)], (True, False), (True, False), id="right"),
        pytest.param([found(0, 2)], (False, True), (False, True), id="mislabelled"),
        pytest.param([], (False, True), (False, False), id="missed"),
        pytest.param([found(0, 1), found(0, 2, box=[40, 40, 20, 20])], (True, False), (True, True), id="one-false"),
    ],
)
def test_blue_is_right_and_orange_is_wrong(write_dataset: Callable, results: list, left: tuple, right: tuple) -> None:
    truth = write_dataset([250])
    ((row,)) = draw_comparisons(truth, results, evaluate(truth, results), worst=1, typical=1).rows
    objects, predictions = halves(row.images[0])
    assert (has(objects, BLUE), has(objects, ORANGE)) == left
    assert (has(predictions, BLUE), has(predictions, ORANGE)) == right


def test_many_boxes_names_in_any_script_and_no_boxes_can_be_drawn(write_dataset: Callable) -> None:
    truth = write_dataset([250, 240, 60], categories=("bright", "велосипед"))
    rng = np.random.default_rng(0)
    many = [found(0, 2, 0.9, [*rng.integers(0, 40, 2).tolist(), 20, 20]) for _ in range(40)]
    results = [*many, found(1, 1), found(2, 2)]
    worst, typical = draw_comparisons(truth, results, evaluate(truth, results)).rows
    assert worst.images[0].caption == "0.png: 0 found, 1 missed, 40 false or mislabelled"
    assert worst.images[1].caption == "2.png: 0 found, 0 missed, 1 false or mislabelled"
    assert typical.images[0].caption == "1.png: 1 found, 0 missed, 0 false or mislabelled"


@pytest.mark.parametrize(("content", "error"), [(None, MissingError), (b"", DataError), (b"junk", DataError)])
def test_an_image_that_cannot_be_read_is_named(
    truth: GroundTruth, content: bytes | None, error: type[Exception]
) -> None:
    metrics = evaluate(truth, [])
    for image in (truth.folder / "images").iterdir():
        image.unlink() if content is None else image.write_bytes(content)
    with pytest.raises(error, match=r"\.png"):
        draw_comparisons(truth, [], metrics)
