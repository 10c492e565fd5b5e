from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import psutil
import pytest
import torch
from mmengine.logging import MMLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from pipeline.data.dataset_origin import read_origin
from pipeline.data.learned_images import FILE_NAME, LearnedImages, UnknownWeights
from pipeline.detection.checkpoints import GIVEN, coco_classes, read_checkpoint, write_checkpoint
from pipeline.detection.epochs import HEADER, RESULTS, EpochRecord, epoch_line, read_epochs
from pipeline.detection.families.yolox import FAMILY as YOLOX
from pipeline.detection.families.yolox.detector import PartwiseYOLOX
from pipeline.detection.families.yolox.weights import CLASS_LAYER, variant_of
from pipeline.detection.hyperparameters import FROM_SCRATCH, TrainingOptions
from pipeline.detection.training import TrainingResult, scratch_warnings, train
from pipeline.detection.training_chart import training_chart
from pipeline.detection.training_origins import TrainingOrigins
from pipeline.errors import DataError, MissingError, StepError, UsageError
from pipeline.runtime.executed_notebook import printed
from pipeline.serving.model_metadata import METADATA_FILE, ModelMetadata
from pipeline.serving.tiling import Tiling

OPTIONS = TrainingOptions(detector="yolox-nano", image_size=64, epochs=3, batch_size=4, seed=3)
Run = Callable[..., TrainingResult]
RUINOUS = 0.3  # a learning rate that leaves nothing of a detector, and no number infinite


@pytest.fixture(scope="module")
def trained(datasets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(OPTIONS, *datasets, tmp_path_factory.mktemp("trained"))


def digests(*folders: Path) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for each in folders for path in (each / "images").iterdir()}


def recorded(folder: Path) -> set[str]:
    """Digests of the images that a result learned from, by its record and by its weights."""
    beside, within = LearnedImages.read(folder / FILE_NAME), read_checkpoint(folder / "best.pth", YOLOX).learned
    assert within is not None
    assert within.summary() == beside.summary()
    return {row.tobytes().hex() for row in beside.sha256}


def test_what_inference_needs_is_there(trained: TrainingResult, datasets: tuple[Path, Path]) -> None:
    """Of what was learned from, the eval set too, for it chooses the epoch."""
    names = {path.name for path in trained.folder.iterdir()}
    weights = {"best.pth", "last.pth"}
    records = {"model.json", "history.json", "results.csv", "learned_images.npz", "origins.json"}
    assert names == weights | records | {"config.py", "test_image.png", "parity_images"}
    for name, epoch in (("best.pth", trained.best_epoch), ("last.pth", 3)):
        content = torch.load(trained.folder / name, weights_only=True)
        assert content["meta"]["classes"] == ["disc", "block"]
        assert content["meta"]["epoch"] == epoch
        assert all(torch.isfinite(value).all() for value in content["state_dict"].values())
    metadata = ModelMetadata.read(trained.folder / METADATA_FILE)
    assert (metadata.variant, metadata.image_size, metadata.classes) == ("nano", (64, 64), ("disc", "block"))
    assert len(list((trained.folder / "parity_images").iterdir())) == 5
    assert recorded(trained.folder) == digests(*datasets)
    learned = read_checkpoint(trained.folder / "last.pth", YOLOX).learned
    assert learned is not None
    assert metadata.training["learned_images"] == learned.summary()
    assert learned.unknown_weights == ()
    sets = {"train": read_origin(datasets[0]), "eval": read_origin(datasets[1])}
    assert TrainingOrigins.read(trained.folder / "origins.json") == TrainingOrigins(None, sets)


