"""Test sets: drawn by hand, at random, and the real photographs; a packed service, and a server that misbehaves."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx.parser
import pytest

from pipeline.evaluation.matching import GroundTruth, read_ground_truth
from pipeline.evaluation.service_process import RunningService, serve
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.packing import pack_service


@pytest.fixture(scope="session")
def real_truth(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    archive = real_data / "annotations_trainval2017.zip"
    folder = tmp_path_factory.mktemp("real")
    with zipfile.ZipFile(archive) as opened:
        return read_ground_truth(Path(opened.extract("annotations/instances_val2017.json", folder)))


@pytest.fixture
def coco_file(tmp_path: Path) -> Callable[..., GroundTruth]:
    """Make a test set: `boxes` are (image_id, category_id, [x, y, w, h]) or the same with a dict of extras."""

    def write(
        boxes: Any,
        *,
        categories: Any = ("cat", "dog", "owl"),
        images: Any = 4,
        first_id: Any = 1,
    ) -> GroundTruth:
        document = {
            "images": [
                {"id": number, "file_name": f"{number}.png", "width": 200, "height": 100}
                for number in range(1, images + 1)
            ],
            "categories": [{"id": number, "name": name} for number, name in enumerate(categories, 1)],
            "annotations": [
                {"id": number, "image_id": image_id, "category_id": category_id, "bbox": list(box), "iscrowd": 0}
                | {"area": box[2] * box[3]}
                | dict(*extras)
                for number, (image_id, category_id, box, *extras) in enumerate(boxes, first_id)
            ],
        }
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(document))
        return read_ground_truth(path)

    return write


def detection(image_id: int, category_id: int, box: Sequence[float], score: float) -> dict:
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "score": score}


@pytest.fixture
def jittered() -> Callable[[GroundTruth, int], list[dict]]:
    """Detections made of annotations: moved, mislabelled, dropped and invented, with scores of two digits (ties!)."""

    def make(truth: GroundTruth, seed: int) -> list[dict]:
        rng = np.random.default_rng(seed)
        ids = list(truth.categories)
        results = []
        for one in truth.annotations:
            x, y, w, h = one.bbox
            scale = max(w, h) * 0.12
            moved = np.array([x, y, w, h]) + rng.normal(0, 1, 4) * scale
            moved[2:] = np.maximum(moved[2:], 1)
            if rng.random() > 0.2:
                label = int(rng.choice(ids)) if rng.random() < 0.15 else one.category_id
                results.append(detection(one.image_id, label, moved.tolist(), round(float(rng.random()), 2)))
            if rng.random() < 0.5:
                image = truth.images[int(rng.integers(len(truth.images)))].id
                results.append(detection(image, int(rng.choice(ids)), moved.tolist(), round(float(rng.random()), 2)))
        return results

    return make


def brightness_model(size: int) -> bytes:
    """ONNX graph with the served interface: one fixed box per image, its score the mean brightness, label 0 or 1."""
    return onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 18]>
        brightness (float[batch, 3, {size}, {size}] images)
            => (int64[found] batch_index, float[found, 4] boxes, float[found] scores, int64[found] labels)
            <int64[3] axes = {{1, 2, 3}}, float white = {{255}}, float half = {{0.5}}, int64 zero = {{0}},
             int64 one = {{1}}, float[1, 4] box = {{8, 8, 40, 40}}>
        {{
            mean = ReduceMean <keepdims = 0> (images, axes)
            scores = Div (mean, white)
            bright = Greater (scores, half)
            labels = Cast <to = 7> (bright)
            count = Shape <start = 0, end = 1> (images)
            end = Squeeze (count)
            batch_index = Range (zero, end, one)
            four = Shape <start = 1, end = 2> (box)
            shape = Concat <axis = 0> (count, four)
            boxes = Expand (box, shape)
        }}""").SerializeToString()


@pytest.fixture(scope="session")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed service that knows the classes "dark" and "bright", input 64 x 64 pixels."""
    folder = tmp_path_factory.mktemp("evaluation")
    model = brightness_model(64)
    (folder / "model.onnx").write_bytes(model)
    cv2.imwrite(str(folder / "photo.png"), np.full((48, 64, 3), 90, np.uint8))
    metadata = ModelMetadata("nano", (64, 64), ("dark", "bright"), 0.01, 0.65, 0.3, hashlib.sha256(model).hexdigest())
    return pack_service(folder / "model.onnx", metadata, folder / "photo.png", folder / "bento").folder


@pytest.fixture(scope="session")
def served(bento: Path) -> Iterator[RunningService]:
    with serve(bento) as server:
        yield server


@pytest.fixture
def write_dataset(tmp_path: Path) -> Callable[..., GroundTruth]:
    """Grey 64 x 64 images of the given brightness, with the box that the packed model finds in every one."""

    def write(greys: Any, categories: Any = ("bright", "dark"), crowds: Any = ()) -> GroundTruth:
        folder = tmp_path / "dataset"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        document = {"images": [], "annotations": [], "categories": []}
        document["categories"] = [{"id": number, "name": name} for number, name in enumerate(categories, 1)]
        for number, grey in enumerate(greys):
            name = f"{number}.png"
            cv2.imwrite(str(folder / "images" / name), np.full((64, 64, 3), grey, np.uint8))
            document["images"].append({"id": number, "file_name": name, "width": 64, "height": 64})
            label = "bright" if grey > 127 else "dark"
            if label in categories:
                document["annotations"].append(
                    {"id": number, "image_id": number, "category_id": categories.index(label) + 1}
                    | {"bbox": [8, 8, 32, 32], "area": 1024, "iscrowd": int(number in crowds)}
                )
        (folder / "annotations.json").write_text(json.dumps(document))
        return read_ground_truth(folder / "annotations.json")

    return write


@pytest.fixture
def scripted() -> Iterator[Callable[..., SimpleNamespace]]:
    """A real server that speaks the service's API, but first does to `/predict` what it is told.

    A step of the script is a status code, "reset", "hang up", or bytes to answer with.
    """
    running = []

    def start(*script: int | str | bytes, size: tuple[int, int] = (64, 64), recorded: Any = ()) -> SimpleNamespace:
        state = SimpleNamespace(script=list(script), calls=0, lock=threading.Lock())

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.path.startswith("/info"):
                    return self.answer({"classes": ["bright", "dark"], "score_threshold": 0.01})
                if self.path.startswith("/test_"):  # the image is not looked at
                    return self.answer({"width": 64, "height": 64, "detections": list(recorded)})
                with state.lock:
                    state.calls += 1
                    step = state.script.pop(0) if state.script else None
                found = {"box": [8, 8, 40, 40], "score": 0.9, "label": "bright", "class_id": 0}
                item = {"width": size[0], "height": size[1], "detections": [found]}
                if step is None:
                    return self.answer([item])
                if isinstance(step, bytes):
                    return self.reply(200, step)
                if isinstance(step, int):
                    return self.answer({"error": {"code": "scripted", "message": "told to"}}, step)
                if step == "reset":  # RST instead of FIN
                    self.connection.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                self.close_connection = True
                return self.connection.close()

            def answer(self, value: object, status: int = 200) -> None:
                self.reply(status, json.dumps(value).encode())

            def reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def finish(self) -> None:
                with contextlib.suppress(OSError, ValueError):
                    super().finish()

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *args: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return SimpleNamespace(url=f"http://127.0.0.1:{server.server_address[1]}", state=state)

    yield start
    for server in running:
        server.shutdown()
        server.server_close()
