from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, call

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from mmengine.hooks import EMAHook
from torch import nn

from pipeline.detection import hooks
from pipeline.detection.epochs import EpochRecord
from pipeline.detection.hooks import (
    ProgressHook,
    SameStatisticsHook,
    StoppingHook,
    TrackingHook,
    WeightsHook,
    averaged,
)

Told = tuple[int, int, str]


class Clock:
    """Stands for the module `time`, and stands still until a test moves it."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    own = Clock()
    monkeypatch.setattr(hooks, "time", own)
    return own


def metrics(value: float) -> dict[str, float]:
    return {"mAP": value, "mAP50": value + 0.1}


@pytest.mark.parametrize(
    ("values", "best"),
    [
        pytest.param({1: 0.1, 2: 0.3, 3: 0.2}, 2, id="in the middle"),
        pytest.param({2: 0.0, 4: 0.0}, 2, id="the first of equals, nothing found"),
        pytest.param({0: 0.5, 1: 0.4}, 0, id="pretrained weights"),
        pytest.param({0: 0.0, 1: 0.1}, 1, id="better than pretrained weights"),
    ],
)
def test_the_best_and_the_last_are_kept(values: dict[int, float], best: int, tmp_path: Path) -> None:
    hook, model = WeightsHook(tmp_path, {"classes": ["a"]}), nn.Linear(1, 1)
    for epoch, value in values.items():
        with torch.no_grad():
            model.weight.fill_(epoch)
        hook.after_val_epoch(SimpleNamespace(model=model, epoch=epoch), metrics(value) if value else None)
    assert (hook.best_epoch, hook.best, hook.last_epoch) == (best, values[best], max(values))
    for name, epoch in (("best.pth", best), ("last.pth", max(values))):
        content = torch.load(tmp_path / name, weights_only=True)
        found = {"mAP": values[epoch], "mAP50": values[epoch] + 0.1 if values[epoch] else 0.0}
        assert content["meta"] == {"classes": ["a"], "epoch": epoch, **found}
        assert float(content["state_dict"]["weight"]) == epoch
    assert float(hook.best_state["weight"]) == best


def _end_an_epoch(rank: int, processes: int, folder: Path) -> None:
    """What one of several processes does."""
    address = f"file://{folder / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=processes)
    model, copy = (nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(1)) for _ in range(2))
    for each, base in ((model, 1.0), (copy, 10.0)):
        each[0].running_mean.copy_(torch.tensor([base * rank, 0.1]))  # 0.1 * 3 / 3 is not 0.1 in float32
        each[1].running_var.fill_(base + rank)
        each[0].num_batches_tracked.fill_(7)
    ema = EMAHook()
    ema.ema_model = copy
    runner = SimpleNamespace(model=model, hooks=[ema])
    assert averaged(runner) is copy
    SameStatisticsHook().after_train_epoch(runner)
    torch.save({"model": model.state_dict(), "copy": copy.state_dict()}, folder / f"{rank}.pth")
    torch.distributed.destroy_process_group()


def test_all_processes_end_an_epoch_with_the_mean_of_their_statistics(tmp_path: Path) -> None:
    processes = 3
    torch.multiprocessing.start_processes(
        _end_an_epoch, (processes, tmp_path), nprocs=processes, start_method="fork", join=True
    )
    for rank in range(processes):
        found = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        for name, base in (("model", 1.0), ("copy", 10.0)):
            torch.testing.assert_close(found[name]["0.running_mean"], torch.tensor([base, 0.1]), atol=0, rtol=0)
            torch.testing.assert_close(found[name]["1.running_var"], torch.tensor([base + 1]), atol=0, rtol=0)
            assert int(found[name]["0.num_batches_tracked"]) == 7


def stopped(
    hook: StoppingHook, values: list[float], *, clock: Clock | None = None, seconds: float = 0.0, interval: int = 1
) -> Any:
    """A training of epochs with these mAPs, in the order of mmengine's loop; the runner at its end."""
    loop = SimpleNamespace(stop_training=False, dynamic_intervals=[interval])
    runner = SimpleNamespace(epoch=0, iter=0, max_epochs=len(values), train_loop=loop, validated=[])
    hook.before_train(runner)
    while runner.epoch < runner.max_epochs and not loop.stop_training:
        if clock:
            clock.now += seconds
        hook.after_train_epoch(runner)
        runner.epoch += 1
        runner.iter += 1
        if runner.epoch % loop.dynamic_intervals[0] == 0 or runner.epoch == runner.max_epochs:
            runner.validated.append(runner.epoch)
            best = hook.weights
            if values[runner.epoch - 1] > best.best:
                best.best, best.best_epoch = values[runner.epoch - 1], runner.epoch
            best.last_epoch = runner.epoch
            hook.after_val_epoch(runner)
    return runner


