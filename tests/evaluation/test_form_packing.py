"""Further forms of a model: packed beside the service, served, judged on the same images, and delivered or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from tiny_service import brightness_model

from pipeline.detection.export import ExportedModel
from pipeline.errors import MissingError
from pipeline.evaluation import model_form
from pipeline.evaluation.form_comparison import deliver_forms
from pipeline.evaluation.form_packing import pack_forms
from pipeline.evaluation.measurement import Measurement, measure
from pipeline.evaluation.model_form import DatasetFolders, choose_form
from pipeline.evaluation.packed_forms import PackedForm, read_forms
from pipeline.evaluation.prediction import predict_forms, predict_sets
from pipeline.files import sha256_of
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.packing import pack_service

GREYS = [250, 200, 160, 100, 60, 40, 30]
SHIFTED = [9, 9, 41, 41]  # a box of IoU 0.88 with the right one: it is no hit at 0.9 and 0.95, so mAP is 0.8


@dataclass(frozen=True)
class Forms:
    """A model that finds everything, the folder of its service, and a form of it that finds less."""

    folder: Path
    truth: GroundTruth
    packed: tuple[PackedForm, ...]

    def judged(self, max_loss: float) -> Measurement:
        """The exam of all of them."""
        ask = {"score_threshold": 0.01, "workers": 2}
        found = predict_sets(self.folder / "bento", {"test": self.truth}, log_path=self.folder / "server.log", **ask)
        forms = predict_forms(self.folder / "forms", self.truth, log_folder=self.folder, **ask)
        return measure(self.truth, found["test"], self.folder / "bento", {}, forms, max_form_loss=max_loss)


def exported(path: Path, content: bytes) -> ExportedModel:
    path.write_bytes(content)
    return ExportedModel(path, sha256_of(path), len(content))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.full((48, 64, 3), 90, np.uint8))
    return path


@pytest.fixture
def forms(write_dataset: Callable, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Pack them; quantising moves the boxes by a pixel, and every lower precision is faster."""

    def quantize(*_: object, **__: object) -> ExportedModel:
        proto = onnx.load_from_string(brightness_model(64))
        [box] = [each for each in proto.graph.initializer if each.name == "box"]
        box.CopyFrom(onnx.helper.make_tensor("box", onnx.TensorProto.FLOAT, [1, 4], SHIFTED))
        return exported(tmp_path / "int8.onnx", proto.SerializeToString())

    def pack(names: Sequence[str], max_map_loss: float) -> Forms:
        model = exported(tmp_path / "model.onnx", brightness_model(64))
        metadata = ModelMetadata("nano", (64, 64), ("dark", "bright"))
        datasets = DatasetFolders(write_dataset([250, 90]).folder, (truth := write_dataset(GREYS)).folder)
        (tmp_path / "forms").mkdir()
        form = choose_form(model, metadata, datasets, tmp_path)
        pack_service(form.model.path, form.metadata, photo, tmp_path / "bento")
        beside = {"test_image": photo, "learned": None}
        folders = (datasets, tmp_path / "forms", tmp_path)
        packed = pack_forms(names, model, metadata, *folders, packed=form, max_map_loss=max_map_loss, **beside)
        return Forms(tmp_path, truth, packed)

    monkeypatch.setattr(model_form, "quantize", quantize)
    monkeypatch.setattr(model_form, "time_ratio", lambda *_: 0.5)
    return pack


def test_each_form_sits_the_same_exam_and_one_that_loses_more_than_its_limit_is_not_delivered(forms: Callable) -> None:
    made = forms(["cpu-int8", "openvino-fp32"], max_map_loss=0.5)
    assert read_forms(made.folder / "forms") == made.packed
    measured = made.judged(max_loss=0.1)
    lost, equal = measured.forms
    assert (lost.name, equal.name) == ("cpu-int8", "openvino-fp32")
    assert lost.map
    assert lost.map.before == measured.metrics.map == pytest.approx(1)
    assert lost.map.change == pytest.approx(-0.2)
    assert lost.refusal == "it loses 0.200 of mAP, more than 0.1"
    assert equal.map
    assert (equal.map.verdict, equal.refusal) == ("the same", "")
    for each in (lost.predictions, equal.predictions, measured.predictions):
        assert each
        assert each.memory_bytes > 20e6
        assert each.latency["p50"] > 0
    assert equal.predictions
    assert equal.predictions.model_bytes == (made.folder / "model.onnx").stat().st_size
    assert equal.predictions.service["engine"].startswith("openvino")
    (made.folder / "delivered").mkdir()
    deliver_forms(measured.forms, made.folder / "forms", made.folder / "delivered")
    assert [each.name for each in read_forms(made.folder / "delivered")] == ["openvino-fp32"]
    assert {path.name for path in (made.folder / "delivered").iterdir()} == {"openvino-fp32", "forms.json"}
    assert (made.folder / "delivered" / "openvino-fp32" / "bento.yaml").is_file()


def test_a_form_that_is_not_packed_is_told_with_its_reason(forms: Callable) -> None:
    made = forms(["cpu-int8"], max_map_loss=0.1)
    [form] = made.packed
    assert form.absence == "cpu in int8 has mAP 0.8000 on the eval set, ONNX Runtime in fp32 1.0000: it loses 0.2000"
    assert {path.name for path in (made.folder / "forms").iterdir()} == {"forms.json"}
    [judged] = made.judged(max_loss=1.0).forms
    assert (judged.refusal, judged.predictions, judged.map) == (form.absence, None, None)


@pytest.mark.slow
def test_a_form_that_does_not_start_is_told_and_the_others_are_measured(forms: Callable) -> None:
    made = forms(["openvino-fp32", "cpu-int8"], max_map_loss=0.5)
    (made.folder / "forms" / "openvino-fp32" / "src" / "model.onnx").write_bytes(b"broken")
    broken, other = made.judged(max_loss=1.0).forms
    assert broken.refusal.startswith("it cannot be measured: ")
    assert other.refusal == ""


def test_without_a_package_that_runs_a_form_nothing_is_packed(
    forms: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtimes = replace_engine("openvino", "no_such_engine")
    monkeypatch.setattr("pipeline.serving.runtimes.RUNTIMES", runtimes)
    with pytest.raises(MissingError, match="no_such_engine"):
        forms(["cpu-int8", "openvino-fp32"], max_map_loss=1.0)
    assert not [*(tmp_path / "forms").iterdir()]


def replace_engine(runtime: str, engine: str) -> dict[str, object]:
    from pipeline.serving.runtimes import RUNTIMES

    return {**RUNTIMES, runtime: replace(RUNTIMES[runtime], engine=engine)}
