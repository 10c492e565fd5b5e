from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detections import matches_of

from pipeline.detection.checkpoints import GIVEN, coco_classes
from pipeline.detection.export import load_detector
from pipeline.detection.hyperparameters import TrainingOptions
from pipeline.detection.reference_predictions import BATCH, predict_checkpoint, predict_given, suppressed
from pipeline.detection.training import TrainingResult, train
from pipeline.errors import DataError, MissingError
from pipeline.metrics.average_precision import average_precision, coco_figures
from pipeline.metrics.ground_truth import GroundTruth, read_ground_truth
from pipeline.serving.decoding import decode
from pipeline.serving.model_metadata import METADATA_FILE, ModelMetadata
from pipeline.serving.predictor import Detections, restore
from pipeline.serving.preprocessing import Letterboxed, letterbox, stack
from pipeline.serving.tiled_detection import detect_in_image
from pipeline.serving.tiling import Tiling

OPTIONS = TrainingOptions(detector="yolox-nano", image_size=64, epochs=2, batch_size=4, seed=3)
CATEGORIES = {"disc": 1, "block": 2}


@pytest.fixture(scope="module")
def trained(
    datasets: tuple[Path, Path], skilled: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingResult, GroundTruth]:
    """A training from weights that find something, and its eval set."""
    result = train(OPTIONS, *datasets, tmp_path_factory.mktemp("trained"), weights=skilled)
    return result, read_ground_truth(datasets[1] / "annotations.json")


def numbered(truth: GroundTruth) -> list[tuple[int, Path]]:
    return [(image.id, truth.path_of(image.file_name)) for image in truth.images]


def as_validated(files: Path, checkpoint: str, truth: GroundTruth) -> dict[str, float | None]:
    """COCO's figures as mmdet's validation has them: boxes are not clipped to the image."""
    metadata = ModelMetadata.read(files / METADATA_FILE)
    detector, results = load_detector(metadata, files / checkpoint), []
    for image_id, path in numbered(truth):
        image = letterbox(decode(path.read_bytes()), metadata.image_size)
        with torch.inference_mode():
            [(boxes, scores, labels)] = suppressed(detector, torch.from_numpy(stack([image])), metadata)
        scale = np.array([image.scale_x, image.scale_y] * 2)
        for (x1, y1, x2, y2), score, label in zip((boxes.numpy() / scale).tolist(), scores, labels, strict=True):
            record = {"image_id": image_id, "category_id": int(label) + 1, "score": float(score)}
            results.append({**record, "bbox": [x1, y1, x2 - x1, y2 - y1]})
    return coco_figures(average_precision(matches_of(truth, results)))


@pytest.mark.parametrize("checkpoint", [GIVEN, "best.pth"])
def test_the_weights_score_what_training_recorded(checkpoint: str, trained: tuple[TrainingResult, GroundTruth]) -> None:
    result, truth = trained
    recorded = result.history[0 if checkpoint == GIVEN else result.best_epoch]
    found = as_validated(result.folder, checkpoint, truth)
    assert found["map"] == pytest.approx(recorded.mAP, abs=1e-6)
    assert found["map50"] == pytest.approx(recorded.mAP50, abs=1e-6)
    assert recorded.mAP is not None
    assert recorded.mAP > 0.1


def test_images_in_tiles_are_predicted_as_the_service_does_it(trained: tuple[TrainingResult, GroundTruth]) -> None:
    """By the tiles that the service was packed with, which need not be those of the training."""
    files, images = trained[0].folder, numbered(trained[1])
    whole = predict_checkpoint(files, "best.pth", images, CATEGORIES)
    assert predict_checkpoint(files, "best.pth", images, CATEGORIES, tiling=Tiling(64, 0.2)) == whole
    metadata = ModelMetadata.read(files / METADATA_FILE).in_tiles(48, 0.2)
    detector = load_detector(metadata, files / "best.pth")

    def detect(view: Letterboxed) -> Detections:
        with torch.inference_mode():
            [(boxes, scores, labels)] = suppressed(detector, torch.from_numpy(stack([view])), metadata)
        return restore(boxes.numpy(), scores.numpy(), labels.numpy(), view)

    expected = [detect_in_image(decode(path.read_bytes()), metadata, detect) for _, path in images]
    found = predict_checkpoint(files, "best.pth", images, CATEGORIES, tiling=metadata.tiling)
    scores = [score for each in expected for score in each.scores.tolist()]
    assert [each["score"] for each in found] == pytest.approx(scores, abs=1e-5)
    assert len(found) > len(images)
    assert found != whole


@pytest.fixture(scope="module")
def coco_files(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a detector of COCO's classes that inference needs."""
    folder = tmp_path_factory.mktemp("files")
    ModelMetadata("nano", (256, 256), coco_classes()).write(folder / METADATA_FILE)
    shutil.copyfile(pretrained, folder / "best.pth")
    return folder


def test_classes_are_told_by_name(coco_files: Path, photographs: list[Path]) -> None:
    """Categories have ids of their own, and the test set may lack classes of the model, and the model some of its."""
    images = list(enumerate([*photographs, *photographs[:3]], 5))
    assert len(images) % BATCH
    assert len(images) > BATCH
    everything = {name: 7 + place for place, name in enumerate(coco_classes())}
    found = predict_checkpoint(coco_files, "best.pth", images, everything)
    assert list(dict.fromkeys(row["image_id"] for row in found)) == [image_id for image_id, _ in images]
    two = {"person": 3, "no such class": 4}
    people = predict_checkpoint(coco_files, "best.pth", images, two, score_threshold=0.2)
    expected = [row for row in found if row["category_id"] == everything["person"] and row["score"] >= 0.2]
    assert people == [{**row, "category_id": 3} for row in expected]
    assert people


def test_without_given_weights_there_is_nothing_to_predict(coco_files: Path, photographs: list[Path]) -> None:
    """From scratch, and where an earlier version trained."""
    assert predict_given(coco_files, [(1, photographs[0])], {"person": 1}) is None


def test_the_given_weights_are_predicted_with(trained: tuple[TrainingResult, GroundTruth]) -> None:
    result, truth = trained
    found = predict_given(result.folder, numbered(truth), CATEGORIES)
    assert found == predict_checkpoint(result.folder, GIVEN, numbered(truth), CATEGORIES)
    assert json.loads(json.dumps(found)) == found
    assert found
    assert found != predict_checkpoint(result.folder, "last.pth", numbered(truth), CATEGORIES)


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        pytest.param(None, MissingError, "an image of the test set is missing", id="missing"),
        pytest.param(b"GIF89a", DataError, "the image cannot be read: not an image file", id="no image"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(
    content: bytes | None, error: type[Exception], says: str, coco_files: Path, tmp_path: Path
) -> None:
    path = tmp_path / "it.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=rf"{says}[\s\S]*it\.jpg"):
        predict_checkpoint(coco_files, "best.pth", [(1, path)], {"person": 1})


def test_no_image_gives_no_detection(coco_files: Path) -> None:
    assert predict_checkpoint(coco_files, "best.pth", [], {"person": 1}) == []
