from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from pipeline.detection.checkpoints import fit, read_checkpoint, write_checkpoint
from pipeline.detection.export import OUTPUTS, ExportedModel, check_parity, export_onnx, load_detector
from pipeline.detection.families.yolox import FAMILY as YOLOX
from pipeline.detection.reference_predictions import predict_checkpoint
from pipeline.errors import DataError, StepError
from pipeline.serving.decoding import decode
from pipeline.serving.model_metadata import METADATA_FILE, ModelMetadata
from pipeline.serving.onnxruntime_backend import onnxruntime
from pipeline.serving.predictor import Detections, Predictor
from pipeline.serving.preprocessing import letterbox
from pipeline.serving.self_test import count_unmatched

SPEC = ModelMetadata("nano", (256, 256), ("person", "bicycle", "car", "motorcycle", "bus", "truck"))


@dataclass(frozen=True)
class Exported:
    """A real detector of six classes, as weights and as ONNX."""

    weights: Path
    model: ExportedModel
    images: list[Path]


@pytest.fixture(scope="module")
def exported(pretrained: Path, photographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    network = YOLOX.build_model(SPEC)
    fit(read_checkpoint(pretrained, YOLOX), network, SPEC.classes)
    weights = write_checkpoint(folder / "w.pth", network.state_dict(), {"classes": list(SPEC.classes)})
    return Exported(weights, export_onnx(SPEC, weights, folder / "model.onnx"), photographs)


def test_the_file_is_what_serving_expects(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(str(exported.model.path), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()] == [("images", "tensor(float)", [3, 256, 256])]
    assert isinstance(session.get_inputs()[0].shape[0], str)
    assert tuple(o.name for o in session.get_outputs()) == OUTPUTS
    content = exported.model.path.read_bytes()
    assert len(content) == exported.model.size
    assert b"site-packages" not in content  # the exporter's stack traces
    model = onnx.load(str(exported.model.path))
    assert {entry.domain for entry in model.opset_import} == {""}
    assert {entry.key: json.loads(entry.value) for entry in model.metadata_props} == {
        name: json.loads(json.dumps(getattr(SPEC, name)))
        for name in ("classes", "image_size", "score_threshold", "nms_iou_threshold")
    }


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_and_no_detection_at_all(exported: Exported, batch: int) -> None:
    session = onnxruntime.InferenceSession(str(exported.model.path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": np.full((batch, 3, 256, 256), 114, np.float32)})
    count = len(found[0])
    assert [value.shape for value in found] == [(count,), (count, 4), (count,), (count,)]
    assert found[0].dtype == found[3].dtype == np.int64


def test_parity_on_photographs(exported: Exported) -> None:
    found, notes = check_parity(SPEC, exported.weights, exported.model.path, exported.images)
    images, compared, candidates, detections, box_difference, score_difference = found.values()
    assert images == len(exported.images)
    assert compared >= candidates > detections > 10
    assert 0 < box_difference <= 0.01
    assert 0 < score_difference <= 1e-4
    assert notes == []


@dataclass(frozen=True)
class Scored:
    box: tuple[float, ...]
    score: float
    label: str

    @classmethod
    def of_results(cls, rows: list[dict[str, Any]], names: dict[int, str]) -> list[Scored]:
        corners = [(x, y, x + width, y + height) for x, y, width, height in (row["bbox"] for row in rows)]
        found = zip(corners, rows, strict=True)
        return [cls(box, row["score"], names[row["category_id"]]) for box, row in found]

    @classmethod
    def of_service(cls, found: Detections, classes: tuple[str, ...]) -> list[Scored]:
        rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        return [cls(tuple(box), score, classes[label]) for box, score, label in rows]


def test_the_service_finds_what_pytorch_finds(exported: Exported) -> None:
    """From the image file to its boxes, by the service's predictor and by the predictions it is compared with."""
    SPEC.write(exported.weights.parent / METADATA_FILE)
    images, category_ids = (
        list(enumerate(exported.images)),
        {name: 7 + place for place, name in enumerate(SPEC.classes)},
    )
    results = predict_checkpoint(exported.weights.parent, exported.weights.name, images, category_ids)
    predictor = Predictor(exported.model.path, replace(SPEC, onnx_sha256=exported.model.sha256))
    names = {id_: name for name, id_ in category_ids.items()}
    for image_id, path in images:
        pixels = decode(path.read_bytes())
        [served] = predictor.detect([letterbox(pixels, SPEC.image_size)])
        mine = Scored.of_results([row for row in results if row["image_id"] == image_id], names)
        assert [each.score for each in mine] == sorted((each.score for each in mine), reverse=True)
        assert count_unmatched(mine, Scored.of_service(served, SPEC.classes), SPEC.score_threshold) == 0
        corners = np.array([each.box for each in mine]).reshape(-1, 4)
        assert (corners >= 0).all()
        assert (corners <= np.array([*pixels.shape[1::-1]] * 2) + 1e-3).all()
    assert len(results) > 30


def test_the_file_finds_what_mmdet_finds(exported: Exported) -> None:
    """End to end against mmdet's own prediction, with its own pipeline and suppression."""
    from mmdet.structures import DetDataSample

    pixels = YOLOX.letterbox(exported.images, SPEC.image_size)
    session = onnxruntime.InferenceSession(str(exported.model.path), providers=["CPUExecutionProvider"])
    batch_index, boxes, scores, labels = session.run(None, {"images": pixels})
    mmdet_model = load_detector(SPEC, exported.weights).model
    samples = [DetDataSample(metainfo={"img_shape": (256, 256), "ori_shape": (256, 256)}) for _ in pixels]
    with torch.no_grad():
        predicted = mmdet_model.predict(torch.from_numpy(pixels), samples, rescale=False)
    for number, sample in enumerate(predicted):
        theirs = sample.pred_instances.numpy()
        ours = batch_index == number
        assert ours.sum() == len(theirs)
        order, other = np.argsort(-scores[ours], kind="stable"), np.argsort(-theirs.scores, kind="stable")
        np.testing.assert_allclose(scores[ours][order], theirs.scores[other], atol=1e-4)
        np.testing.assert_array_equal(labels[ours][order], theirs.labels[other])
        np.testing.assert_allclose(boxes[ours][order], theirs.bboxes[other], atol=0.01)


def altered(source: Path, target: Path, name: str, change: float) -> Path:
    """A copy of the model with one constant shifted."""
    model = onnx.load(str(source))
    [tensor] = [t for t in model.graph.initializer if t.name == name]
    values = onnx.numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(onnx.numpy_helper.from_array(values + np.asarray(change, values.dtype), name))
    onnx.save(model, str(target))
    return target


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        pytest.param("iou", -0.3, "suppresses other boxes", id="another IoU threshold"),
        pytest.param("floor", 0.2, "suppresses other boxes", id="another score floor"),
        pytest.param("max_per_class", -299, "suppresses other boxes", id="one box a class"),
        pytest.param("reg", 1e-3, "a box by", id="shifted boxes"),
        pytest.param("cls", 1e-2, "a score by", id="shifted scores"),
    ],
)
def test_a_wrong_export_is_refused(exported: Exported, tmp_path: Path, part: str, change: float, says: str) -> None:
    names = [tensor.name for tensor in onnx.load(str(exported.model.path)).graph.initializer]
    biases = {n.split("_conv_")[1].split(".")[0]: n for n in names if "multi_level_conv_" in n and n.endswith("0.bias")}
    wrong = altered(exported.model.path, tmp_path / "wrong.onnx", biases.get(part, part), change)
    with pytest.raises(StepError, match=says):
        check_parity(SPEC, exported.weights, wrong, exported.images)


BLIND = ModelMetadata("nano", (64, 64), ("person", "car"), score_threshold=0.99, serving_score_threshold=0.99)


@pytest.fixture(scope="module")
def blind(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights, and a file of a threshold that nothing reaches."""
    folder = tmp_path_factory.mktemp("blind")
    network = YOLOX.build_model(BLIND)
    fit(read_checkpoint(pretrained, YOLOX), network, BLIND.classes)
    weights = write_checkpoint(folder / "w.pth", network.state_dict(), {"classes": list(BLIND.classes)})
    return weights, export_onnx(BLIND, weights, folder / "m.onnx").path


def test_exporting_twice_gives_the_same_bytes(blind: tuple[Path, Path], tmp_path: Path) -> None:
    again = export_onnx(BLIND, blind[0], tmp_path / "m.onnx").path
    assert again.read_bytes() == blind[1].read_bytes()


def test_a_model_that_finds_nothing_is_compared_on_its_best_candidates(
    exported: Exported, blind: tuple[Path, Path]
) -> None:
    found, notes = check_parity(BLIND, *blind, exported.images)
    boxes = len(exported.images) * 84  # every anchor of a 64 px image
    assert found["parity_detections"] == 0
    assert found["parity_compared"] >= boxes
    candidates = found["parity_candidates"]
    assert 0.9 * boxes <= candidates <= boxes  # those with a score above that of the last one
    assert 0 < found["parity_max_box_difference"] <= 0.01
    assert notes == [f"the model finds nothing in 6 images; parity was measured on its {candidates} best boxes"]


@pytest.mark.parametrize(("part", "change"), [("iou", -0.3), ("max_per_class", -299)])
def test_wrong_suppression_is_refused_though_nothing_is_found(
    exported: Exported, blind: tuple[Path, Path], tmp_path: Path, part: str, change: float
) -> None:
    wrong = altered(blind[1], tmp_path / "wrong.onnx", part, change)
    with pytest.raises(StepError, match="suppresses other boxes"):
        check_parity(BLIND, blind[0], wrong, exported.images)


@pytest.mark.slow
def test_where_there_is_no_score_at_all_parity_is_not_shown(exported: Exported, tmp_path: Path) -> None:
    """A score so small that float32 has only 0 for it, of every anchor."""
    metadata = ModelMetadata("nano", (64, 64), ("a",))
    state = YOLOX.build_model(metadata).state_dict()
    for name, value in state.items():
        if name.startswith("bbox_head.multi_level_conv_obj.") and name.endswith("bias"):
            value.fill_(-1000)
    weights = write_checkpoint(tmp_path / "w.pth", state, {"classes": ["a"]})
    model = export_onnx(metadata, weights, tmp_path / "m.onnx").path
    found, notes = check_parity(metadata, weights, model, exported.images)
    assert found["parity_candidates"] == 0
    assert found["parity_max_box_difference"] is found["parity_max_score_difference"] is None
    assert notes == ["parity is not shown: no box of 6 images has a score above 0"]


def test_parity_needs_an_image_that_can_be_read(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be read"):
        check_parity(SPEC, exported.weights, exported.model.path, [tmp_path / "x.jpg"])


def test_weights_of_other_classes_cannot_be_exported(exported: Exported, tmp_path: Path) -> None:
    metadata = ModelMetadata("nano", (256, 256), ("person", "zebra crossing"))
    with pytest.raises(StepError, match="do not know every class"):
        export_onnx(metadata, exported.weights, tmp_path / "m.onnx")
