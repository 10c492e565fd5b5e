"""The users' scenario on real photographs, over HTTP, through the REST API of the packed service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

STEPS = ("data_load", "data_prep", "model_train", "model_pack", "model_eval")
SIX = ["person", "bicycle", "car", "motorcycle", "bus", "truck"]
# of the public ONNX release of the same weights, with its own letterbox and per-class suppression, by pycocotools
PUBLIC_MAP, PUBLIC_MAP50 = 0.312, 0.494

pytestmark = pytest.mark.slow


def from_outside(url: str) -> list[str]:
    """Just the URLs, the size of the model and of its input."""
    values = {
        "data_load.source_url": f"{url}/val2017.zip",
        "data_load.annotations_url": f"{url}/annotations_trainval2017.zip",
        "data_load.weights_url": f"{url}/yolox_nano_coco.pth",
        "model_train.detector": "yolox-nano",
        "model_train.image_size": "416",
    }
    return ["--config", "configs/coco.yaml"] + [p for k, v in values.items() for p in ("--set", f"{k}={v}")]


def read_output(project: Any, step: dict[str, Any], entity: str, name: str) -> Any:
    """A JSON file of an artifact."""
    index = json.loads(Path(step["outputs"][entity]["url"].removeprefix("file://")).read_text())
    [digest] = [file["sha256"] for file in index["files"] if file["path"] == name]
    return json.loads((project.root / ".store/default/dev/objects" / digest[:2] / digest).read_text())


def test_six_classes_are_fine_tuned_and_served(project: Any, real_data_url: str) -> None:
    arguments = [*from_outside(real_data_url), "--set", "model_train.epochs=1"]
    done = project.step(*arguments)
    assert done.returncode == 0, done.stderr
    manifest = project.manifest()
    steps = manifest["steps"]
    assert tuple(steps) == STEPS
    assert manifest["pipeline"] == "coco"
    assert steps["data_load"]["metrics"]["images"] == 159
    prepared = steps["data_prep"]["metrics"]
    assert (prepared["images"], prepared["excluded_images"]) == (159, 0)
    assert prepared["background_images"] == 80  # no object of the six classes
    assert prepared["test_background_images"] > 0
    truth = read_output(project, steps["data_prep"], "coco_test_dataset", "annotations.json")
    assert [category["name"] for category in truth["categories"]] == SIX
    assert steps["model_eval"]["metrics"]["mAP50"] > 0.4  # what it knew before, it still knows
    again = project.step(*arguments)
    assert again.returncode == 0
    assert again.stdout.count("reused") == 5


def test_nothing_is_lost_between_the_weights_and_the_rest_api(project: Any, real_data_url: str) -> None:
    """No training, all 80 classes, the official validation images: the published figure, through every step."""
    values = {
        "data_load.test_list_url": f"{real_data_url}/official_val2017_names.txt",
        "data_prep.classes": "[]",
        "data_prep.min_box_side": "0.0",
        "model_train.epochs": "0",
    }
    done = project.step(*from_outside(real_data_url), *[p for k, v in values.items() for p in ("--set", f"{k}={v}")])
    assert done.returncode == 0, done.stderr
    steps = project.manifest()["steps"]
    metrics = steps["model_eval"]["metrics"]
    assert steps["data_prep"]["metrics"]["test_images"] == metrics["images"] == 79
    assert metrics["mAP"] == pytest.approx(PUBLIC_MAP, abs=0.01)
    assert metrics["mAP50"] == pytest.approx(PUBLIC_MAP50, abs=0.01)
