"""Which form of a model is packed: what goes together, what is measured, and what is refused."""

from __future__ import annotations

import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from tiny_service import brightness_model

from pipeline.detection.export import ExportedModel, export_onnx
from pipeline.errors import DataError, MissingError, StepError
from pipeline.evaluation import model_form
from pipeline.evaluation.model_form import DatasetFolders, ModelForm, choose_form, measure_map, time_ratio
from pipeline.files import sha256_of
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import Predictor
from pipeline.serving.runtimes import check_form, require_engine

METADATA = ModelMetadata("nano", (64, 64), ("dark", "bright"), metrics={"parity_images": 3})
NOWHERE = DatasetFolders(Path("no train set"), Path("no eval set"))


def as_exported(path: Path, content: bytes) -> ExportedModel:
    path.write_bytes(content)
    return ExportedModel(path, sha256_of(path), len(content))


@pytest.fixture
def model(tmp_path: Path) -> ExportedModel:
    return as_exported(tmp_path / "model.onnx", brightness_model(64))


@pytest.fixture
def datasets(write_dataset: Callable) -> DatasetFolders:
    """The model's mAP is 1 on both."""
    return DatasetFolders(write_dataset([250, 90]).folder, write_dataset([250, 200, 160, 100, 60, 40, 30]).folder)


@pytest.fixture
def choose(model: ExportedModel, datasets: DatasetFolders, tmp_path: Path) -> Callable[..., ModelForm]:
    return lambda **named: choose_form(model, METADATA, datasets, tmp_path, **named)


def ratio_of(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_form, "time_ratio", lambda *_: value)


@pytest.mark.parametrize("runtime", ["cpu", "cuda", "tensorrt"])
def test_of_onnx_runtime_in_fp32_nothing_is_measured(model: ExportedModel, tmp_path: Path, runtime: str) -> None:
    form = choose_form(model, METADATA, NOWHERE, tmp_path, runtime=runtime)
    assert form == ModelForm(model, replace(METADATA, runtime=runtime, onnx_sha256=model.sha256), {}, ())


