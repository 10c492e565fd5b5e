from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from clock import Clock

from pipeline.detection import stopping_rules
from pipeline.detection.stopping_rules import StoppingHook


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    own = Clock()
    monkeypatch.setattr(stopping_rules, "time", own)
    return own


def train(
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


def weights(best: float = float("-inf"), last_epoch: int = 0) -> Any:
    return SimpleNamespace(best=best, best_epoch=0, last_epoch=last_epoch)


@pytest.mark.parametrize(
    ("patience", "start", "values", "last", "reason"),
    [
        pytest.param(0, -1.0, [0.5, 0.1, 0.1, 0.1], 4, "", id="none"),
        pytest.param(1, -1.0, [0.5, 0.1, 0.9, 0.1], 2, "no better mAP in 1 epochs", id="one epoch"),
        pytest.param(2, -1.0, [0.5, 0.1, 0.9, 0.1, 0.2, 0.3], 5, "no better mAP in 2 epochs", id="two epochs"),
        pytest.param(2, -1.0, [0.1, 0.2, 0.3, 0.4], 4, "", id="ever better"),
        pytest.param(2, -1.0, [0.1, 0.2, 0.1, 0.1], 4, "", id="over with the last epoch anyway"),
        pytest.param(2, -1.0, [0.5, 0.5, 0.5, 0.5], 3, "no better mAP in 2 epochs", id="as good is not better"),
        pytest.param(2, 0.6, [0.5, 0.5, 0.9, 0.9], 2, "no better mAP in 2 epochs", id="worse than pretrained weights"),
        pytest.param(2, float("-inf"), [0.0, 0.0, 0.0, 0.0, 0.1, 0.2], 6, "", id="nothing found at first"),
        pytest.param(9, 0.6, [0.1, 0.1, 0.1], 3, "", id="more than there are epochs"),
    ],
)
def test_patience(patience: int, start: float, values: list[float], last: int, reason: str) -> None:
    hook = StoppingHook(patience, 0.0, weights(start))
    assert (train(hook, values).epoch, hook.reason) == (last, reason)


@pytest.mark.parametrize(
    ("limit", "spent", "validated", "reason"),
    [
        pytest.param(0, 0, [4, 8, 10], "", id="none"),
        pytest.param(60, 0, [1], "the time limit of 1 minutes", id="in the first epoch"),
        pytest.param(100, 0, [1], "the time limit of 1.66667 minutes", id="at an epoch's end to the second"),
        pytest.param(101, 0, [2], "the time limit of 1.68333 minutes", id="a second later"),
        pytest.param(390, 0, [4], "the time limit of 6.5 minutes", id="where it would be validated"),
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
    runner = train(hook, [0.1] * 10, clock=clock, seconds=100, interval=4)
    assert (runner.validated, hook.reason) == (validated, reason)
    assert hook.elapsed == spent + 100 * runner.epoch


def test_the_first_of_two_reasons_is_kept(clock: Clock) -> None:
    hook = StoppingHook(1, 150, weights())
    runner = train(hook, [0.5, 0.1, 0.1], clock=clock, seconds=100)
    assert (runner.epoch, hook.reason) == (2, "the time limit of 2.5 minutes")