def weights(best: float = float("-inf")) -> Any:
    return SimpleNamespace(best=best, best_epoch=0, last_epoch=0)


@pytest.mark.parametrize(
    ("patience", "start", "values", "last", "reason"),
    [
        pytest.param(0, -1.0, [0.5, 0.1, 0.1, 0.1], 4, "", id="none"),
        pytest.param(2, -1.0, [0.5, 0.1, 0.9, 0.1, 0.2, 0.3], 5, "no better mAP in 2 epochs", id="two epochs"),
        pytest.param(2, -1.0, [0.1, 0.2, 0.1, 0.1], 4, "", id="over with the last epoch anyway"),
        pytest.param(2, -1.0, [0.5, 0.5, 0.5, 0.5], 3, "no better mAP in 2 epochs", id="as good is not better"),
        pytest.param(2, 0.6, [0.5, 0.5, 0.9, 0.9], 2, "no better mAP in 2 epochs", id="worse than pretrained weights"),
        pytest.param(2, float("-inf"), [0.0, 0.0, 0.0, 0.0, 0.1, 0.2], 6, "", id="nothing found at first"),
    ],
)
def test_patience(patience: int, start: float, values: list[float], last: int, reason: str) -> None:
    hook = StoppingHook(patience, 0.0, weights(start))
    assert (stopped(hook, values).epoch, hook.reason) == (last, reason)


@pytest.mark.parametrize(
    ("limit", "spent", "validated", "reason"),
    [
        pytest.param(0, 0, [4, 8, 10], "", id="none"),
        pytest.param(100, 0, [1], "the time limit of 1.66667 minutes", id="at an epoch's end to the second"),
        pytest.param(450, 0, [4, 5], "the time limit of 7.5 minutes", id="after a validation"),
        pytest.param(950, 0, [4, 8, 10], "", id="in the last epoch"),
        pytest.param(450, 250, [2], "the time limit of 7.5 minutes", id="with earlier attempts"),
    ],
)
def test_the_time_limit(limit: float, spent: float, validated: list[int], reason: str, clock: Clock) -> None:
    """Ten epochs of 100 seconds, of which every fourth is validated, and the one that is the last."""
    hook = StoppingHook(0, limit, weights())
    hook.spent = spent
    clock.now += 5000  # before training, and not counted
    runner = stopped(hook, [0.1] * 10, clock=clock, seconds=100, interval=4)
    assert (runner.validated, hook.reason) == (validated, reason)
    assert hook.elapsed == spent + 100 * runner.epoch


@pytest.mark.parametrize(("last", "reason"), [(3, "no better mAP in 2 epochs"), (2, "")])
def test_a_continued_training_may_have_ended_already(last: int, reason: str) -> None:
    """Where the epoch that it continues after was the last one to wait for."""
    hook = StoppingHook(2, 0.0, SimpleNamespace(best=0.5, best_epoch=1, last_epoch=last))
    runner = SimpleNamespace(epoch=3, iter=6, max_epochs=8, train_loop=SimpleNamespace(stop_training=False))
    hook.before_train(runner)
    assert (hook.reason, runner.train_loop.stop_training) == (reason, bool(reason))


def test_the_first_of_two_reasons_is_kept(clock: Clock) -> None:
    hook = StoppingHook(1, 150, weights())
    runner = stopped(hook, [0.5, 0.1, 0.1], clock=clock, seconds=100)
    assert (runner.epoch, hook.reason) == (2, "the time limit of 2.5 minutes")


def runner_at(
    epoch: int, step: int, *, epochs: int = 3, steps: int = 12, rates: tuple[float, ...] = (1e-4, 1e-3)
) -> Any:
    wrapper = SimpleNamespace(optimizer=SimpleNamespace(param_groups=[{"lr": rate} for rate in rates]))
    return SimpleNamespace(epoch=epoch, iter=step, max_epochs=epochs, max_iters=steps, optim_wrapper=wrapper)