def test_another_library_is_measured_against_it(
    choose: Callable, model: ExportedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratio_of(1.25, monkeypatch)
    form = choose(runtime="openvino")
    assert form.model == model
    assert form.metrics == {"map_fp32": 1.0, "map_packed": 1.0, "map_loss": 0.0, "time_to_onnxruntime": 1.25}
    assert form.notes == ("openvino in fp32 took 1.25 times as long as ONNX Runtime in fp32, measured on one thread",)
    assert (form.metadata.runtime, form.metadata.precision) == ("openvino", "fp32")
    # nothing in it that another run would measure otherwise
    assert form.metadata.metrics == {"parity_images": 3, "map_fp32": 1.0, "map_packed": 1.0, "map_loss": 0.0}
    ratio_of(0.8, monkeypatch)
    assert choose(runtime="openvino").notes == ()


def test_a_greater_loss_than_allowed_is_refused(choose: Callable) -> None:
    said = r"openvino in fp32 has mAP 1\.0000 .* 1\.0000: it loses 0\.0000(.|\n)*at most max_map_loss, -1"
    with pytest.raises(StepError, match=said):
        choose(runtime="openvino", max_map_loss=-1)


@pytest.fixture
def spoilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExportedModel:
    """What quantising gives here: a model whose boxes lie elsewhere."""
    proto = onnx.load_from_string(brightness_model(64))
    [box] = [each for each in proto.graph.initializer if each.name == "box"]
    box.CopyFrom(onnx.helper.make_tensor("box", onnx.TensorProto.FLOAT, [1, 4], [30, 30, 60, 60]))
    bad = as_exported(tmp_path / "int8.onnx", proto.SerializeToString())
    monkeypatch.setattr(model_form, "quantize", lambda *_, **__: bad)
    return bad


@pytest.mark.parametrize("runtime", ["cpu", "openvino"])
def test_a_form_that_became_bad_is_refused_with_both_figures(
    choose: Callable, spoilt: ExportedModel, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    ratio_of(0.5, monkeypatch)
    with pytest.raises(StepError, match=rf"{runtime} in int8 has mAP 0\.0000 .* 1\.0000: it loses 1\.0000"):
        choose(runtime=runtime, precision="int8")
    form = choose(runtime=runtime, precision="int8", max_map_loss=1.0)
    assert (form.model, form.metadata.onnx_sha256) == (spoilt, spoilt.sha256)
    times = {"time_to_fp32": 0.5} | ({"time_to_onnxruntime": 0.5} if runtime == "openvino" else {})
    assert form.metrics == {"map_fp32": 1.0, "map_packed": 0.0, "map_loss": 1.0} | times


@pytest.mark.parametrize("runtime", ["cpu", "openvino"])
def test_int8_that_is_hardly_faster_is_not_taken(
    choose: Callable, model: ExportedModel, spoilt: ExportedModel, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    ratio_of(0.96, monkeypatch)
    form = choose(runtime=runtime, precision="int8")
    assert (form.model, form.metadata.precision, form.metadata.onnx_sha256) == (model, "fp32", model.sha256)
    assert form.notes == (f"packed in fp32: int8 took 0.96 times as long on {runtime}, measured on one thread",)
    assert form.metadata.metrics["precision_refused"].startswith("int8 was asked for")
    assert form.metrics["time_to_fp32"] == 0.96


def test_bf16_is_measured_or_refused_where_the_cpu_has_none(choose: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.serving import openvino_backend

    ratio_of(0.5, monkeypatch)
    monkeypatch.setitem(openvino_backend._HINTS, "bf16", "f32")
    with pytest.raises(StepError, match="this CPU has no bf16"):
        choose(runtime="openvino", precision="bf16")


@pytest.mark.parametrize(
    ("runtime", "precision", "says"),
    [
        pytest.param("cpu", "bf16", "for cpu, fp32 or int8; for bf16, openvino", id="bf16 without OpenVINO"),
        pytest.param("cuda", "int8", "for cuda, fp32; for int8, cpu or openvino", id="INT8 on a GPU"),
        pytest.param("openvin", "fp32", "did you mean 'openvino'", id="no such runtime"),
        pytest.param("cpu", "int", "did you mean 'int8'", id="no such precision"),
    ],
)
def test_what_does_not_go_together(runtime: str, precision: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        check_form(runtime, precision)


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match="pip install openvino"):
        require_engine("openvino")


def test_an_eval_set_without_objects_measures_nothing(
    model: ExportedModel, write_dataset: Callable, tmp_path: Path
) -> None:
    empty = write_dataset([40, 200], categories=("other", "bright"), crowds=(2,))
    assert measure_map(Predictor(model.path, replace(METADATA, onnx_sha256=model.sha256)), METADATA, empty) is None
    with pytest.raises(StepError, match=r"cannot be measured(.|\n)*runtime cpu"):
        choose_form(model, METADATA, DatasetFolders(NOWHERE.train, empty.folder), tmp_path, runtime="openvino")


def test_the_ratio_of_times() -> None:
    class Sleeper:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def detect(self, images: Any) -> None:
            time.sleep(self.seconds)

    one: Any = Sleeper(0.006)
    other: Any = Sleeper(0.002)
    assert time_ratio(one, other, [None] * 3, turns=9) == pytest.approx(3, rel=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_on_photographs_openvino_loses_little(
    real_data: Path, real_truth: GroundTruth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """YOLOX-nano with COCO's weights, the lower precision taken whatever its speed on a busy machine."""
    if precision == "bf16" and not has_bf16():
        pytest.skip("this CPU has no bf16")
    ratio_of(0.5, monkeypatch)
    (tmp_path / "set" / "images").mkdir(parents=True)
    shutil.copyfile(real_truth.folder / "instances_val2017.json", tmp_path / "set" / "annotations.json")
    with zipfile.ZipFile(real_data / "val2017.zip") as opened:
        for image in real_truth.images:
            (tmp_path / "set" / "images" / image.file_name).write_bytes(opened.read(f"val2017/{image.file_name}"))
    metadata = ModelMetadata("nano", (416, 416), tuple(real_truth.categories.values()))
    weights = torch.load(real_data / "yolox_nano_coco.pth", weights_only=True)
    torch.save({**weights, "meta": {"dataset_meta": {"classes": metadata.classes}}}, tmp_path / "weights.pth")
    model = export_onnx(metadata, tmp_path / "weights.pth", tmp_path / "model.onnx")
    both = DatasetFolders(tmp_path / "set", tmp_path / "set")
    form = choose_form(model, metadata, both, tmp_path, runtime="openvino", precision=precision)
    assert form.metadata.precision == precision
    assert form.metrics["map_fp32"] == pytest.approx(0.2735, abs=0.002)
    assert abs(form.metrics["map_loss"]) < 0.006


def has_bf16() -> bool:
    """Whether OpenVINO finds it."""
    from pipeline.serving.openvino_backend import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