def test_a_training_on_tiles_learns_from_the_images_and_is_packed_for_tiles(
    datasets: tuple[Path, Path], run: Run, tmp_path: Path
) -> None:
    """Its network sees tiles, in the parity check too; what it learned from are the images, as in a test set."""
    result = run(replace(OPTIONS, tile=48, epochs=1, batch_size=16), work=tmp_path)
    metadata = ModelMetadata.read(result.folder / METADATA_FILE)
    assert metadata.tiling == Tiling(48, 0.2)
    assert recorded(result.folder) == digests(*datasets)
    test_image = result.folder / "test_image.png"
    assert test_image.read_bytes() in [path.read_bytes() for path in (datasets[1] / "images").iterdir()]
    assert cv2.imread(str(test_image)).shape == (64, 64, 3)
    sizes = {cv2.imread(str(path)).shape for path in (result.folder / "parity_images").iterdir()}
    assert (48, 48, 3) in sizes
    assert not [path for path in tmp_path.iterdir() if (path / "train").exists()], "no tile is left"
    origins = TrainingOrigins.read(result.folder / "origins.json")
    assert origins.sets == {"train": read_origin(datasets[0]), "eval": read_origin(datasets[1])}


def test_the_recipe_is_recorded_as_it_was_chosen(trained: TrainingResult, ruined: tuple[TrainingResult, Path]) -> None:
    scratch, tuned = (result.metadata.training["recipe"] for result in (trained, ruined[0]))
    assert (scratch["learning_rate"], scratch["freeze"]) == (FROM_SCRATCH.learning_rate, "nothing")
    assert (tuned["learning_rate"], tuned["optimizer"], tuned["patience"]) == (RUINOUS, "AdamW", 2)
    assert (tuned["augmentation"], tuned["precision"], tuned["seed"]) == ("flip", "full", OPTIONS.seed)


def test_the_history_has_every_epoch_and_the_rate_falls(trained: TrainingResult) -> None:
    assert [record.epoch for record in trained.history] == [1, 2, 3]
    assert not {"pretrained_mAP", "gained_mAP"} & trained.metrics().keys()
    assert all(record.loss["loss"] > 0 and record.mAP is not None for record in trained.history)
    assert trained.history[-1].learning_rate < trained.history[0].learning_rate
    assert trained.history[-1].learning_rate == pytest.approx(1e-2 * 0.05, rel=0.5)
    best = max(trained.history, key=lambda record: record.mAP or 0.0)
    assert trained.metrics()["eval_mAP"] == best.mAP
    assert json.loads((trained.folder / "history.json").read_text())[2]["epoch"] == 3
    assert read_epochs(trained.folder / RESULTS) == trained.history


