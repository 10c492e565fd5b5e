"""Training images in a test set, found through the record that is packed with a model, and by COCO's file names."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from cases import cases
from detections import found
from pictures import smooth

from pipeline.data.learned_images import FILE_NAME, LearnedImages, UnknownWeights, learn_images
from pipeline.errors import DataError, IntegrityError, MissingError
from pipeline.evaluation.exposure import check_exposure, is_named_like_train2017, val2017_ids
from pipeline.metrics.detection_metrics import evaluate
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.serving.model_metadata import ModelMetadata

COCO, OTHER = UnknownWeights("c" * 64, True), UnknownWeights("0" * 64, False)
METADATA = ModelMetadata("nano", (64, 64), ("blob",), 0.01, 0.65, 0.3, "0" * 64)


def photo(seed: int) -> np.ndarray:
    return smooth(seed, (160, 120))


@pytest.fixture
def write_set(coco_file: Callable[..., GroundTruth]) -> Callable[[dict[str, bytes]], GroundTruth]:
    """A data set with one object in each image."""

    def write(files: dict[str, bytes]) -> GroundTruth:
        boxes = [(number, 1, [8, 8, 32, 32]) for number in range(1, len(files) + 1)]
        truth = coco_file(boxes, ("blob",), list(files), (160, 120))
        (truth.folder / "images").mkdir()
        for name, content in files.items():
            truth.path_of(name).write_bytes(content)
        return truth

    return write


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def jpeg(image: np.ndarray, quality: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


@pytest.fixture
def training_set(write_set: Callable) -> Path:
    return write_set({f"{seed}.png": png(photo(seed)) for seed in range(6)}).folder


@pytest.fixture
def test_set(write_set: Callable) -> GroundTruth:
    """A training image, a near duplicate of one, a re-encoded flip of one, and two others; two have COCO's names."""
    brighter = np.clip(photo(1).astype(int) + 6, 0, 255).astype(np.uint8)
    return write_set(
        {
            "copy.png": png(photo(0)),
            "000000000009.jpg": jpeg(photo(20), 90),
            "brighter.png": png(brighter),
            "000000000139.jpg": jpeg(photo(21), 90),
            "flip.jpg": jpeg(cv2.flip(photo(2), 1), 70),
        },
    )


@pytest.fixture
def packed(tmp_path: Path) -> Callable[[LearnedImages | None], Path]:
    """What evaluation reads of a Bento: the model's metadata, and the record at the root."""

    def write(learned: LearnedImages | None) -> Path:
        bento = tmp_path / "bento"
        (bento / "src").mkdir(parents=True)
        training = {"epochs": 3}
        if learned is not None:
            learned.write(bento / FILE_NAME)
            training["learned_images"] = learned.summary()
        dataclasses.replace(METADATA, training=training).write(bento / "src" / "model.json")
        return bento

    return write


def results(*image_ids: int) -> list[dict]:
    return [found(number, 1) for number in image_ids]


def test_training_images_are_found_and_the_figures_without_them_are_those_of_a_test_set_without_them(
    training_set: Path, test_set: GroundTruth, packed: Callable, write_set: Callable
) -> None:
    exposure = check_exposure(test_set, packed(learn_images(training_set)), results(1, 2, 3, 5))
    assert exposure.seen == {"copy.png": "exact", "brighter.png": "similar", "flip.jpg": "similar"}
    assert list(exposure.seen) == ["copy.png", "brighter.png", "flip.jpg"]
    assert (exposure.images, exposure.learned, exposure.exact, exposure.similar) == (5, 6, 1, 2)
    (row,) = exposure.thumbnails.rows.values()
    assert [each.caption for each in row] == [
        "copy.png: a training image, byte for byte",
        "brighter.png: looks like a training image",
        "flip.jpg: looks like a training image",
    ]
    for each in row:
        assert cv2.imdecode(np.frombuffer(each.data, np.uint8), cv2.IMREAD_COLOR).shape == (120, 160, 3)
    assert exposure.coco_names == ()  # this model never met COCO
    left = {name: test_set.path_of(name).read_bytes() for name in ("000000000009.jpg", "000000000139.jpg")}
    assert exposure.unseen is not None
    assert exposure.unseen.summary() == evaluate(write_set(left), results(1)).summary()
    assert exposure.unseen.map50 == pytest.approx(51 / 101)


