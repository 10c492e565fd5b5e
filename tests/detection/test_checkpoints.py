from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.model import ExponentialMovingAverage

from pipeline.data.fingerprints import FINGERPRINT_BYTES
from pipeline.data.learned_images import LearnedImages, UnknownWeights
from pipeline.detection.checkpoints import coco_classes, fit, read_checkpoint, write_checkpoint
from pipeline.detection.families.yolox.mmdet_config import build_model
from pipeline.detection.families.yolox.weights import CLASS_LAYER, variant_of
from pipeline.errors import DataError, MissingError
from pipeline.serving.model_metadata import ModelMetadata


@pytest.fixture(scope="module")
def three_classes() -> tuple[Any, dict[str, torch.Tensor]]:
    """A model that knows a, b and c, and its weights."""
    torch.manual_seed(1)
    model = build_model(ModelMetadata("nano", (64, 64), ("a", "b", "c")))
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
    model = build_model(ModelMetadata("nano", (64, 64), classes))
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
        pytest.param({"dataset_meta": {"classes": 3}, "CLASSES": ["a", "b", "c"]}, id="a number for names"),
        pytest.param({"CLASSES": ("a", "b", "c"), "epoch": np.float64(1.0), "seed": np.int64(3)}, id="numpy scalars"),
    ],
)
def test_class_names_are_found(tmp_path: Path, three_classes: Any, meta: dict[str, Any]) -> None:
    assert read_checkpoint(saved(tmp_path / "w.pth", three_classes[1], **meta)).classes == ("a", "b", "c")


def test_eighty_classes_without_names_are_cocos(pretrained: Path) -> None:
    checkpoint = read_checkpoint(pretrained)
    assert checkpoint.classes == coco_classes()
    assert checkpoint.classes[:3] == ("person", "bicycle", "car")


@pytest.mark.parametrize("meta", [{}, {"classes": ["a", "b"]}, {"dataset_meta": None}])
def test_classes_without_names_are_said_with_a_way_out(
    tmp_path: Path, three_classes: Any, meta: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = read_checkpoint(saved(tmp_path / "w.pth", three_classes[1], **meta))
    assert checkpoint.classes == ("class 0", "class 1", "class 2")
    assert "w.pth: 3 classes without names; none can be carried over. Where you know them, save" in caplog.text


def test_a_single_class_may_be_a_bare_string(tmp_path: Path, three_classes: Any) -> None:
    one = {name: value[:1] if name.startswith(CLASS_LAYER) else value for name, value in three_classes[1].items()}
    assert read_checkpoint(saved(tmp_path / "w.pth", one, CLASSES="cat")).classes == ("cat",)


@pytest.mark.parametrize("archive", [pytest.param(True, id="zip"), pytest.param(False, id="before torch 1.6")])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_unaveraged_copy_of_mmdet_2_is_left_out(
    tmp_path: Path, three_classes: Any, prefix: str, archive: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model, state = three_classes
    doubled = {**state, **{f"ema_{name.replace('.', '_')}": -value for name, value in state.items()}}
    content = {
        "meta": {"CLASSES": ("a", "b", "c")},
        "state_dict": {f"{prefix}{name}": value for name, value in doubled.items()},
        "optimizer": {"state": {}},
    }
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=archive)
    with caplog.at_level(logging.INFO, "pipeline"):
        checkpoint = read_checkpoint(tmp_path / "w.pth")
    fit(checkpoint, model, ("a", "b", "c"))
    assert checkpoint.state.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in checkpoint.state.items())
    assert (checkpoint.source, checkpoint.unused) == ("mmdet", ("optimizer", "ema_* (642 tensors)"))
    assert caplog.messages == ["w.pth: YOLOX-nano by mmdet, 3 classes; not used: optimizer, ema_* (642 tensors)"]


def mmengine_file(path: Path, state: dict[str, torch.Tensor], **more: Any) -> Path:
    """As mmengine's runner saves it in training, with a loss history that pickles its own methods."""
    history = {"log_scalars": {"loss": HistoryBuffer([1.0], [1])}, "runtime_info": {"epoch": 1, "lr": np.float64(0.1)}}
    meta = {"dataset_meta": {"classes": ("a", "b", "c")}, "epoch": 1}
    content = {"meta": meta, "state_dict": state, "message_hub": history, "optimizer": {"state": {}}, **more}
    torch.save(content, path)
    return path


