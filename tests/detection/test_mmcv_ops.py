from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.detection import mmcv_ops
from pipeline.errors import StepError


def greedy(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int) -> list[int]:
    """The definition, one pair of boxes after the other, in single precision like the operator."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if all(iou(boxes[i], boxes[k], offset) <= np.float32(threshold) for k in kept):
            kept.append(int(i))
    return kept


def iou(a: np.ndarray, b: np.ndarray, offset: int) -> np.float32:
    f, off = np.float32, np.float32(offset)
    width = max(f(0), min(a[2], b[2]) - max(a[0], b[0]) + off)
    height = max(f(0), min(a[3], b[3]) - max(a[1], b[1]) + off)
    areas = [(box[2] - box[0] + off) * (box[3] - box[1] + off) for box in (a, b)]
    inter = width * height
    with np.errstate(invalid="ignore"):
        return f(inter / (areas[0] + areas[1] - inter))


def random_boxes(rng: np.random.Generator, count: int, extent: float) -> np.ndarray:
    corner = rng.uniform(0, extent, (count, 2))
    return np.hstack([corner, corner + rng.uniform(1, extent / 2, (count, 2))]).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "extent", "threshold", "offset"),
    [
        pytest.param(300, 60, 1.0, 1, id="threshold 1"),
        pytest.param(1300, 300, 0.45, 1, id="more than two chunks", marks=pytest.mark.slow),
        pytest.param(600, 200, 0.45, 0, id="two chunks"),
    ],
)
def test_nms_is_the_greedy_one(count: int, extent: float, threshold: float, offset: int) -> None:
    rng = np.random.default_rng(count + offset)
    boxes, scores = random_boxes(rng, count, extent), rng.random(count).astype(np.float32)
    kept = mmcv_ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold, offset)
    assert kept.tolist() == greedy(boxes, scores, threshold, offset)
    assert kept.dtype == torch.int64


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_nms_is_the_greedy_one_on_ties_and_chains(data: st.DataObject) -> None:
    """Integer corners and few distinct scores: equal boxes, equal scores, IoU exactly at the threshold."""
    side = st.integers(1, 6)
    rows = data.draw(
        st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), side, side, st.integers(0, 4)), max_size=40)
    )
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for *_, score in rows], np.float32)
    threshold, offset = data.draw(st.sampled_from([0.0, 0.25, 0.5, 1 / 3, 0.65])), data.draw(st.sampled_from([0, 1]))
    kept = mmcv_ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold, offset)
    assert kept.tolist() == greedy(boxes, scores, threshold, offset)


def test_mmcv_finds_and_uses_it() -> None:
    mmcv_ops.install()
    mmcv_ops.install()
    from mmcv.ops import batched_nms
    from mmcv.ops import nms as mmcv_nms

    assert pkgutil.find_loader("mmcv._ext") is not None  # what mmcv itself asks
    metadata = importlib.import_module("mmcv._ext").__spec__
    assert metadata is not None
    assert metadata.name == "mmcv._ext"
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60]])
    scores = torch.tensor([0.5, 0.9, 0.3])
    assert mmcv_nms(boxes, scores, 0.5)[1].tolist() == [1, 2]
    kept = batched_nms(boxes, scores, torch.tensor([0, 1, 0]), {"type": "nms", "iou_threshold": 0.5})[1]
    assert kept.tolist() == [1, 0, 2]


@pytest.mark.parametrize("name", ["softnms", "roi_align_forward", "deform_conv_forward"])
def test_any_other_operator_says_what_it_is(name: str) -> None:
    mmcv_ops.install()
    module = importlib.import_module("mmcv._ext")
    with pytest.raises(StepError, match=rf"'{name}'[\s\S]*full mmcv"):
        getattr(module, name)(torch.zeros(1))


def test_the_full_mmcv_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").write_text("")
    (tmp_path / "mmcv" / "_ext.py").write_text("def nms(): return 'compiled'")
    code = "from pipeline.detection import mmcv_ops; mmcv_ops.install(); import mmcv._ext as e; print(e.nms())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split() == ["compiled"], done.stderr
