from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.detection.charts import training_chart
from pipeline.detection.config import Recipe
from pipeline.detection.hooks import EpochRecord
from pipeline.detection.spec import DetectorSpec
from pipeline.detection.training import TrainingResult, train
from pipeline.detection.weights import read_checkpoint, write_checkpoint
from pipeline.errors import DataError, MissingError, StepError, UsageError

RECIPE = Recipe(variant="nano", image_size=64, epochs=3, batch_size=4, seed=3)


@pytest.fixture(scope="module")
def trained(datasets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(RECIPE, *datasets, tmp_path_factory.mktemp("trained"))


def test_what_inference_needs_is_there(trained: TrainingResult) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    assert names == {
        "best.pth",
        "last.pth",
        "config.py",
        "model.json",
        "history.json",
        "test_image.png",
        "parity_images",
    }
    for name, epoch in (("best.pth", trained.best_epoch), ("last.pth", 3)):
        content = torch.load(trained.folder / name, weights_only=True)
        assert content["meta"]["classes"] == ["disc", "block"]
        assert content["meta"]["epoch"] == epoch
        assert all(torch.isfinite(value).all() for value in content["state_dict"].values())
    spec = DetectorSpec.read(trained.folder)
    assert (spec.variant, spec.image_size, spec.classes) == ("nano", (64, 64), ("disc", "block"))
    assert len(list((trained.folder / "parity_images").iterdir())) == 5


def test_the_history_has_every_epoch_and_the_rate_falls(trained: TrainingResult) -> None:
    assert [record.epoch for record in trained.history] == [1, 2, 3]
    assert all(record.loss["loss"] > 0 and record.mAP is not None for record in trained.history)
    assert trained.history[-1].learning_rate < trained.history[0].learning_rate
    assert trained.history[-1].learning_rate == pytest.approx(1e-2 * 0.05, rel=0.5)
    best = max(trained.history, key=lambda record: record.mAP or 0.0)
    assert trained.metrics()["eval_mAP"] == best.mAP
    assert json.loads((trained.folder / "history.json").read_text())[2]["epoch"] == 3


def test_the_same_seed_gives_the_same_weights(
    trained: TrainingResult, datasets: tuple[Path, Path], tmp_path: Path
) -> None:
    again = train(RECIPE, *datasets, tmp_path)
    assert again.history == trained.history
    for name in ("best.pth", "last.pth", "config.py", "model.json"):
        assert (tmp_path / name).read_bytes() == (trained.folder / name).read_bytes(), name


def test_mosaic_trains_too(datasets: tuple[Path, Path], tmp_path: Path) -> None:
    result = train(Recipe("nano", 64, 2, 4, augmentation="mosaic"), *datasets, tmp_path)
    # mmdet adds the L1 loss when mosaic is switched off for the last epochs
    assert "loss_l1" not in result.history[0].loss
    assert "loss_l1" in result.history[1].loss


def test_pretrained_weights_are_what_training_starts_from(
    trained: TrainingResult, datasets: tuple[Path, Path], tmp_path: Path
) -> None:
    """With a vanishing rate the weights stay what they were: mmengine's own initialisation comes not after them."""
    recipe = Recipe("nano", 64, 1, 4, learning_rate=1e-12)
    result = train(recipe, *datasets, tmp_path, weights=trained.folder / "last.pth")
    before, after = (read_checkpoint(folder / "last.pth").state for folder in (trained.folder, tmp_path))
    assert result.known == ("disc", "block")
    for name, value in before.items():
        if "running_" not in name and "num_batches" not in name:
            torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0, msg=name)


def test_no_epochs_passes_the_weights_on_untouched(
    trained: TrainingResult, datasets: tuple[Path, Path], tmp_path: Path
) -> None:
    state = read_checkpoint(trained.folder / "last.pth").state
    source = write_checkpoint(tmp_path / "w.pth", state, {"classes": ["one", "two"]})
    (tmp_path / "out").mkdir()
    result = train(Recipe("nano", 64, epochs=0), *datasets, tmp_path / "out", weights=source)
    assert result.spec.classes == ("one", "two")  # the checkpoint's, not the data set's
    assert result.history == ()
    assert result.best_epoch == 0
    for name in ("best.pth", "last.pth"):
        packed = read_checkpoint(tmp_path / "out" / name)
        assert packed.classes == ("one", "two")
        assert all(torch.equal(packed.state[key], value) for key, value in state.items())


def test_no_epochs_and_no_weights_is_a_wrong_call(datasets: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="epochs=0"):
        train(Recipe("nano", 64, epochs=0), *datasets, tmp_path)


def test_an_exploding_loss_ends_in_a_clear_error(datasets: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"training diverged[\s\S]*learning_rate"):
        train(Recipe("nano", 64, 3, 4, learning_rate=1e30), *datasets, tmp_path)


def test_different_classes_in_train_and_eval(
    datasets: tuple[Path, Path], tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    other = make_dataset(tmp_path / "eval", 3, 5, classes=("disc", "cube"))
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="different classes"):
        train(RECIPE, datasets[0], other, tmp_path / "out")


@pytest.mark.parametrize("part", ["train", "eval"])
def test_a_set_without_images(part: str, datasets: tuple[Path, Path], tmp_path: Path) -> None:
    folders = dict(zip(("train", "eval"), datasets, strict=True))
    content = json.loads((folders[part] / "annotations.json").read_text())
    (tmp_path / "annotations.json").write_text(json.dumps({**content, "images": [], "annotations": []}))
    folders[part] = tmp_path
    with pytest.raises(DataError, match=rf"the {part} set has no images[\s\S]*{part}_share"):
        train(RECIPE, folders["train"], folders["eval"], tmp_path)


def test_a_data_set_that_is_not_there(datasets: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="data_prep"):
        train(RECIPE, datasets[0], tmp_path, tmp_path)


@pytest.mark.parametrize("augmentation", ["flip", "mosaic"])
def test_images_without_any_box(augmentation: str, datasets: tuple[Path, Path], tmp_path: Path) -> None:
    """Empty images are samples too: mmdet's loaders could drop them, or retry each fifteen times and give up."""
    folder = tmp_path / "train"
    shutil.copytree(datasets[0], folder)
    content = json.loads((folder / "annotations.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] <= 3]
    (folder / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "out").mkdir()
    recipe = Recipe("nano", 64, 2, 4, augmentation=augmentation)
    assert len(train(recipe, folder, datasets[1], tmp_path / "out").history) == 2


@pytest.mark.parametrize(
    "history",
    [
        pytest.param((), id="no epochs"),
        pytest.param((EpochRecord(1, {"loss": 3.0}, 1e-3, 0.1, 0.2),), id="one epoch"),
        pytest.param(
            (EpochRecord(1, {"loss": 3.0}, 1e-3), EpochRecord(2, {"loss": 2.0, "loss_l1": 1.0}, 1e-3, 0.1, 0.2)),
            id="a part that comes later, an epoch without metrics",
        ),
    ],
)
def test_the_chart_is_drawn(history: tuple[EpochRecord, ...], tmp_path: Path) -> None:
    chart = training_chart(history, len(history))
    assert chart._repr_png_().startswith(b"\x89PNG")
    assert len(chart.axes) == 2
    if history:
        assert chart.axes[1].get_legend() is not None