def test_weights_bring_the_images_that_they_learned_from(
    trained: TrainingResult, run: Run, datasets: tuple[Path, Path], tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    """Of three trainings, each from the weights of the one before, the last without epochs lists the images of two."""
    sets = make_dataset(tmp_path / "train", 4, 11), make_dataset(tmp_path / "eval", 3, 12)
    second = run(replace(OPTIONS, epochs=1), *sets, weights=trained.folder / "best.pth")
    third = run(replace(OPTIONS, epochs=0), weights=second.folder / "last.pth")
    origins = TrainingOrigins.read(third.folder / "origins.json")
    assert origins == TrainingOrigins(None, {}), "nothing was trained"
    for folder in (second.folder, third.folder):
        assert recorded(folder) == digests(*datasets, *sets)
        assert LearnedImages.read(folder / FILE_NAME).unknown_weights == ()


@pytest.mark.parametrize(
    ("classes", "epochs", "coco"),
    [
        pytest.param(("disc", "block"), 1, False, id="of other classes"),
        pytest.param(coco_classes(), 0, True, id="of COCO's"),
        pytest.param((*coco_classes(), "block"), 0, True, id="of COCO's and another"),
    ],
)
def test_given_weights_without_a_record_are_recorded_as_unknown(
    classes: tuple[str, ...], coco: bool, epochs: int, run: Run, datasets: tuple[Path, Path], tmp_path: Path
) -> None:
    state = YOLOX.build_model(ModelMetadata("nano", (64, 64), classes)).state_dict()
    weights = write_checkpoint(tmp_path / "w.pth", state, {"classes": list(classes)})
    result = run(replace(OPTIONS, epochs=epochs), weights=weights)
    unknown = UnknownWeights(hashlib.sha256(weights.read_bytes()).hexdigest(), coco)
    assert LearnedImages.read(result.folder / FILE_NAME).unknown_weights == (unknown,)
    assert recorded(result.folder) == (digests(*datasets) if epochs else set())
    if not epochs:  # passed on untouched, with the checkpoint's classes and not the data set's
        assert (result.metadata.classes, result.history, result.best_epoch) == (classes, (), 0)
        for name in ("best.pth", "last.pth", GIVEN):
            packed = read_checkpoint(result.folder / name, YOLOX)
            assert packed.classes == classes
            assert all(torch.equal(packed.state[key], value) for key, value in state.items())


def test_few_images_or_few_samples_are_warned_of() -> None:
    rows = {(99, 300): True, (100, 40): False, (100, 39): True, (5000, 1): False}  # images and epochs
    assert {row: bool(scratch_warnings(TrainingOptions("yolox-nano", 64, row[1]), row[0])) for row in rows} == rows


def test_the_warning_names_weights_of_the_variant(trained: TrainingResult) -> None:
    few, remedy = trained.warnings
    assert "13 images for 3 epochs" in few
    assert "weights_url: coco takes yolox-nano by Megvii (mAP 0.258 on COCO, Apache-2.0): https://github.com" in remedy


def test_an_exploding_loss_ends_in_a_clear_error(run: Run) -> None:
    with pytest.raises(StepError, match=r"training diverged[\s\S]*learning_rate"):
        run(replace(OPTIONS, learning_rate=1e30))


@pytest.mark.parametrize("change", [{"epochs": 0}, {"freeze": "stem"}], ids=str)
def test_options_that_need_weights(change: dict[str, Any], run: Run) -> None:
    [(name, value)] = change.items()
    with pytest.raises(UsageError, match=rf"{name}={value} needs pretrained weights[\s\S]*weights_url"):
        run(replace(OPTIONS, **change))


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        pytest.param("eval", "classes", "different classes", id="other classes"),
        pytest.param("train", "empty", r"the train set has no images[\s\S]*train_share", id="an empty train set"),
        pytest.param("eval", "empty", r"the eval set has no images[\s\S]*eval_share", id="an empty eval set"),
        pytest.param("eval", "crowds", r"the eval set has no objects[\s\S]*eval_share", id="nothing to evaluate"),
    ],
)
def test_sets_that_do_not_go_together(
    part: str, change: str, says: str, run: Run, datasets: tuple[Path, Path], tmp_path: Path
) -> None:
    """Of crowds alone COCO's mAP is -1 in each epoch, so that the first of all were the best."""
    folders = dict(zip(("train", "eval"), datasets, strict=True))
    content = json.loads((folders[part] / "annotations.json").read_text())
    if change == "classes":
        content["categories"][1]["name"] = "cube"
    elif change == "empty":
        content |= {"images": [], "annotations": []}
    else:
        content["annotations"] = [{**each, "iscrowd": 1} for each in content["annotations"]]
    folders[part] = tmp_path
    with pytest.raises(MissingError, match="no annotation file"):
        run(OPTIONS, *folders.values())
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=says):
        run(OPTIONS, *folders.values())


