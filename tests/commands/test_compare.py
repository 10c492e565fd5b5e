"""Two runs side by side, and their models on the same test images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

IMPORTS = """\
import json
import shutil
import cv2
import numpy as np
from pipeline.runtime.step import Step
"""
WRITE_SET = """\
ids = range(1, images + 1)
files = [{"id": n, "file_name": f"{n}.jpg", "width": 90, "height": 90} for n in ids]
box = {"category_id": 1, "bbox": [9, 9, 40, 40], "area": 1600, "iscrowd": 0}
boxes = [{"id": n, "image_id": n} | box for n in ids]
content = {"images": files, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
out = step.outputs["coco_test_dataset"]
(out / "annotations.json").write_text(json.dumps(content))
(out / "images").mkdir()
for n in ids:
    cv2.imwrite(str(out / "images" / f"{n}.jpg"), np.full((90, 90, 3), n, np.uint8))"""
WRITE_RESULTS = """\
found = [{"image_id": n, "category_id": 1, "bbox": [9, 9, 40, 40], "score": 0.9} for n in range(1, hits + 1)]
(step.outputs["coco_inference_result_dataset"] / "predictions.json").write_text(json.dumps(found))"""


@pytest.fixture
def evaluated(new_toy: Callable[..., Any], tmp_path: Path, in_process: None) -> Any:
    """A project that makes a test set, and evaluates a model on it."""
    toy = new_toy(tmp_path / "evaluated", ())
    steps = {
        "data_prep": ("images: int = 40  # of the test set", 'reads=[], writes=["coco_test_dataset"]', WRITE_SET),
        "model_eval": (
            "hits: int = 20  # that the model finds",
            'reads=["coco_test_dataset"], writes=["coco_inference_result_dataset"]',
            WRITE_RESULTS,
        ),
    }
    for name, (parameters, entities, work) in steps.items():
        cells = [("md", f"# {name}"), ("", IMPORTS), ("parameters", parameters)]
        cells += [("interface", f"step = Step.open({name!r}, {entities})"), ("", work), ("", "step.commit(metrics={})")]
        toy.notebook(name, cells)
    (toy.root / "configs" / "demo.yaml").write_text("name: evaluated\n")
    return toy


def test_models_on_the_same_images_are_better_only_beyond_chance(evaluated: Any) -> None:
    for hits in (20, 40, 39):
        assert evaluated.step("--set", f"model_eval.hits={hits}").code == 0
    text = evaluated.look("compare", "latest~2", "latest~1").out
    assert "models on the same 40 test images; differences with their 95 % intervals" in text
    (line,) = [line for line in text.splitlines() if line.startswith("  mAP  ")]
    assert line.split()[:4] == ["mAP", "0.5050", "1.0000", "+0.4950"]
    assert line.endswith("better")
    assert all(len(line) <= 80 for line in text.splitlines() if line.startswith(("  mAP", "  AR")))
    assert "too close to call" in evaluated.look("compare", "latest~1", "latest").out
    models = json.loads(evaluated.look("compare", "latest~1", "latest", "--json").out)["models"]
    assert models["figures"]["mAP"]["low"] < 0
    assert models["figures"]["mAP"]["high"] == 0
    assert evaluated.left_over() == []


def test_it_tells_what_changed_and_shows_it_on_a_page(evaluated: Any, tmp_path: Path) -> None:
    for hits in (38, 40):
        assert evaluated.step("--set", f"model_eval.hits={hits}").code == 0
    page = tmp_path / "new" / "page.html"
    outcome = evaluated.look("compare", "latest~1", "latest", "--page", str(page))
    lines = {" ".join(line.split()) for line in outcome.out.splitlines()}
    assert {
        "Images wrong before, right now 2 39.jpg, 40.jpg", "Objects missed before, found now 2 39.jpg, 40.jpg",
        "Images right before, wrong now 0", "New false alarms 0", f"pictures {page}",
    } <= lines  # fmt: skip
    content = page.read_text("utf-8")
    assert content.count('href="data:image/jpeg') == 2  # only of what changed
    assert "39.jpg" in content
    assert evaluated.left_over() == []
    told = evaluated.json("compare", "latest", "latest~1")["models"]["changes"]
    assert told["images_right_to_wrong"] == ["39.jpg", "40.jpg"]
    assert [each["file_name"] for each in told["objects_lost"]] == ["39.jpg", "40.jpg"]


def test_without_a_page_no_image_is_read(evaluated: Any) -> None:
    for hits in (20, 40):
        evaluated.step("--set", f"model_eval.hits={hits}")
    for each in (evaluated.root / ".store").rglob("objects/*/*"):
        if each.read_bytes().startswith(b"\xff\xd8"):
            each.unlink()
    assert "better" in evaluated.look("compare", "latest~1", "latest").out
    outcome = evaluated.look("compare", "latest~1", "latest", "--page", "page.html")
    assert outcome.code == 1
    assert not (evaluated.root / "page.html").exists()


def test_models_on_other_images_are_not_compared(evaluated: Any) -> None:
    for images in (40, 39):
        assert evaluated.step("--set", f"data_prep.images={images}").code == 0
    outcome = evaluated.look("compare", "latest~1", "latest")
    assert outcome.code == 0
    assert "evaluated on different test sets: their figures cannot be compared" in outcome.out
    outcome = evaluated.look("compare", "latest~1", "latest", "--page", "page.html")
    assert outcome.code == 1
    assert "there is no page: the models were evaluated on different test sets" in outcome.out


def test_without_the_test_set_the_rest_is_compared(evaluated: Any) -> None:
    evaluated.step()
    shutil.rmtree(evaluated.root / ".store/default/dev/artifacts/coco_test_dataset")
    outcome = evaluated.look("compare", "latest", "latest")
    assert outcome.code == 0
    assert "the models cannot be compared: " in outcome.out
    assert "coco_test_dataset" in outcome.out


def test_runs_without_an_evaluation_have_no_such_figures(evaluated: Any) -> None:
    evaluated.step("data_prep")
    assert json.loads(evaluated.look("compare", "latest", "latest", "--json").out)["models"] is None
    outcome = evaluated.look("compare", "latest", "latest", "--page", "page.html")
    assert outcome.code == 1
    assert "there is no page: a run has evaluated no model" in outcome.out
