"""From a model to a Bento: a folder that `bentoml serve` runs, the same bytes for the same model.

`bentoml build` runs in a process of its own with a store of its own, so it neither changes the user's `~/bentoml` nor
sees the imports of this process. No network is used.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.errors import MissingError, StepError
from pipeline.files import sha256_of
from pipeline.serving.decoding import decode, read_header
from pipeline.serving.model_metadata import (
    METADATA_FILE,
    MODEL_FILE,
    SERVICE_NAME,
    TEST_IMAGE_STEM,
    TEST_RESULT_FILE,
    ModelMetadata,
)
from pipeline.serving.predictor import Detections, Predictor
from pipeline.serving.runtimes import RUNTIMES
from pipeline.serving.tiled_detection import predict_image
from pipeline.serving.tiling import Tile

SERVICE = "pipeline.serving.service:ObjectDetector"
CARRIES = ("pipeline.serving",)  # packed as files: a change of a file changes the service
PACKAGES = ("bentoml", "httptools", "numpy", "opencv-python-headless", "uvloop")

UNWANTED = ("openvino-telemetry",)  # OpenVINO requires it, and runs without it; see `openvino_backend`

_PACKAGE_ROOT = Path(__file__).parents[1]
_UNKNOWN_TIME = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class PackedService:
    """A built Bento."""

    # `python -m bentoml serve <folder>` runs it, and `bentoml.bentos.import_bento(folder, input_format="folder")` adds
    # it to a store, for `bentoml containerize`
    folder: Path
    tag: str  # name and version, which is a digest of the content
    test_result: dict[str, Any]  # the detections in the test image, as the REST API's `test_result` answers


def pack_service(
    onnx_path: Path, metadata: ModelMetadata, test_image: Path, folder: Path, *, learned: Path | None = None
) -> PackedService:
    """Build the Bento of a model.

    `test_image` is one whose detections are recorded, for checks of the running service; of an image of many tiles, a
    part is packed. `learned` is the record of the images that the model learned from, of which the metadata holds the
    digest. It lies at the root of the Bento, where the service does not read it.

    Raises:
        MissingError: A required package is missing.
        DataError: The test image is not an image.
        IntegrityError: The model is not the one that the metadata names.
        StepError: BentoML failed to build.
    """
    requirements = service_requirements(metadata.runtime)
    with tempfile.TemporaryDirectory(prefix="bento-") as scratch:
        context, home = Path(scratch, "context"), Path(scratch, "home")
        test_result = _gather(onnx_path, metadata, test_image, context)
        content = [{name: sha256_of(context / name) for name in _files(context)}, requirements, sys.version_info[:2]]
        version = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        options = {
            "service": SERVICE,
            "name": SERVICE_NAME,
            "description": f"# {SERVICE_NAME}\n\n{metadata.name}, {len(metadata.classes)} classes: "
            f"{', '.join(metadata.classes)}.\n",
            "include": _files(context),
            "labels": labels(metadata),
            # bentoml adds itself; locking would ask a package index, and every version is pinned already
            "python": {
                "packages": [one for one in requirements if not one.startswith("bentoml==")],
                "lock_packages": False,
            },
        }
        (context / "bentofile.yaml").write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
        shutil.copytree(_build(context, home, version), folder, dirs_exist_ok=True)
    record = folder / "bento.yaml"
    # without the time of building, the same model gives the same bytes; a store's `latest` goes by this time
    created = datetime.fromisoformat(metadata.origin.get("created") or _UNKNOWN_TIME).isoformat()
    text = re.sub(r"(?m)^creation_time:.*$", f"creation_time: '{created}'", record.read_text(encoding="utf-8"))
    record.write_text(text, encoding="utf-8")
    if learned:
        shutil.copyfile(learned, folder / learned.name)
    return PackedService(folder, f"{SERVICE_NAME}:{version}", test_result)


def labels(metadata: ModelMetadata) -> dict[str, str]:
    """The labels of a Bento: what it was made from, and how good it was on the eval set; "unknown" where not recorded.

    Each input of the training, such as its data sets, has a label of its name with its digest.
    """
    accuracy = metadata.training.get("eval_mAP")
    return {
        "commit": metadata.origin.get("commit") or "unknown",
        "eval_mAP": "unknown" if accuracy is None else f"{accuracy:.4f}",
        "learned_images": metadata.training.get("learned_images", {}).get("sha256", "unknown"),
        "runtime": metadata.runtime,
        "precision": metadata.precision,
        **metadata.origin.get("data", {}),
    }


def _gather(onnx_path: Path, metadata: ModelMetadata, test_image: Path, context: Path) -> dict[str, Any]:
    """Collect the files of the service: code, model, metadata, the test image and its detections."""
    sources = [_PACKAGE_ROOT / name for name in ("__init__.py", "errors.py", "files.py")]
    serving = _PACKAGE_ROOT / "serving"
    for source in [*sources, *serving.glob("*.py"), serving / "page.html"]:
        target = context / _PACKAGE_ROOT.name / source.relative_to(_PACKAGE_ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    shutil.copyfile(onnx_path, context / MODEL_FILE)
    predictor, image = Predictor(onnx_path, metadata), test_image.read_bytes()
    pixels = decode(image)
    found = predict_image(predictor, pixels, metadata)
    if (part := _part_for_a_test(found, metadata)) is not None:
        pixels = part.of(pixels)
        image, found = cv2.imencode(".png", pixels)[1].tobytes(), predict_image(predictor, pixels, metadata)
    name = f"{TEST_IMAGE_STEM}.{read_header(image).format.lower().replace('jpeg', 'jpg')}"
    (context / name).write_bytes(image)
    metadata.write(context / METADATA_FILE)
    result = found.to_json(metadata.classes, metadata.score_threshold)
    (context / TEST_RESULT_FILE).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


def _part_for_a_test(found: Detections, metadata: ModelMetadata) -> Tile | None:
    """Two tiles by two of a test image around its most certain object, or None where it is no larger.

    The service detects its objects whenever it starts, and an image of 4,000 pixels may have some hundred tiles.
    """
    side = 2 * metadata.tile - metadata.tiling.shared
    if not metadata.tile or max(found.width, found.height) <= side:
        return None
    box = found.boxes[0] if len(found.boxes) else (0, 0, 0, 0)
    spans = []
    for low, high, length in zip(box[:2], box[2:], (found.width, found.height), strict=True):
        start = max(0, min(int(low + high - side) // 2, length - side))
        spans.append((start, min(start + side, length)))
    (left, right), (top, bottom) = spans
    return Tile(left, top, right, bottom)


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _build(context: Path, home: Path, version: str) -> Path:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BENTOML_")}
    environment |= {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "bentoml", "build", ".", "--version", version, "--output", "tag"]
    ended = subprocess.run(
        command, cwd=context, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    built = home / "bentos" / SERVICE_NAME / version
    if ended.returncode != 0 or not built.is_dir():
        tail = "\n".join(ended.stderr.splitlines()[-15:])
        raise StepError(f"bentoml build ended with exit code {ended.returncode}; its last lines:\n{tail}")
    return built


def service_requirements(runtime: str) -> list[str]:
    """All packages of the service, each pinned; `runtime` is a name in `RUNTIMES`.

    Those of a GPU take the place of `onnxruntime`, whose own requirements are theirs, too.
    """
    chosen = RUNTIMES[runtime]
    pinned = pinned_requirements(*PACKAGES, chosen.engine)
    if not chosen.gpu_packages:
        return pinned
    return sorted([*(one for one in pinned if not one.startswith(f"{chosen.engine}==")), *chosen.gpu_packages])


def pinned_requirements(*packages: str) -> list[str]:
    """Pin packages, and all that they need, to the installed versions; asks no index."""
    pinned: dict[str, str] = {}
    waiting = list(map(Requirement, packages))
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen or name in UNWANTED:
            continue
        seen.add((name, extras))
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            problem = f"the package {name!r}, which the service needs, is not installed"
            raise MissingError(problem, remedy=f"pip install {name}") from error
        pinned[name] = distribution.version
        waiting += [
            needed
            for needed in map(Requirement, distribution.requires or [])
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in {"", *extras})
        ]
    return [f"{name}=={version}" for name, version in sorted(pinned.items())]