def test_of_mmengines_two_states_the_averaged_one_is_read(tmp_path: Path, three_classes: Any) -> None:
    model, state = three_classes
    averaged = ExponentialMovingAverage(model)
    for value in averaged.module.parameters():
        value.data.fill_(0.25)
    hook = EMAHook()
    hook.src_model, hook.ema_model = model, averaged
    content: dict[str, Any] = {"state_dict": {name: value.clone() for name, value in state.items()}}
    hook.before_save_checkpoint(SimpleNamespace(), content)
    checkpoint = read_checkpoint(mmengine_file(tmp_path / "epoch_1.pth", **content, state=content.pop("state_dict")))
    assert checkpoint.unused == ("message_hub", "optimizer", "ema_state_dict")
    for name, _ in model.named_parameters():
        assert bool((checkpoint.state[name] == 0.25).all()), name


def test_mmengines_loss_history_is_passed_over_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three_classes: Any
) -> None:
    path = mmengine_file(tmp_path / "epoch_1.pth", three_classes[1])

    def opened(*_: Any) -> None:
        raise AssertionError("the history was opened")

    monkeypatch.setattr(HistoryBuffer, "__setstate__", opened)
    assert read_checkpoint(path).classes == ("a", "b", "c")


def test_scalars_of_numpy_1_are_read(tmp_path: Path, three_classes: Any) -> None:
    path = tmp_path / "w.pth"
    content = {"meta": {"classes": ["a", "b", "c"]}, "state_dict": three_classes[1], "best": np.float64(0.5)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert b"cnumpy._core.multiarray\n" in data
    path.write_bytes(data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert read_checkpoint(path).unused == ("best",)


def test_what_is_written_is_read_without_running_code(tmp_path: Path, three_classes: Any) -> None:
    path = write_checkpoint(tmp_path / "w.pth", three_classes[1], {"classes": ["a", "b", "c"], "epoch": 2})
    content = torch.load(path, weights_only=True)
    assert content.keys() == {"meta", "state_dict"}
    assert content["meta"] == {"classes": ["a", "b", "c"], "epoch": 2}
    assert all(torch.equal(value, three_classes[1][name]) for name, value in content["state_dict"].items())


def record(count: int = 2) -> LearnedImages:
    sha256 = np.arange(count * 32, dtype=np.uint8).reshape(-1, 32)
    return LearnedImages(
        sha256, np.full((count, FINGERPRINT_BYTES), 7, np.uint8), (UnknownWeights("0a" * 32, coco=True),)
    )


def test_what_the_weights_learned_from_lies_beside_them(
    tmp_path: Path, three_classes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_checkpoint(tmp_path / "w.pth", three_classes[1], {"classes": ["a", "b", "c"]}, record())
    assert torch.load(path, weights_only=True).keys() == {"meta", "state_dict", "learned_images"}
    with caplog.at_level(logging.INFO, "pipeline"):
        checkpoint = read_checkpoint(path)
    assert caplog.messages == ["w.pth: YOLOX-nano by mmdet, 3 classes"]
    assert checkpoint.unused == ()
    assert checkpoint.learned is not None
    assert checkpoint.learned.summary() == record().summary()
    (tmp_path / "more").mkdir()
    again = write_checkpoint(tmp_path / "more" / "w.pth", three_classes[1], {"classes": ["a", "b", "c"]}, record())
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(["a.jpg", "b.jpg"], id="names"),
        pytest.param({"sha256": torch.zeros(3)}, id="a part of it"),
        pytest.param({"sha256": "0a"}, id="no tensors"),
        pytest.param({"sha256": torch.zeros(3, dtype=torch.bfloat16)}, id="what numpy has not"),
    ],
)
def test_an_entry_of_that_name_that_is_no_record_is_somebody_elses(
    tmp_path: Path, three_classes: Any, entry: Any
) -> None:
    content = {"meta": {"classes": ["a", "b", "c"]}, "state_dict": three_classes[1], "learned_images": entry}
    torch.save(content, tmp_path / "w.pth")
    checkpoint = read_checkpoint(tmp_path / "w.pth")
    assert checkpoint.learned is None
    assert checkpoint.unused == ("learned_images",)


class Malice:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def test_a_pickle_that_runs_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three_classes: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("zip.pth"), three_classes[1], evil=Malice())
    Path("bare.pth").write_bytes(pickle.dumps({"state_dict": Malice()}, protocol=2))
    mmengine_file(Path("history.pth"), three_classes[1], evil=Malice())
    for name in ("zip.pth", "bare.pth", "history.pth"):
        with pytest.raises(DataError, match=r"wants to run 'posix\.mkdir'[\s\S]*weights_only[\s\S]*save only"):
            read_checkpoint(Path(name))
    assert not Path("pwned").exists()


class Borrowed:
    """Asks for a method by way of getattr, as mmengine's history does, and then calls it."""

    def __reduce__(self) -> Any:
        return BorrowedMethod(), ("pwned",)


