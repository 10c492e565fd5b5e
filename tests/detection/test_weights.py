from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer

from pipeline.detection.config import build_model
from pipeline.detection.spec import DetectorSpec
from pipeline.detection.weights import CLASS_LAYER, coco_classes, fit, read_checkpoint, write_checkpoint
from pipeline.errors import DataError, MissingError


@pytest.fixture(scope="module")
def three_classes() -> tuple[Any, dict[str, torch.Tensor]]:
    """A model that knows a, b and c, and its weights."""
    torch.manual_seed(1)
    model = build_model(DetectorSpec("nano", (64, 64), ("a", "b", "c")))
    for name, value in model.state_dict().items():
        if name.startswith(CLASS_LAYER):
            value.normal_()
    return model, {name: value.clone() for name, value in model.state_dict().items()}


def saved(path: Path, state: dict[str, torch.Tensor], **meta: Any) -> Path:
    torch.save({"meta": meta, "state_dict": state}, path)
    return path


@pytest.mark.parametrize(
    ("classes", "rows", "known", "fresh"),
    [
        pytest.param(("a", "b", "c"), [0, 1, 2], ("a", "b", "c"), (), id="the same"),
        pytest.param(("c", "a"), [2, 0], ("c", "a"), (), id="a subset in another order"),
        pytest.param(("x", "b"), [None, 1], ("b",), ("x",), id="a new one"),
        pytest.param(("x",), [None], (), ("x",), id="only new ones"),
    ],
)
def test_head_rows_are_carried_over_by_name(
    tmp_path: Path, three_classes: Any, classes: tuple[str, ...], rows: list[int | None], known: Any, fresh: Any
) -> None:
    _, state = three_classes
    checkpoint = read_checkpoint(saved(tmp_path / "w.pth", state, dataset_meta={"classes": ("a", "b", "c")}))
    model = build_model(DetectorSpec("nano", (64, 64), classes))
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    carried = fit(checkpoint, model, classes)
    assert (carried.known, carried.fresh) == (known, fresh)
    for name, value in model.state_dict().items():
        if not name.startswith(CLASS_LAYER):
            assert torch.equal(value, state[name]), name
            continue
        for new, old in enumerate(rows):
            assert torch.equal(value[new], initial[name][new] if old is None else state[name][old]), name


@pytest.mark.parametrize(
    "meta",
    [
        pytest.param({"dataset_meta": {"classes": ("a", "b", "c")}}, id="mmengine"),
        pytest.param({"dataset_meta": {"CLASSES": ("a", "b", "c")}}, id="mmengine, early"),
        pytest.param({"CLASSES": ("a", "b", "c")}, id="mmdet 2"),
        pytest.param({"classes": ["a", "b", "c"]}, id="ours"),
        pytest.param({"CLASSES": ("a", "b", "c"), "epoch": np.float64(1.0), "seed": np.int64(3)}, id="numpy scalars"),
    ],
)
def test_class_names_are_found(tmp_path: Path, three_classes: Any, meta: dict[str, Any]) -> None:
    assert read_checkpoint(saved(tmp_path / "w.pth", three_classes[1], **meta)).classes == ("a", "b", "c")


def test_eighty_classes_without_names_are_cocos(pretrained: Path) -> None:
    checkpoint = read_checkpoint(pretrained)
    assert checkpoint.classes == coco_classes()
    assert checkpoint.classes[:3] == ("person", "bicycle", "car")


def test_the_unaveraged_copy_of_mmdet_2_is_left_out(tmp_path: Path, three_classes: Any) -> None:
    model, state = three_classes
    doubled = {**state, **{f"ema_{name.replace('.', '_')}": value for name, value in state.items()}}
    checkpoint = read_checkpoint(saved(tmp_path / "w.pth", doubled, CLASSES=("a", "b", "c")))
    fit(checkpoint, model, ("a", "b", "c"))
    assert checkpoint.state.keys() == state.keys()


def test_what_is_written_is_read_without_running_code(tmp_path: Path, three_classes: Any) -> None:
    path = write_checkpoint(tmp_path / "w.pth", three_classes[1], {"classes": ["a", "b", "c"], "epoch": 2})
    content = torch.load(path, weights_only=True)
    assert content.keys() == {"meta", "state_dict"}
    assert content["meta"] == {"classes": ["a", "b", "c"], "epoch": 2}
    assert all(torch.equal(value, three_classes[1][name]) for name, value in content["state_dict"].items())


def test_mmengines_training_checkpoint_is_refused_with_a_way_out(tmp_path: Path, three_classes: Any) -> None:
    path = saved(tmp_path / "epoch_1.pth", three_classes[1], message_hub={"loss": HistoryBuffer([1.0], [1])})
    with pytest.raises(DataError, match=r"wants to run 'mmengine[\s\S]*save only"):
        read_checkpoint(path)


class Malice:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def test_a_pickle_that_runs_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three_classes: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("zip.pth"), three_classes[1], evil=Malice())
    Path("bare.pth").write_bytes(pickle.dumps({"state_dict": Malice()}))
    for name in ("zip.pth", "bare.pth"):
        with pytest.raises(DataError, match="weights_only"):
            read_checkpoint(Path(name))
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "cannot be read", id="empty"),
        pytest.param(b"<html>404</html>", "cannot be read", id="a web page"),
        pytest.param({"state_dict": {"a": 1}}, "no state_dict", id="numbers for tensors"),
        pytest.param([1, 2], "no state_dict", id="a list"),
        pytest.param({"state_dict": {"fc.weight": torch.zeros(1)}}, "not of mmdet's YOLOX", id="another model"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: Any, says: str) -> None:
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(DataError, match=says):
        read_checkpoint(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="not there"):
        read_checkpoint(tmp_path / "none.pth")


@pytest.mark.parametrize("variant", ["tiny", "s"])
def test_weights_of_another_size_are_refused(tmp_path: Path, three_classes: Any, variant: str) -> None:
    checkpoint = read_checkpoint(saved(tmp_path / "w.pth", three_classes[1], classes=["a", "b", "c"]))
    with pytest.raises(DataError, match="choose the variant"):
        fit(checkpoint, build_model(DetectorSpec(variant, (64, 64), ("a", "b", "c"))), ("a", "b", "c"))
