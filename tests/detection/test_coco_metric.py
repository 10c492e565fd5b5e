"""The metric of a validation, against mmdet's, which evaluates with pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from pycocotools.cocoeval import COCOeval

from pipeline.detection import mmcv_ops
from pipeline.detection.coco_metric import TRUTH_FILE, MatchedCocoMetric
from pipeline.metrics.coco_matching import TruthBoxes
from pipeline.metrics.ground_truth import GroundTruth, read_ground_truth


@pytest.fixture(scope="module")
def truth(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    """COCO's annotations of 159 photographs, with crowds, and category ids that are not consecutive."""
    with zipfile.ZipFile(real_data / "annotations_trainval2017.zip") as opened:
        found = opened.extract("annotations/instances_val2017.json", tmp_path_factory.mktemp("real"))
    return read_ground_truth(Path(found))


def detected(truth: GroundTruth, seed: int) -> list[dict[str, Any]]:
    """Samples of a model's loop: boxes near the objects, some of another class, with scores of which many are equal."""
    rng = np.random.default_rng(seed)
    labels = {id_: label for label, id_ in enumerate(truth.categories)}
    samples = []
    for image in truth.images:
        own = [each for each in truth.annotations if each.image_id == image.id for _ in range(int(rng.integers(1, 4)))]
        boxes = np.array([[*each.bbox[:2], each.bbox[0] + each.bbox[2], each.bbox[1] + each.bbox[3]] for each in own])
        moved = boxes.reshape(-1, 4) + rng.normal(0, 6, (len(own), 4))
        wrong = rng.random(len(own)) < 0.2
        named = np.where(wrong, rng.integers(0, len(labels), len(own)), [labels[each.category_id] for each in own])
        instances = {
            "bboxes": torch.tensor(moved, dtype=torch.float32),
            "scores": torch.tensor(rng.integers(0, 50, len(own)) / 50, dtype=torch.float32),
            "labels": torch.tensor(named, dtype=torch.int64),
        }
        samples.append({"img_id": image.id, "ori_shape": (image.height, image.width), "pred_instances": instances})
    return samples


def theirs(truth: GroundTruth, samples: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """What mmdet's metric gives, as training had it before, and pycocotools' twelve numbers in it."""
    mmcv_ops.install()  # importing mmdet needs it
    from mmdet.evaluation.metrics import CocoMetric

    kept, summarize = [], COCOeval.summarize

    def summarized(self: COCOeval) -> None:
        summarize(self)
        kept.append(self.stats)

    monkeypatch.setattr(COCOeval, "summarize", summarized)
    (path,) = truth.folder.glob("*.json")
    with contextlib.redirect_stdout(io.StringIO()):
        metric = CocoMetric(str(path), "bbox", proposal_nums=(1, 10, 100), collect_device="gpu")
        metric.dataset_meta = {"classes": tuple(truth.categories.values())}
        metric.process({}, samples)
        found = metric.evaluate(len(samples))
    return found, kept[-1] if kept else None


def ours(truth: GroundTruth, samples: list[dict[str, Any]], path: Path | None = None) -> dict[str, float]:
    [path] = [path] if path else truth.folder.glob("*.json")
    metric = MatchedCocoMetric(str(path), collect_device="gpu")
    metric.process({}, samples)
    found: dict[str, float] = metric.evaluate(len(samples))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_mmdet(seed: int, truth: GroundTruth, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = detected(truth, seed)
    rounded, exact = theirs(truth, samples, monkeypatch)
    found = ours(truth, samples)
    assert found == {"mAP": exact[0], "mAP50": exact[1]}
    assert round(found["mAP"], 3) == rounded["coco/bbox_mAP"]
    assert round(found["mAP50"], 3) == rounded["coco/bbox_mAP_50"]
    assert 0.1 < found["mAP"] < found["mAP50"] < 1


def test_the_truth_may_come_as_arrays(truth: GroundTruth, tmp_path: Path) -> None:
    TruthBoxes.of(truth).save(tmp_path / TRUTH_FILE)
    samples = detected(truth, 0)
    assert ours(truth, samples, tmp_path / TRUTH_FILE) == ours(truth, samples)


def test_where_nothing_is_found_the_figures_are_0(truth: GroundTruth, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"bboxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    samples = [{**each, "pred_instances": nothing} for each in detected(truth, 0)]
    assert ours(truth, samples) == {"mAP": 0.0, "mAP50": 0.0}
    assert theirs(truth, samples, monkeypatch) == ({}, None)


def _validate(rank: int, processes: int, truth: GroundTruth, folder: Path) -> None:
    """What one of several processes does: it has every third image, and the first again where they do not divide."""
    address = f"file://{folder / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=processes)
    samples = detected(truth, 0)
    padded = [*samples, *samples[: -len(samples) % processes]]
    (path,) = truth.folder.glob("*.json")
    metric = MatchedCocoMetric(str(path), collect_device="gpu")
    for number in range(2):  # a validation an epoch
        metric.process({}, padded[rank::processes])
        figures = metric.evaluate(len(samples))
        (folder / f"{rank}.{number}.json").write_text(json.dumps(figures))
    torch.distributed.destroy_process_group()


def test_several_processes_share_the_images(truth: GroundTruth, tmp_path: Path) -> None:
    processes = 2
    assert len(truth.images) % processes
    torch.multiprocessing.start_processes(
        _validate, (processes, truth, tmp_path), nprocs=processes, start_method="fork", join=True
    )
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert found == [ours(truth, detected(truth, 0))] * 4