class BorrowedMethod:
    def __reduce__(self) -> Any:
        return getattr, (HistoryBuffer, "mean")

    def __call__(self) -> None:
        """What pickle writes as a call has to be callable."""


def test_what_getattr_seems_to_find_cannot_be_called(tmp_path: Path, three_classes: Any) -> None:
    path = mmengine_file(tmp_path / "w.pth", three_classes[1], evil=Borrowed())
    with pytest.raises(DataError, match="cannot be read: Trying to call reduce for unrecognized function"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "cannot be read", id="empty"),
        pytest.param(b"<html>404</html>", "cannot be read", id="a web page"),
        pytest.param({"state_dict": {"a": 1}}, "no state_dict", id="numbers for tensors"),
        pytest.param([1, 2], "no state_dict", id="a list"),
        pytest.param({"state_dict": {}}, "no state_dict", id="nothing"),
        pytest.param({"state_dict": None, "model": None}, "no state_dict", id="none"),
        pytest.param({"optimizer": {"lr": 1.0}}, "no state_dict", id="only an optimizer"),
        pytest.param(
            {"model": {0: torch.zeros(1)}}, "neither an mmdet nor a Megvii YOLOX checkpoint", id="numbers for names"
        ),
        pytest.param(
            {"state_dict": {"fc.weight": torch.zeros(1)}},
            "neither an mmdet nor a Megvii YOLOX checkpoint",
            id="another model",
        ),
        pytest.param(
            {"head.cls_preds.0.bias": torch.tensor(1.0)},
            "neither an mmdet nor a Megvii YOLOX checkpoint",
            id="a bias of no rows",
        ),
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
    with pytest.raises(MissingError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "none.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damage_anywhere_is_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": {"head.cls_preds.0.bias": torch.ones(3)}}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            read_checkpoint(path)
        except DataError:
            continue


@pytest.mark.parametrize("variant", ["tiny", "s"])
def test_weights_of_another_size_are_refused_with_the_right_one(
    tmp_path: Path, three_classes: Any, variant: str
) -> None:
    checkpoint = read_checkpoint(saved(tmp_path / "w.pth", three_classes[1], classes=["a", "b", "c"]))
    says = rf"360 unknown[\s\S]*YOLOX-{variant}\n.*weights of YOLOX-nano: set variant=nano"
    with pytest.raises(DataError, match=says):
        fit(checkpoint, build_model(ModelMetadata(variant, (64, 64), ("a", "b", "c"))), ("a", "b", "c"))


def altered(state: dict[str, torch.Tensor], change: str) -> dict[str, torch.Tensor]:
    state, stem = dict(state), "backbone.stem.conv.conv.weight"
    if change == "missing":
        for level in range(3):
            del state[f"bbox_head.multi_level_conv_obj.{level}.weight"], state[f"neck.out_convs.{level}.conv.weight"]
    elif change == "unknown":
        state["neck.attention.weight"] = torch.zeros(1)
    elif change == "another shape":
        state[stem] = state[stem][:, :3]
    elif change == "another width":
        state[stem] = state[stem][:15]
    else:
        state[f"{CLASS_LAYER}1.weight"] = state[f"{CLASS_LAYER}1.weight"][:2]
    return state


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(
            "missing",
            r"6 missing\n.*missing: bbox_head\.multi_level_conv_obj\.0\.weight, \S*1\.weight, \S*2\.weight, "
            r"\.\.\.\n[\s\S]*unchanged",
            id="missing",
        ),
        pytest.param("unknown", r"1 unknown\n.*unknown: neck\.attention\.weight\n[\s\S]*unchanged", id="new"),
        pytest.param(
            "another shape", r"stem\.conv\.conv\.weight \(16, 3, 3, 3\) instead of \(16, 12, 3, 3\)", id="another shape"
        ),
        pytest.param("another width", r"use weights of an unchanged YOLOX-nano", id="no known size"),
        pytest.param("rows", r"conv_cls\.1\.weight \(2, 64, 1, 1\) instead of \(3, 64, 1, 1\)", id="fewer rows"),
    ],
)
def test_parameters_that_do_not_fit_are_named(tmp_path: Path, three_classes: Any, change: str, says: str) -> None:
    state = altered(three_classes[1], change)
    checkpoint = read_checkpoint(saved(tmp_path / "w.pth", state, classes=["a", "b", "c"]))
    assert variant_of(checkpoint.state) == (None if change == "another width" else "nano")
    model = build_model(ModelMetadata("nano", (64, 64), ("a",)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match=says):
        fit(checkpoint, model, ("a",))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_no_size_without_a_stem() -> None:
    assert variant_of({}) is None
    assert variant_of({"backbone.stem.conv.conv.weight": torch.zeros(3)}) is None
