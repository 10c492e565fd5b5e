from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.model import ExponentialMovingAverage

from pipeline.data.learned_images import LearnedImages, UnknownWeights
from pipeline.data.pretrained import coco_weights
from pipeline.detection.checkpoints import fit, read_checkpoint, write_checkpoint
from pipeline.detection.families import detectors
from pipeline.detection.families.yolox import FAMILY as YOLOX
from pipeline.detection.families.yolox.weights import CLASS_LAYER, variant_of
from pipeline.errors import DataError, MissingError
from pipeline.serving.image_fingerprint import FINGERPRINT_BYTES
from pipeline.serving.model_metadata import ModelMetadata

ABC = ("a", "b", "c")
State = dict[str, torch.Tensor]


def detector(*classes: str, variant: str = "nano") -> Any:
    return YOLOX.build_model(ModelMetadata(variant, (64, 64), classes))


@pytest.fixture(scope="module")
def model() -> Any:
    """It knows a, b and c."""
    torch.manual_seed(1)
    made = detector(*ABC)
    for name, value in made.state_dict().items():
        if name.startswith(CLASS_LAYER):
            value.normal_()
    return made


@pytest.fixture(scope="module")
def state(model: Any) -> State:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def saved(tmp_path: Path, state: State) -> Callable[..., Path]:
    """Write a checkpoint of these entries."""

    def save(meta: Any = MappingProxyType({"classes": list(ABC)}), *, archive: bool = True, **entries: Any) -> Path:
        content = {"meta": dict(meta), "state_dict": state, **entries}
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=archive)
        return tmp_path / "w.pth"

    return save


@pytest.mark.parametrize(
    ("classes", "rows"),
    [
        pytest.param(ABC, [0, 1, 2], id="the same"),
        pytest.param(("c", "a"), [2, 0], id="a subset in another order"),
        pytest.param(("x", "b"), [None, 1], id="a new one"),
        pytest.param(("x",), [None], id="only new ones"),
    ],
)
def test_head_rows_are_carried_over_by_name(
    saved: Callable[..., Path], state: State, classes: tuple[str, ...], rows: list[int | None]
) -> None:
    other = detector(*classes)
    initial = {name: value.clone() for name, value in other.state_dict().items()}
    fit(read_checkpoint(saved(), YOLOX), other, classes)
    for name, value in other.state_dict().items():
        if not name.startswith(CLASS_LAYER):
            assert torch.equal(value, state[name]), name
            continue
        for new, old in enumerate(rows):
            assert torch.equal(value[new], initial[name][new] if old is None else state[name][old]), name


@pytest.mark.parametrize(
    "meta",
    [
        pytest.param({"dataset_meta": {"classes": ABC}}, id="mmengine"),
        pytest.param({"dataset_meta": {"CLASSES": ABC}}, id="mmengine, early"),
        pytest.param({"classes": list(ABC)}, id="ours"),
        pytest.param({"dataset_meta": {"classes": 3}, "CLASSES": list(ABC)}, id="a number for names"),
        pytest.param({"CLASSES": ABC, "epoch": np.float64(1.0), "seed": np.int64(3)}, id="numpy scalars"),
    ],
)
def test_class_names_are_found(saved: Callable[..., Path], meta: dict[str, Any]) -> None:
    assert read_checkpoint(saved(meta), YOLOX).classes == ABC


@pytest.mark.parametrize("meta", [{}, {"classes": ["a", "b"]}, {"dataset_meta": None}])
def test_classes_without_names_are_said_with_a_way_out(
    saved: Callable[..., Path], meta: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert read_checkpoint(saved(meta), YOLOX).classes == ("class 0", "class 1", "class 2")
    assert "w.pth: 3 classes without names; none can be carried over; where you know them, save" in caplog.text


@pytest.mark.parametrize(("prefix", "archive"), [("", True), ("module.", False)])  # and as before torch 1.6
def test_the_unaveraged_copy_of_mmdet_2_is_left_out(
    saved: Callable[..., Path], state: State, prefix: str, archive: bool
) -> None:
    doubled = {**state, **{f"ema_{name.replace('.', '_')}": -value for name, value in state.items()}}
    weights = {f"{prefix}{name}": value for name, value in doubled.items()}
    path = saved({"CLASSES": ABC}, archive=archive, state_dict=weights, optimizer={"state": {}})
    checkpoint = read_checkpoint(path, YOLOX)
    assert checkpoint.state.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in checkpoint.state.items())
    assert checkpoint.summary == "YOLOX-nano by mmdet, 3 classes; not used: optimizer, ema_*"