def losses(value: float) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(value), "loss_cls": torch.tensor(value / 2)}


def test_the_history_has_the_means_of_each_epoch_and_its_metrics() -> None:
    hook, given = ProgressHook(4, lambda *_: None), losses(2.0)
    for epoch in range(2):
        hook.before_train_epoch(runner_at(epoch, 0))
        for step, values in enumerate((given, losses(4.0 + 6 * epoch))):
            hook.after_train_iter(runner_at(epoch, step), step, outputs=values)
        hook.after_train_epoch(runner_at(epoch, 3))
    hook.after_val_epoch(runner_at(2, 6), metrics(0.3))
    assert hook.history == [
        EpochRecord(1, {"loss": 3.0, "loss_cls": 1.5}, 1e-3),
        EpochRecord(2, {"loss": 6.0, "loss_cls": 3.0}, 1e-3, 0.3, pytest.approx(0.4)),
    ]
    assert float(given["loss"]) == 2.0  # other hooks read what a step gives


def test_the_line_has_the_figures(clock: Clock) -> None:
    told: list[Told] = []
    hook = ProgressHook(8, lambda *values: told.append(values))
    hook.after_val_epoch(runner_at(0, 0), metrics(0.25))  # before training, which is epoch 0
    assert hook.history == [EpochRecord(0, {}, 0.0, 0.25, 0.35)]
    assert told == [(0, 12, "epoch 1/3 mAP 0.250")]
    hook.before_train_epoch(runner_at(0, 0))
    for step, value in enumerate((4.0, 2.0)):
        clock.now += 2
        hook.after_train_iter(runner_at(0, step), step, outputs=losses(value))
    assert told[-1] == (2, 12, "epoch 1/3 loss 3.00 rate 1.0e-03 4 images/s mAP 0.250")


@pytest.mark.parametrize("apart", [0.01, 1.0])
def test_the_loss_is_read_now_and_then(apart: float, clock: Clock) -> None:
    told: list[Told] = []
    hook = ProgressHook(8, lambda *values: told.append(values))
    hook.before_train_epoch(runner_at(0, 0))
    for step in range(100):
        clock.now += apart
        hook.after_train_iter(runner_at(0, step, steps=100), step, outputs=losses(1.0))
    most = 100 * apart / hooks.REPORT_INTERVAL
    assert min(100, math.floor(most * 0.9)) <= len(told) <= most + 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_a_loss_that_is_not_finite_ends_training(value: float, clock: Clock) -> None:
    """At the next look, or with the epoch: a later loss may be finite again, and the weights are not."""
    hook = ProgressHook(8, lambda *_: None)
    hook.before_train_epoch(runner_at(0, 0))
    for step, loss in enumerate((1.0, value, 1.0)):
        hook.after_train_iter(runner_at(0, step), step, outputs=losses(loss))
    with pytest.raises(FloatingPointError, match="by step 3"):
        hook.after_train_epoch(runner_at(0, 2))
    clock.now += 1
    with pytest.raises(FloatingPointError, match=rf"the loss became {value} by step 4"):
        hook.after_train_iter(runner_at(0, 3), 3, outputs=losses(1.0))


def tracked(folder: Path, interval: int, writer: Mock) -> None:
    hook = TrackingHook(folder, interval)
    hook._writer = writer
    for step in range(12):
        hook.after_train_iter(runner_at(0, step), step, outputs={"loss": torch.tensor(1.0)})
    hook.close()


def test_a_long_training_has_no_more_points_than_a_curve_needs(tmp_path: Path) -> None:
    writer = Mock()
    tracked(tmp_path, 5, writer)
    names = [("train/loss", 1.0), ("train/rate", 1e-3)]
    assert writer.add_scalar.call_args_list == [call(*point, step) for step in (5, 10, 12) for point in names]


@pytest.mark.parametrize("method", ["add_scalar", "close"])
def test_a_training_is_not_lost_for_its_curves(method: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracked(tmp_path, 1, Mock(**{f"{method}.side_effect": OSError("no space left on device")}))
    lines = [record.message for record in caplog.records]
    assert lines == ["training goes on without tracking: no space left on device"] * (method == "add_scalar")
