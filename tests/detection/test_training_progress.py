from __future__ import annotations

import math
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from clock import Clock

from pipeline.detection import training_progress
from pipeline.detection.hooks import EpochRecord
from pipeline.detection.training_progress import ProgressBar, ProgressHook

Told = tuple[int, int, str]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    own = Clock()
    monkeypatch.setattr(training_progress, "time", own)
    return own


def runner_at(
    epoch: int, step: int, *, epochs: int = 3, steps: int = 12, rates: tuple[float, ...] = (1e-4, 1e-3)
) -> Any:
    optimizer = SimpleNamespace(param_groups=[{"lr": rate} for rate in rates])
    wrapper = SimpleNamespace(optimizer=optimizer)
    return SimpleNamespace(epoch=epoch, iter=step, max_epochs=epochs, max_iters=steps, optim_wrapper=wrapper)


def losses(value: float) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(value), "loss_cls": torch.tensor(value / 2)}


def metrics(value: float) -> dict[str, float]:
    return {"coco/bbox_mAP": value, "coco/bbox_mAP_50": value + 0.1}


def test_the_history_has_the_means_of_each_epoch_and_its_metrics(clock: Clock) -> None:
    hook = ProgressHook(4, lambda *_: None)
    for epoch in range(2):
        hook.before_train_epoch(runner_at(epoch, 0))
        for step, value in enumerate((1.0, 2.0, 6.0)):
            hook.after_train_iter(runner_at(epoch, step), step, outputs=losses(value + epoch))
        hook.after_train_epoch(runner_at(epoch, 3))
    hook.after_val_epoch(runner_at(2, 6), metrics(0.3))
    assert hook.history == [
        EpochRecord(1, {"loss": 3.0, "loss_cls": 1.5}, 1e-3),
        EpochRecord(2, {"loss": 4.0, "loss_cls": 2.0}, 1e-3, 0.3, pytest.approx(0.4)),
    ]


def test_what_is_validated_before_training_is_epoch_0() -> None:
    told: list[Told] = []
    hook = ProgressHook(4, lambda *values: told.append(values))
    hook.after_val_epoch(runner_at(0, 0), metrics(0.25))
    assert hook.history == [EpochRecord(0, {}, 0.0, 0.25, 0.35)]
    assert told == [(0, 12, "epoch 1/3 mAP 0.250")]


def test_the_line_has_all_that_one_wants_to_know(clock: Clock) -> None:
    told: list[Told] = []
    hook = ProgressHook(8, lambda *values: told.append(values))
    hook.after_val_epoch(runner_at(0, 0), metrics(0.25))
    hook.before_train_epoch(runner_at(0, 0))
    for step, value in enumerate((4.0, 2.0)):
        clock.now += 2
        hook.after_train_iter(runner_at(0, step), step, outputs=losses(value))
    assert told[-1] == (2, 12, "epoch 1/3 loss 3.00 rate 1.0e-03 4 images/s mAP 0.250")


@pytest.mark.parametrize("apart", [0.01, 0.1, 1.0, 10.0])
def test_it_looks_at_the_loss_now_and_then(apart: float, clock: Clock) -> None:
    told: list[Told] = []
    hook = ProgressHook(8, lambda *values: told.append(values))
    hook.before_train_epoch(runner_at(0, 0))
    for step in range(100):
        clock.now += apart
        hook.after_train_iter(runner_at(0, step, steps=100), step, outputs=losses(1.0))
    assert len(told) <= 100 * apart / training_progress.INTERVAL + 1
    assert len(told) >= min(100, math.floor(100 * apart / training_progress.INTERVAL * 0.9))


@pytest.mark.parametrize("loss", [0.001, 12345.678], ids=["small loss", "large loss"])
@pytest.mark.parametrize("images", [1, 9999], ids=["slow", "fast"])
def test_the_line_fits_into_a_terminal(
    loss: float, images: int, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """With everything at its longest: five digits of epochs, and days that remain."""
    bar, lines = ProgressBar(), []

    def tell(step: int, steps: int, line: str) -> None:
        lines.append(line)
        bar.show(step, steps, line)

    hook = ProgressHook(images, tell)
    hook.history = [EpochRecord(9999, {}, 1e-3, 0.123456, 0.2)]
    runner = runner_at(10000, 55555, epochs=12345, steps=99999, rates=(1.2345e-10,))
    hook.before_train_epoch(runner)
    for step in range(3):
        clock.now += 1
        runner.iter += 1
        hook.after_train_iter(runner, step, outputs=losses(loss))
    bar.close()
    assert re.fullmatch(r"epoch 10001/12345 loss \d+\.\d\d rate 1\.2e-10 \d+ images/s mAP 0\.123", lines[-1])
    assert max(map(len, lines)) < 76
    assert lines[-1] in capsys.readouterr().err


def test_the_bar_goes_on_where_training_does(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    bar.show(50, 100, "epoch 2/4")
    bar.show(75, 100, "epoch 3/4")
    bar.close()
    shown = capsys.readouterr().err
    assert int(re.findall(r"(\d+)%", shown)[0]) == 50
    assert re.search(r"75% epoch 3/4, \d\d:\d\d left", shown)
    assert "?" not in shown
    assert "% ," not in shown


def test_a_bar_that_was_never_told_is_closed() -> None:
    ProgressBar().close()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_a_loss_that_is_not_finite_ends_training_at_once(value: float, clock: Clock) -> None:
    hook = ProgressHook(8, lambda *_: None)
    hook.before_train_epoch(runner_at(0, 0))
    hook.after_train_iter(runner_at(0, 0), 0, outputs=losses(1.0))
    clock.now += 1
    with pytest.raises(FloatingPointError, match=rf"the loss became {value} by step 2"):
        hook.after_train_iter(runner_at(0, 1), 1, outputs=losses(value))


def test_a_loss_that_was_once_not_finite_ends_training_with_the_epoch(clock: Clock) -> None:
    """Between two looks it may have become finite again, and the weights have not."""
    hook = ProgressHook(8, lambda *_: None)
    hook.before_train_epoch(runner_at(0, 0))
    for step, value in enumerate((1.0, math.nan, 1.0)):
        hook.after_train_iter(runner_at(0, step), step, outputs=losses(value))
    with pytest.raises(FloatingPointError, match="nan"):
        hook.after_train_epoch(runner_at(0, 2))


def test_what_an_epoch_adds_up_is_no_part_of_the_step(clock: Clock) -> None:
    """The losses that a step hands out stay what they were: other hooks read them."""
    hook: Any = ProgressHook(8, lambda *_: None)
    hook.before_train_epoch(runner_at(0, 0))
    first = losses(1.0)
    hook.after_train_iter(runner_at(0, 0), 0, outputs=first)
    hook.after_train_iter(runner_at(0, 1), 1, outputs=losses(5.0))
    hook.after_train_epoch(runner_at(0, 2))
    assert float(first["loss"]) == 1.0