def of_mmengine() -> dict[str, Any]:
    """What its runner saves beside weights in training: a loss history that pickles its own methods."""
    history = {"log_scalars": {"loss": HistoryBuffer([1.0], [1])}, "runtime_info": {"epoch": 1, "lr": np.float64(0.1)}}
    return {"meta": {"dataset_meta": {"classes": ABC}, "epoch": 1}, "message_hub": history, "optimizer": {"state": {}}}


def test_of_mmengines_two_states_the_averaged_one_is_read(
    saved: Callable[..., Path], model: Any, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its loss history is not opened."""
    averaged = ExponentialMovingAverage(model)
    for value in averaged.module.parameters():
        value.data.fill_(0.25)
    hook = EMAHook()
    hook.src_model, hook.ema_model = model, averaged
    content: dict[str, Any] = {"state_dict": {name: value.clone() for name, value in state.items()}}
    hook.before_save_checkpoint(SimpleNamespace(), content)
    path = saved(**of_mmengine(), **content)
    monkeypatch.setattr(HistoryBuffer, "__setstate__", lambda *_: pytest.fail("the history was opened"))
    checkpoint = read_checkpoint(path, YOLOX)
    assert checkpoint.summary.endswith("not used: message_hub, optimizer, ema_state_dict")
    assert all(bool((checkpoint.state[name] == 0.25).all()) for name, _ in model.named_parameters())


def test_scalars_of_numpy_1_are_read(saved: Callable[..., Path]) -> None:
    path = saved(best=np.float64(0.5), archive=False)
    data = path.read_bytes()
    assert b"cnumpy._core.multiarray\n" in data
    path.write_bytes(data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert read_checkpoint(path, YOLOX).classes == ABC


def test_what_is_written_is_read_without_running_code(tmp_path: Path, state: State) -> None:
    """Whatever memory format the model is in; and twice the same bytes."""
    sha256 = np.arange(64, dtype=np.uint8).reshape(-1, 32)
    unknown = (UnknownWeights("0a" * 32, coco=True),)
    record = LearnedImages(sha256, np.full((2, FINGERPRINT_BYTES), 7, np.uint8), unknown)
    kinds = {4: torch.channels_last}
    state = {n: v.to(memory_format=kinds.get(v.ndim, torch.preserve_format)) for n, v in state.items()}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        path = write_checkpoint(tmp_path / folder / "w.pth", state, {"classes": list(ABC), "epoch": 2}, record)
    assert path.read_bytes() == (tmp_path / "one" / "w.pth").read_bytes()
    content = torch.load(path, weights_only=True)
    assert content.keys() == {"meta", "state_dict", "learned_images"}
    assert content["meta"] == {"classes": list(ABC), "epoch": 2}
    checkpoint = read_checkpoint(path, YOLOX)
    assert checkpoint.summary == "YOLOX-nano by mmdet, 3 classes"
    assert checkpoint.learned is not None
    assert checkpoint.learned.summary() == record.summary()
    assert all(torch.equal(value, state[name]) for name, value in checkpoint.state.items())
    assert all(value.is_contiguous() for value in checkpoint.state.values())


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(["a.jpg", "b.jpg"], id="names"),
        pytest.param({"sha256": torch.zeros(3)}, id="a part of it"),
        pytest.param({"sha256": "0a"}, id="no tensors"),
        pytest.param({"sha256": torch.zeros(3, dtype=torch.bfloat16)}, id="a type that numpy lacks"),
    ],
)
def test_an_entry_of_that_name_that_is_no_record_is_somebody_elses(saved: Callable[..., Path], entry: Any) -> None:
    checkpoint = read_checkpoint(saved(learned_images=entry), YOLOX)
    assert checkpoint.learned is None
    assert checkpoint.summary.endswith("not used: learned_images")


class Malice:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def test_a_pickle_that_runs_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved({"evil": Malice()}).rename("zip.pth")
    Path("bare.pth").write_bytes(pickle.dumps({"state_dict": Malice()}, protocol=2))
    saved(**of_mmengine(), evil=Malice()).rename("history.pth")
    saved(best_ap=Malice(), archive=False).rename("old.pth")
    for name in ("zip.pth", "bare.pth", "history.pth", "old.pth"):
        with pytest.raises(DataError, match=r"wants to run 'posix\.mkdir'[\s\S]*weights_only[\s\S]*save only"):
            read_checkpoint(Path(name), YOLOX)
    assert not Path("pwned").exists()
    torch.load("zip.pth", weights_only=False)
    assert Path("pwned").exists(), "the file was harmless all along"


class Borrowed:
    """Asks for a method by way of getattr, as mmengine's history does, and then calls it."""

    def __reduce__(self) -> Any:
        return BorrowedMethod(), ("pwned",)


class BorrowedMethod:
    def __reduce__(self) -> Any:
        return getattr, (HistoryBuffer, "mean")

    def __call__(self) -> None:
        """What pickle writes as a call has to be callable."""


def test_what_getattr_seems_to_find_cannot_be_called(saved: Callable[..., Path]) -> None:
    path = saved(**of_mmengine(), evil=Borrowed())
    with pytest.raises(DataError, match="cannot be read: Trying to call reduce for unrecognized function"):
        read_checkpoint(path, YOLOX)


FOREIGN = "neither an mmdet nor a Megvii YOLOX checkpoint"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "cannot be read", id="empty"),
        pytest.param(b"<html>404</html>", "cannot be read", id="a web page"),
        pytest.param({"state_dict": {"a": 1}}, "no state_dict", id="numbers for tensors"),
        pytest.param([1, 2], "no state_dict", id="a list"),
        pytest.param({"state_dict": None, "model": {}}, "no state_dict", id="nothing"),
        pytest.param({"model": {0: torch.zeros(1)}}, FOREIGN, id="numbers for names"),
        pytest.param({"state_dict": {"fc.weight": torch.zeros(1)}}, FOREIGN, id="another model"),
        pytest.param({"head.cls_preds.0.bias": torch.tensor(1.0)}, FOREIGN, id="a bias of no rows"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: Any, says: str) -> None:
    path = tmp_path / "w.pth"
    with pytest.raises(MissingError, match="no such checkpoint"):
        read_checkpoint(path, YOLOX)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(DataError, match=says):
        read_checkpoint(path, YOLOX)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damage_anywhere_is_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": {"head.cls_preds.0.bias": torch.ones(3)}}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            read_checkpoint(path, YOLOX)
        except DataError:
            continue


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param("missing", r"6 param[\s\S]*convs\.0\.conv\.weight is missing, .*, \.\.\.\n", id="missing"),
        pytest.param("unknown", r"1 parameters[\s\S]*attention\.weight is unknown\n[\s\S]*unchanged", id="new"),
        pytest.param("shape", r"conv\.weight is \(16, 3, 3, 3\) instead of \(16, 12, 3, 3\)", id="another shape"),
        pytest.param("width", r"use weights of an unchanged YOLOX-nano", id="no known size"),
        pytest.param("rows", r"cls\.1\.weight is \(2, 64, 1, 1\) instead of \(3, 64, 1, 1\)", id="fewer rows"),
    ],
)
def test_parameters_that_do_not_fit_are_named(saved: Callable[..., Path], state: State, change: str, says: str) -> None:
    state, stem = dict(state), "backbone.stem.conv.conv.weight"
    if change == "missing":
        for level in range(3):
            del state[f"bbox_head.multi_level_conv_obj.{level}.weight"], state[f"neck.out_convs.{level}.conv.weight"]
    elif change == "unknown":
        state["neck.attention.weight"] = torch.zeros(1)
    elif change == "rows":
        state[f"{CLASS_LAYER}1.weight"] = state[f"{CLASS_LAYER}1.weight"][:2]
    else:
        state[stem] = state[stem][:, :3] if change == "shape" else state[stem][:15]
    checkpoint = read_checkpoint(saved(state_dict=state), YOLOX)
    assert variant_of(checkpoint.state) == (None if change == "width" else "nano")
    model = detector("a")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match=says):
        fit(checkpoint, model, ("a",))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_of_another_variant_are_refused(saved: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"YOLOX-tiny\n.*weights of YOLOX-nano: set detector=yolox-nano"):
        fit(read_checkpoint(saved(), YOLOX), detector(*ABC, variant="tiny"), ABC)


def test_there_are_weights_for_every_detector() -> None:
    assert {coco_weights(name).detector for name in detectors()} == {*detectors()}