def test_mosaic_trains_on_images_without_any_box_too(run: Run, datasets: tuple[Path, Path], tmp_path: Path) -> None:
    """Empty images are samples too: mmdet's loaders could drop them, or retry each fifteen times and give up."""
    folder = tmp_path / "train"
    shutil.copytree(datasets[0], folder)
    content = json.loads((folder / "annotations.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] <= 3]
    (folder / "annotations.json").write_text(json.dumps(content))
    result = run(TrainingOptions("yolox-nano", 64, 2, 4, augmentation="mosaic"), folder, datasets[1])
    # mmdet adds the L1 loss when mosaic is switched off for the last epochs
    assert ["loss_l1" in record.loss for record in result.history] == [False, True]


@pytest.fixture(scope="module")
def ruined(
    datasets: tuple[Path, Path], skilled: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingResult, Path]:
    """A training that makes good weights worse and worse; and the weights, of three classes in another order."""
    base = tmp_path_factory.mktemp("ruined")
    given = read_checkpoint(skilled, YOLOX)
    assert given.classes == ("disc", "block")
    torch.manual_seed(0)
    state = dict(given.state)
    for name in [name for name in state if name.startswith(CLASS_LAYER)]:
        disc, block = state[name]
        state[name] = torch.stack([block, torch.randn_like(disc), disc])
    weights = write_checkpoint(base / "w.pth", state, {"classes": ["block", "star", "disc"]})
    options = replace(OPTIONS, epochs=8, learning_rate=RUINOUS, patience=2, freeze="nothing")
    return train(options, *datasets, base, weights=weights), weights


def test_what_is_packed_is_never_worse_than_what_was_given(ruined: tuple[TrainingResult, Path]) -> None:
    """The best weights are the given ones, bit for bit: rows of the head by name, and nothing balanced."""
    result, weights = ruined
    assert result.best_epoch == 0
    packed, given = read_checkpoint(result.folder / "best.pth", YOLOX), read_checkpoint(weights, YOLOX)
    assert packed.classes == ("disc", "block")
    assert packed.state.keys() == given.state.keys()
    for name, value in given.state.items():
        expected = value[[2, 0]] if name.startswith(CLASS_LAYER) else value
        assert torch.equal(packed.state[name], expected), name
    last = read_checkpoint(result.folder / "last.pth", YOLOX).state
    assert not any(torch.equal(last[n], v) for n, v in packed.state.items() if n.endswith("conv.weight"))


def test_the_given_weights_are_epoch_0(ruined: tuple[TrainingResult, Path]) -> None:
    result, _ = ruined
    first, *others = result.history
    assert (first.epoch, first.loss, first.learning_rate) == (0, {}, 0.0)
    assert [record.epoch for record in others] == [1, 2]
    assert first.mAP is not None
    assert first.mAP > 0.1
    assert all(record.mAP is not None and record.mAP < first.mAP for record in others)
    metrics = result.metrics()
    assert metrics["pretrained_mAP"] == metrics["eval_mAP"] == first.mAP
    assert metrics["gained_mAP"] == 0
    content = torch.load(result.folder / "best.pth", weights_only=True)["meta"]
    assert (content["epoch"], content["mAP"]) == (0, first.mAP)
    assert json.loads((result.folder / "history.json").read_text())[0]["epoch"] == 0


def test_patience_ends_training_and_says_why(ruined: tuple[TrainingResult, Path]) -> None:
    result, _ = ruined
    reason = "no better mAP in 2 epochs"
    assert result.metrics()["ended_early"] == reason
    assert ModelMetadata.read(result.folder / METADATA_FILE).training["ended_early"] == reason
    assert torch.load(result.folder / "last.pth", weights_only=True)["meta"]["epoch"] == 2


def test_what_is_gained_is_the_difference_to_the_given_weights(
    run: Run, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has a line an epoch, whole beside the percentage done, which is written over and over."""
    stream = io.StringIO()  # gets both, as the output of a notebook's cell does
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(stream)])
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
    result = run(replace(OPTIONS, epochs=2), weights=pretrained)
    lines = printed([{"output_type": "stream", "text": stream.getvalue()}]).splitlines()
    shown = [line[:50] + line[57:] for line in lines[lines.index(HEADER) + 1 :]][:3]  # without images per second
    expected = [epoch_line(record, 2, None) for record in result.history]
    assert shown == [line[:50] + line[57:] for line in expected]
    assert "100% epoch 2/2 loss" in stream.getvalue()
    assert result.warnings == ()
    first, best = result.history[0], result.history[result.best_epoch]
    assert result.best_epoch > 0
    assert result.metrics()["gained_mAP"] == (best.mAP or 0) - (first.mAP or 0) > 0
    facts = ModelMetadata.read(result.folder / METADATA_FILE).training
    assert (facts["pretrained_mAP"], facts["eval_mAP"]) == (first.mAP, best.mAP)
    assert "ended_early" not in facts
    given, kept = read_checkpoint(pretrained, YOLOX), read_checkpoint(result.folder / GIVEN, YOLOX)
    assert (kept.classes, kept.learned) == (("disc", "block"), given.learned)
    for name, value in given.state.items():
        assert torch.equal(kept.state[name], value) or (name.startswith(CLASS_LAYER) and len(kept.state[name]) == 2)


def test_what_is_frozen_stays_exactly_as_it_was(run: Run, pretrained: Path) -> None:
    """Parameters and statistics, none of them balanced; all that is not frozen moves.

    An average of equal numbers is rounded, as mmdet takes it, so there the last bit may differ.
    """
    result = run(replace(OPTIONS, epochs=1, freeze="stem"), weights=pretrained)
    before, after = read_checkpoint(pretrained, YOLOX).state, read_checkpoint(result.folder / "last.pth", YOLOX).state
    same = set()
    for name, value in before.items():
        if not name.startswith(CLASS_LAYER) and torch.allclose(after[name], value, rtol=1e-6, atol=1e-6):
            same.add(name)
    fixed = {name for name in before if name.startswith(("backbone.stem.", "backbone.stage1."))}
    assert fixed <= same
    assert {name for name in same - fixed if name.endswith(("conv.weight", "running_mean"))} == set()


def limited(monkeypatch: pytest.MonkeyPatch, images: int, *, part: str = "loss", epoch: int = 0) -> list[int]:
    """Memory for so many images and no more, from an epoch on; how many there were each time that it sufficed."""
    method, sizes = getattr(PartwiseYOLOX, part), []

    def counted(self: Any, batch_inputs: Tensor, *arguments: Any, **named: Any) -> Any:
        if len(batch_inputs) > images and len(sizes) >= epoch * 2:
            raise torch.OutOfMemoryError(f"CUDA out of memory: there is room for {images} images")
        sizes.append(len(batch_inputs))
        return method(self, batch_inputs, *arguments, **named)

    monkeypatch.setattr(PartwiseYOLOX, part, counted)
    return sizes


WHOLE = replace(OPTIONS, batch_size=8)  # 2 steps an epoch, of 8 images; 13 are there, so 5 come last


def test_where_memory_runs_out_a_step_is_taken_in_smaller_parts(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen = limited(monkeypatch, 2)
    result = run(replace(WHOLE, epochs=1, micro_batch=5))
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    short = [line for line in warned if "out of memory with" in line]
    assert [re.findall(r"\d+", line) for line in short] == [["5", "3"], ["3", "2"]]
    assert [line for line in warned if line not in short] == list(result.warnings)
    assert seen == [2, 2, 2, 2, 2, 2, 1]
    assert result.micro_batch == 2
    assert "micro_batch=2" in (result.folder / "config.py").read_text()
    assert [record.epoch for record in result.history] == [1]


def test_where_memory_runs_out_later_no_finished_epoch_is_trained_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen = limited(monkeypatch, 4, epoch=1)
    result = run(WHOLE)
    assert seen == [8, 5, 4, 4, 4, 1, 4, 4, 4, 1]
    assert "continuing after epoch 1 of 3" in caplog.messages
    assert [record.epoch for record in result.history] == [1, 2, 3]
    assert result.micro_batch == 4


def test_memory_may_run_out_in_evaluation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = limited(monkeypatch, 2, part="predict")
    result = run(replace(WHOLE, epochs=1))
    assert (seen, result.micro_batch) == ([2, 2, 1], 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_decoded_ends_training(
    workers: int, run: Run, datasets: tuple[Path, Path], tmp_path: Path
) -> None:
    """With the words of the error alone, whichever process it was raised in."""
    folder = Path(shutil.copytree(datasets[0], tmp_path / "train"))
    (folder / "images" / "003.png").write_bytes(b"<html>404</html>")
    with pytest.raises(DataError) as caught:
        run(replace(OPTIONS, workers=workers), folder, datasets[1])
    first, where, expected = str(caught.value).splitlines()
    assert first == "an image cannot be decoded"
    assert where.endswith("images/003.png")
    assert "expected:" in expected


def test_no_worker_outlives_a_training(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that ended nor one that failed, though its error is at hand and holds on to everything."""
    before = set(psutil.Process().children())
    options = replace(OPTIONS, epochs=1, workers=2)
    run(options)
    limited(monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError, match="room for 0 images") as caught:
        run(replace(options, micro_batch=1))
    assert set(psutil.Process().children()) <= before
    assert caught.value.__traceback__ is not None


def test_a_training_leaves_no_log_file_open(run: Run) -> None:
    """`logging.config` closes such files, and mmengine could not initialise another model in this process."""
    run(replace(OPTIONS, epochs=1))
    assert not [each for each in MMLogger.get_current_instance().handlers if isinstance(each, logging.FileHandler)]


FIRST = EpochRecord(1, {"loss": 3.0}, 1e-3, 0.1, 0.2)
# a part that comes later, after an epoch without metrics
LATER = (EpochRecord(1, {"loss": 3.0}, 1e-3), EpochRecord(2, {"loss": 2.0, "loss_l1": 1.0}, 1e-3, 0.1, 0.2))


@pytest.mark.parametrize("history", [(), (FIRST,), LATER], ids=len)
def test_the_chart_is_drawn(history: tuple[EpochRecord, ...], tmp_path: Path) -> None:
    chart = training_chart(history, len(history))
    assert chart._repr_png_().startswith(b"\x89PNG")
    assert len(chart.axes) == 2
    if history:
        assert chart.axes[1].get_legend() is not None


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["tiny", "s", "m", "l", "x"])
def test_every_size_trains(variant: str, run: Run, tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    """Nano does in every other test."""
    sets = make_dataset(tmp_path / "train", 4, 1), make_dataset(tmp_path / "eval", 3, 2)
    result = run(TrainingOptions(f"yolox-{variant}", 64, 1, 4), *sets)
    assert result.history[0].loss["loss"] > 0
    assert variant_of(read_checkpoint(result.folder / "best.pth", YOLOX).state) == variant


def test_tensorboard_shows_losses_rate_and_metrics_and_leaves_no_trace(
    trained: TrainingResult, skilled: Path, run: Run, tmp_path: Path
) -> None:
    logs = tmp_path / "some" / "logs"
    result = run(OPTIONS, weights=skilled, logs=logs)
    reader = EventAccumulator(str(logs)).Reload()
    found = {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
    assert {"train/loss", "train/loss_cls", "train/loss_bbox", "train/loss_obj", "train/rate"} < found.keys()
    for tag in ("train/loss", "train/rate"):
        assert [step for step, _ in found[tag]] == list(range(1, 13))
    for tag, name in (("eval/mAP", "mAP"), ("eval/mAP50", "mAP50")):
        expected = [(4 * record.epoch, pytest.approx(getattr(record, name))) for record in result.history]
        assert found[tag] == expected  # epoch 0 among them
    means = [sum(value for _, value in found["train/loss"][4 * e : 4 * e + 4]) / 4 for e in range(3)]
    assert means == [pytest.approx(record.loss["loss"], rel=1e-5) for record in result.history[1:]]
    assert {path.name for path in result.folder.iterdir()} == {GIVEN, *(path.name for path in trained.folder.iterdir())}