def test_thumbnails_are_few_and_small_with_the_exact_copies_first(packed: Callable, write_set: Callable) -> None:
    same = {f"same{seed}.png": png(cv2.resize(photo(seed), (400, 300))) for seed in range(10)}
    flipped = {f"flip{seed}.png": png(cv2.flip(photo(seed), 1)) for seed in range(10)}
    learned = learn_images(write_set(same).folder)
    test_set = write_set(flipped | same)
    exposure = check_exposure(test_set, packed(learned), [])
    assert (exposure.exact, exposure.similar) == (10, 10)
    (row,) = exposure.thumbnails.rows.values()
    assert [each.caption.startswith("same") for each in row] == [True] * 10 + [False] * 2
    assert {(each.width, each.height) for each in row} == {(200, 150), (160, 120)}
    assert exposure.unseen is None  # nothing is left


def test_a_clean_test_set(test_set: GroundTruth, packed: Callable, write_set: Callable) -> None:
    learned = learn_images(write_set({"40.png": png(photo(40))}).folder)
    exposure = check_exposure(test_set, packed(learned), results(1))
    assert (exposure.seen, exposure.unseen, exposure.thumbnails.rows) == ({}, None, {"": []})


@cases(
    "weights, names",
    {
        "weights for COCO among others": ((OTHER, COCO), ("000000000009.jpg",)),
        "other weights, which may descend from COCO's": ((OTHER,), ("000000000009.jpg",)),
        "none": ((), ()),
    },
)
def test_weights_from_elsewhere(
    training_set: Path, test_set: GroundTruth, packed: Callable, weights: tuple, names: tuple
) -> None:
    learned = dataclasses.replace(learn_images(training_set), unknown_weights=weights)
    exposure = check_exposure(test_set, packed(learned), results(1))
    assert (exposure.unknown_weights, exposure.coco_names) == (weights, names)
    assert exposure.exact == 1  # what is known is checked all the same


def test_a_model_that_was_packed_before_is_unknown(test_set: GroundTruth, packed: Callable) -> None:
    exposure = check_exposure(test_set, packed(None), results(1))
    assert (exposure.learned, exposure.seen, exposure.unseen) == (None, {}, None)
    assert exposure.coco_names == ("000000000009.jpg",)  # it may descend from COCO's weights


def write_empty(bento: Path) -> None:
    LearnedImages(np.zeros((0, 32), np.uint8), LearnedImages.read(bento / FILE_NAME).fingerprints[:0]).write(
        bento / FILE_NAME
    )


def damage(bento: Path) -> None:
    """The record, and with it the digest in the metadata."""
    (bento / FILE_NAME).write_bytes(b"no record")
    training = {"learned_images": {"sha256": hashlib.sha256(b"no record").hexdigest()}}
    dataclasses.replace(METADATA, training=training).write(bento / "src" / "model.json")


@cases(
    "spoil, error, message",
    {
        "removed": (lambda bento: (bento / FILE_NAME).unlink(), IntegrityError, "is missing"),
        "replaced": (write_empty, IntegrityError, "not the one it was packed with"),
        "not named": (lambda bento: METADATA.write(bento / "src/model.json"), IntegrityError, "metadata names none"),
        "damaged": (damage, DataError, "cannot be read"),
        "no metadata": (lambda bento: shutil.rmtree(bento / "src"), MissingError, "model metadata"),
    },
)
def test_a_record_that_is_not_the_models_is_refused(
    training_set: Path, test_set: GroundTruth, packed: Callable, spoil: Callable, error: type[Exception], message: str
) -> None:
    bento = packed(learn_images(training_set))
    spoil(bento)
    with pytest.raises(error, match=message):
        check_exposure(test_set, bento, [])


NAMED_LIKE_TRAIN2017 = {
    "train2017/000000000009.jpg": True,
    "COCO_train2014_000000000009.jpg": True,
    "COCO_val2014_000000000042.jpg": True,  # not of val2017
    "000000000009.JPEG": True,
    "000000000139.jpg": False,  # of val2017
    "COCO_val2014_000000000139.jpg": False,  # its old name
    "COCO_test2014_000000000001.jpg": False,
    "202401311530.jpg": False,  # a time of day
    "000000000000.jpg": False,
    "0000000000009.jpg": False,  # thirteen digits
    "000000000009.png": False,
    "cat_000000000009.jpg": False,
}


def test_names_of_train2017() -> None:
    assert {name: is_named_like_train2017(name) for name in NAMED_LIKE_TRAIN2017} == NAMED_LIKE_TRAIN2017


def test_val2017_has_five_thousand_images_and_those_at_hand_among_them(real_data: Path) -> None:
    ids, at_hand = val2017_ids(), (real_data / "official_val2017_names.txt").read_text().split()
    assert (len(ids), min(ids), max(ids), len(at_hand)) == (5000, 139, 581781, 79)
    assert {int(Path(name).stem) for name in at_hand} <= ids
