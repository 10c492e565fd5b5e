"""Packing: the Bento's content, its independence of place and time, and what is refused."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from folders import contents_of
from packaging.version import Version

from pipeline.client.service_process import serve
from pipeline.errors import DataError, IntegrityError, MissingError, StepError
from pipeline.serving.model_metadata import TEST_RESULT_FILE, ModelMetadata
from pipeline.serving.packing import pack_service, pinned_requirements, service_requirements

REPOSITORY = Path(__file__).parents[2]


def record_of(packed: Any) -> dict[str, Any]:
    """The Bento's own record."""
    record: dict[str, Any] = yaml.safe_load((packed.folder / "bento.yaml").read_text())
    return record


def run_bentoml(program: str, store: Path, *folders: Path) -> list[str]:
    """The words that a program prints that uses BentoML with a store of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, folders)],
        env={**os.environ, "BENTOML_HOME": str(store), "BENTOML_DO_NOT_TRACK": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.split()


def test_what_is_in_it(packed: Any, tiny: Any) -> None:
    sources = contents_of(packed.folder / "src")
    code = {name for name in sources if name.endswith(".py")}
    serving = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "pipeline/serving").glob("*.py")}
    assert code == {"pipeline/__init__.py", "pipeline/errors.py", "pipeline/files.py", *serving}
    others = {"model.onnx", "model.json", "test_image.png", "test_result.json", "bentofile.yaml"}
    assert sources.keys() - code == {*others, "pipeline/serving/page.html"}
    assert sources["model.onnx"] == tiny.onnx_path.read_bytes()
    assert ModelMetadata.read(packed.folder / "src" / "model.json") == tiny.metadata
    assert json.loads(sources["test_result.json"]) == packed.test_result
    assert packed.test_result["detections"]


def test_every_requirement_is_pinned_and_none_is_for_training(packed: Any) -> None:
    lines = (packed.folder / "env/python/requirements.txt").read_text().split()
    assert all(line.count("==") == 1 for line in lines)
    names = {line.partition("==")[0] for line in lines}
    assert {"bentoml", "numpy", "onnxruntime", "opencv-python-headless", "pydantic", "starlette", "uvicorn"} <= names
    assert not {"torch", "mmdet", "mmengine", "mmcv", "mmcv-lite", "matplotlib", "pycocotools", "onnx"} & names


def test_the_same_model_gives_the_same_bytes(packed: Any, tiny: Any, tmp_path: Path) -> None:
    photo = tmp_path / "elsewhere.bin"
    shutil.copyfile(packed.folder / "src" / "test_image.png", photo)
    again = pack_service(tiny.onnx_path, tiny.metadata, photo, tmp_path / "again")
    assert again.tag == packed.tag
    assert contents_of(again.folder) == contents_of(packed.folder)


def test_what_the_model_learned_from_lies_beside_what_is_served(packed: Any, tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "learned_images.npz").write_bytes(b"one")
    metadata = replace(tiny.metadata, training={"learned_images": {"images": 3, "sha256": "ab" * 32}})
    photo, record = packed.folder / "src" / "test_image.png", tmp_path / "learned_images.npz"
    one = pack_service(tiny.onnx_path, metadata, photo, tmp_path / "bento", learned=record)
    assert (one.folder / "learned_images.npz").read_bytes() == b"one"
    assert contents_of(one.folder / "src").keys() == contents_of(packed.folder / "src").keys()
    assert one.tag != packed.tag
    assert record_of(one)["labels"]["learned_images"] == "ab" * 32
    assert record_of(packed)["labels"]["learned_images"] == "unknown"


def test_its_labels_and_time_say_what_it_was_made_from(packed: Any, tiny: Any, tmp_path: Path) -> None:
    data = {"coco_train_dataset": "cd" * 32, "coco_eval_dataset": "ef" * 32}
    origin = {"commit": "ab" * 20 + "-dirty", "created": "2026-11-29T02:46:27Z", "data": data, "licence": "Apache-2.0"}
    metadata = replace(tiny.metadata, training={"eval_mAP": 0.72345}, origin=origin)
    photo = packed.folder / "src" / "test_image.png"
    one, again = (pack_service(tiny.onnx_path, metadata, photo, tmp_path / name) for name in ("one", "again"))
    facts = {"commit": "ab" * 20 + "-dirty", "eval_mAP": "0.7235", "learned_images": "unknown"}
    facts |= {"runtime": "cpu", "precision": "fp32"}
    assert record_of(one)["labels"] == facts | data
    assert record_of(one)["creation_time"] == "2026-11-29T02:46:27+00:00"
    assert contents_of(one.folder) == contents_of(again.folder)
    assert one.tag != packed.tag
    assert {*record_of(packed)["labels"].values()} == {"unknown", "cpu", "fp32"}
    assert record_of(packed)["creation_time"] == "1970-01-01T00:00:00+00:00"


def test_the_newest_in_a_store_is_its_latest(packed: Any, tiny: Any, tmp_path: Path) -> None:
    photo, tags = packed.folder / "src" / "test_image.png", {}
    for year in (2025, 2027, 2026):
        metadata = replace(tiny.metadata, origin={"created": f"{year}-01-02T03:04:05Z"})
        tags[year] = pack_service(tiny.onnx_path, metadata, photo, tmp_path / str(year)).tag
    program = (
        "import bentoml, sys;"
        "[bentoml.bentos.import_bento(each, input_format='folder') for each in sys.argv[1:]];"
        "print(bentoml.bentos.get('object_detector').tag, bentoml.bentos.get('object_detector:latest').tag)"
    )
    folders = [packed.folder, *(tmp_path / str(year) for year in tags)]  # neither the first nor the last is the newest
    assert run_bentoml(program, tmp_path / "store", *folders) == [tags[2027]] * 2


def test_the_runtime_chooses_the_package_and_the_providers(tiny: Any) -> None:
    cpu, cuda, tensorrt = (service_requirements(name) for name in ("cpu", "cuda", "tensorrt"))
    assert f"onnxruntime=={importlib.metadata.version('onnxruntime')}" in cpu
    assert {"uvloop", "httptools"} <= {line.partition("==")[0] for line in cpu}
    assert not [line for line in cpu if line.startswith(("nvidia-c", "onnxruntime-gpu"))]
    gpu = {line.partition("==")[0]: line.partition("==")[2] for line in cuda}
    assert all(gpu.values())
    assert {"onnxruntime-gpu", "nvidia-cudnn-cu13", "nvidia-cublas", "flatbuffers", "protobuf"} <= gpu.keys()
    assert "onnxruntime" not in gpu
    assert Version(gpu["onnxruntime-gpu"]).release[:1] == Version(importlib.metadata.version("onnxruntime")).release[:1]
    assert tensorrt == cuda == sorted(cuda)
    assert replace(tiny.metadata, runtime="tensorrt").providers == (
        "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider",
    )  # fmt: skip
    assert tiny.metadata.providers == ("CPUExecutionProvider",)


def test_a_service_on_openvino_has_no_other_library_and_is_served(packed: Any, tiny: Any, tmp_path: Path) -> None:
    metadata, photo = replace(tiny.metadata, runtime="openvino"), packed.folder / "src" / "test_image.png"
    one = pack_service(tiny.onnx_path, metadata, photo, tmp_path / "bento")
    names = {line.partition("==")[0] for line in (one.folder / "env/python/requirements.txt").read_text().split()}
    assert names >= {"openvino", "numpy", "bentoml"}
    assert not names & {"onnxruntime", "openvino-telemetry"}
    (found,), (recorded,) = one.test_result["detections"], packed.test_result["detections"]
    assert found == {**recorded, "score": pytest.approx(recorded["score"], abs=1e-5)}
    with serve(one.folder) as running:  # ready: the self-test passed
        info = requests.get(f"{running.url}/info", timeout=10).json()
        assert (info["providers"], info["precision"], info["runtime"]) == (["OpenVINO CPU"], "fp32", "openvino")
        assert info["engine"] == f"openvino {importlib.metadata.version('openvino')}"
        files = [("images", (photo.name, photo.read_bytes()))]
        answer = requests.post(f"{running.url}/predict?score_threshold=0.01", files=files * 8, timeout=30).json()
        assert answer == [one.test_result] * 8


def test_a_service_for_gpus_is_packed_without_one(packed: Any, tiny: Any, tmp_path: Path) -> None:
    metadata, photo = replace(tiny.metadata, runtime="cuda"), packed.folder / "src" / "test_image.png"
    one = pack_service(tiny.onnx_path, metadata, photo, tmp_path / "bento")
    assert sorted((one.folder / "env/python/requirements.txt").read_text().split()) == service_requirements("cuda")
    assert (record_of(one)["labels"]["runtime"], one.test_result) == ("cuda", packed.test_result)


def test_the_users_home_and_store_are_not_touched(
    tiny: Any, packed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "store"))
    (tmp_path / "home").mkdir()
    pack_service(tiny.onnx_path, tiny.metadata, packed.folder / "src" / "test_image.png", tmp_path / "bento")
    assert not list((tmp_path / "home").rglob("*"))
    assert not (tmp_path / "store").exists()


def test_it_runs_its_own_copy_of_the_code_wherever_it_lies(
    packed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(packed.folder, moved)
    errors = moved / "src" / "pipeline" / "errors.py"
    errors.write_text(errors.read_text() + "\nprint('the Bento is running its own code')\n")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    with serve(moved) as running:
        assert "the Bento is running its own code" in running.log_path.read_text()


def test_a_store_can_import_it_for_a_container(packed: Any, tmp_path: Path) -> None:
    program = (
        "import bentoml, sys;"
        "bento = bentoml.bentos.import_bento(sys.argv[1], input_format='folder');"
        "print(*[one.tag for one in bentoml.bentos.list()])"
    )
    assert run_bentoml(program, tmp_path, packed.folder) == [packed.tag]


@pytest.mark.parametrize(
    ("model", "photo", "error", "message"),
    [
        pytest.param(b"other", None, IntegrityError, "SHA-256", id="a model that the metadata does not name"),
        pytest.param(None, b"text", DataError, "not an image file", id="a test image that is none"),
    ],
)
def test_what_is_refused(
    tiny: Any, packed: Any, tmp_path: Path, model: Any, photo: Any, error: type[Exception], message: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(model or tiny.onnx_path.read_bytes())
    (tmp_path / "photo").write_bytes(photo or (packed.folder / "src" / "test_image.png").read_bytes())
    with pytest.raises(error, match=message):
        pack_service(tmp_path / "model.onnx", tiny.metadata, tmp_path / "photo", tmp_path / "bento")
    assert not (tmp_path / "bento").exists()


def test_a_package_and_all_it_needs() -> None:
    pinned = dict(line.split("==") for line in pinned_requirements("requests", "PyYAML", "pyyaml"))
    assert pinned["requests"] == importlib.metadata.version("requests")
    assert pinned["pyyaml"] == importlib.metadata.version("pyyaml")
    assert {"requests", "urllib3", "idna", "certifi"} <= pinned.keys()
    assert "pysocks" not in pinned  # only of an extra
    assert any(line.startswith("aiohttp==") for line in pinned_requirements("fsspec[http]"))
    with pytest.raises(MissingError, match="no-such-package"):
        pinned_requirements("no-such-package")


def test_an_altered_model_is_one_clear_error(packed: Any, tmp_path: Path) -> None:
    """Not a worker that is started again and again."""
    shutil.copytree(packed.folder, tmp_path / "bento")
    with (tmp_path / "bento" / "src" / "model.onnx").open("ab") as file:
        file.write(b"x")
    command = [sys.executable, "-m", "bentoml", "serve", str(tmp_path / "bento"), "--port", "0", "--do-not-track"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "the ONNX model has SHA-256" in ended.stderr + ended.stdout
    assert "do:       pack the model again" in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr + ended.stdout


def test_a_service_that_answers_otherwise_is_never_ready(packed: Any, tmp_path: Path) -> None:
    shutil.copytree(packed.folder, tmp_path / "bento")
    path = tmp_path / "bento" / "src" / TEST_RESULT_FILE
    recorded = json.loads(path.read_text())
    recorded["detections"][0]["box"][0] += 1
    path.write_text(json.dumps(recorded))
    said = r"not ready within 6 s(.|\n)*the test image gives other objects than when the model was packed"
    with pytest.raises(StepError, match=said), serve(tmp_path / "bento", timeout=6):
        pass
