"""A training that is killed and continued ends in the bytes of one that was left alone."""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from folders import digests_of

from pipeline.detection.hooks import ProgressHook, WeightsHook
from pipeline.detection.hyperparameters import TrainingOptions
from pipeline.detection.resuming import CHECKPOINT, ResumeHook, read_state, write_state
from pipeline.detection.training import TrainingResult, train
from pipeline.errors import DataError

OPTIONS = TrainingOptions(detector="yolox-nano", image_size=64, epochs=3, batch_size=8, seed=3, workers=0)
Run = Callable[..., TrainingResult]
CASES = {
    "scratch": OPTIONS,
    "workers": replace(OPTIONS, workers=2),
    "warm start": OPTIONS,
    "tiles": replace(OPTIONS, tile=48, batch_size=40),  # of two steps, too
    "ruin": replace(OPTIONS, learning_rate=1.0),  # of weights that find something, so that they stay the best
    # epochs 1 and 2 with mosaic, 3 without and with the L1 loss
    "mosaic, workers": replace(OPTIONS, augmentation="mosaic", workers=2),
}

KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.detection import resuming
from pipeline.detection.hyperparameters import TrainingOptions
from pipeline.detection.training import train

*folders, resume = sys.argv[1:]
save = resuming.torch.save

def write(content, file):
    if hasattr(file, "fileno") and content.get("epoch") == 2:
        file.write(b"PK half of it")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(content, file)

resuming.torch.save = write
train(TrainingOptions("yolox-nano", 64, 3, 8, seed=3, workers=2), *map(Path, folders), resume=Path(resume))
"""


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def starts(pretrained: Path, skilled: Path) -> dict[str, Path]:
    """The weights that some cases start from."""
    return {"warm start": pretrained, "ruin": skilled}


@pytest.fixture(scope="module")
def undisturbed(
    datasets: tuple[Path, Path], starts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], TrainingResult]:
    """The result of a case that was left alone, and never heard of resuming."""
    done: dict[str, TrainingResult] = {}

    def result(case: str) -> TrainingResult:
        if case not in done:
            folder = tmp_path_factory.mktemp("undisturbed")
            done[case] = train(CASES[case], *datasets, folder, weights=starts.get(case))
        return done[case]

    return result


@pytest.fixture(scope="module")
def kept(datasets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of `OPTIONS` that was killed after it had finished: it holds the last epoch."""
    resume = tmp_path_factory.mktemp("kept")
    train(OPTIONS, *datasets, tmp_path_factory.mktemp("out"), resume=resume)
    return resume


def run_until(epoch: int, run: Run, options: TrainingOptions, **named: Any) -> None:
    """Break training off after the first of the two steps of an epoch, counted from 0."""
    after = ProgressHook.after_train_iter

    def die(self: Any, runner: Any, batch_idx: int, *arguments: Any, **named: Any) -> None:
        after(self, runner, batch_idx, *arguments, **named)
        if runner.epoch == epoch and batch_idx == 0:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProgressHook, "after_train_iter", die)
        with pytest.raises(KilledError):
            run(options, **named)


def epochs_of(patch: pytest.MonkeyPatch, moment: str = "after_train_iter") -> list[int]:
    """Epoch of every training step, or of another moment, from now on."""
    seen: list[int] = []
    after = getattr(ProgressHook, moment)

    def look(self: Any, runner: Any, *arguments: Any, **named: Any) -> None:
        after(self, runner, *arguments, **named)
        seen.append(runner.epoch)

    patch.setattr(ProgressHook, moment, look)
    return seen


@pytest.mark.parametrize(
    ("case", "after", "workers"),
    [
        ("warm start", 1, 0),
        pytest.param("tiles", 1, 0, marks=pytest.mark.slow),
        pytest.param("ruin", 2, 0, marks=pytest.mark.slow),
        pytest.param("mosaic, workers", 1, 2, marks=pytest.mark.slow),
        pytest.param("mosaic, workers", 2, 0, id="another number of workers", marks=pytest.mark.slow),
    ],
)
def test_a_continued_training_gives_the_same_bytes(
    case: str,
    after: int,
    workers: int,
    undisturbed: Callable[[str], TrainingResult],
    run: Run,
    starts: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start, options = starts.get(case), replace(CASES[case], workers=workers)
    resume = tmp_path / "a" / "resume"
    run_until(after, run, CASES[case], weights=start, resume=resume)
    assert [path.name for path in resume.iterdir()] == [CHECKPOINT]
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        steps, validations = epochs_of(patch), epochs_of(patch, "after_val_epoch")
        result = run(options, weights=start, resume=resume)
    assert f"continuing after epoch {after} of 3" in caplog.messages
    bar = capsys.readouterr().out
    assert int(re.findall(r"(\d+)%", bar)[0]) >= 100 * 2 * after // 6
    assert steps == [epoch for epoch in range(after, 3) for _ in range(2)]
    assert validations == list(range(after + 1, 4))  # and epoch 0 is not looked at again
    expected = undisturbed(case)
    assert case != "ruin" or expected.best_epoch == 0
    assert digests_of(result.folder) == digests_of(expected.folder)
    assert asdict(result) == asdict(replace(expected, folder=result.folder))
    assert [path.name for path in resume.iterdir()] == [CHECKPOINT]


@pytest.mark.slow
def test_killed_again_and_again_with_the_best_epoch_before_between_and_after(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second epoch is validated. So short a training finds nothing, so it is given a mAP that rises and falls."""
    for hook in (WeightsHook, ProgressHook):
        measured = hook.after_val_epoch

        def after_val_epoch(self: Any, runner: Any, metrics: Any = None, measured: Any = measured) -> None:
            value = {2: 0.1, 4: 0.7, 6: 0.3, 8: 0.9, 10: 0.2}[runner.epoch]
            measured(self, runner, {"mAP": value, "mAP50": value + 0.05})

        monkeypatch.setattr(hook, "after_val_epoch", after_val_epoch)
    options = replace(OPTIONS, epochs=10)
    expected = run(options)
    assert [record.epoch for record in expected.history if record.mAP is not None] == [2, 4, 6, 8, 10]
    assert expected.best_epoch == 8
    for epoch in (1, 3, 6, 9):  # with no best epoch, with 2, with 4 and with 8
        run_until(epoch, run, options, resume=tmp_path / "resume")
        assert torch.load(tmp_path / "resume" / CHECKPOINT, weights_only=True)["epoch"] == epoch
    assert digests_of(run(options, resume=tmp_path / "resume").folder) == digests_of(expected.folder)


@pytest.mark.slow
def test_a_process_with_workers_is_killed_while_it_writes_the_checkpoint(
    undisturbed: Callable[[str], TrainingResult],
    run: Run,
    datasets: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resume = tmp_path / "resume"
    (tmp_path / "killed").mkdir()
    arguments = [*map(str, (*datasets, tmp_path / "killed", resume))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(list(resume.iterdir())) == 2
    steps = epochs_of(monkeypatch)
    result = run(CASES["workers"], resume=resume)
    assert steps == [1, 1, 2, 2]
    assert digests_of(result.folder) == digests_of(undisturbed("workers").folder)
    assert [path.name for path in resume.iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize(
    ("epochs", "history"),
    [
        pytest.param(3, [1], id="which was validated"),
        pytest.param(10, [1, 2], id="which was not, so another is trained and validated", marks=pytest.mark.slow),
    ],
)
def test_the_time_is_up_with_the_epoch_before_the_kill(
    epochs: int, history: list[int], run: Run, tmp_path: Path
) -> None:
    """Of 10 epochs every second is validated, and without that there would be no best weights at all."""
    options, resume = replace(OPTIONS, epochs=epochs, max_minutes=60), tmp_path / "resume"
    run_until(1, run, options, resume=resume)
    rewrite(seconds=lambda old: 3600.0)(resume / CHECKPOINT)
    result = run(options, resume=resume)
    assert [record.epoch for record in result.history] == history
    assert result.metrics()["ended_early"] == "the time limit of 60 minutes"
    assert result.best_epoch == history[-1]


def test_a_checkpoint_of_the_last_epoch_is_a_result_already(
    kept: Path,
    undisturbed: Callable[[str], TrainingResult],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resume = Path(shutil.copytree(kept, tmp_path / "resume"))
    before = (resume / CHECKPOINT).read_bytes()
    steps = epochs_of(monkeypatch)
    result = run(OPTIONS, resume=resume)
    assert steps == []
    assert digests_of(result.folder) == digests_of(undisturbed("scratch").folder)
    assert (resume / CHECKPOINT).read_bytes() == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rewrite(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        for name, value in changes.items():
            content[name] = value(content[name])
        torch.save(content, path)

    return change


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda path: path.write_bytes(b""), "cannot be read", id="empty"),
        pytest.param(cut, "cannot be read", id="cut"),
        pytest.param(lambda path: torch.save([1, 2], path), "other content", id="a list"),
        pytest.param(lambda path: torch.save({"state_dict": {}}, path), "other content", id="a checkpoint of weights"),
        pytest.param(lambda path: torch.save({"e": KilledError()}, path), "cannot be read", id="code"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), "cannot be read", id="a folder"),
        pytest.param(rewrite(facts=lambda old: {**old, "threads": 99}), "another threads", id="another machine"),
        pytest.param(rewrite(facts=lambda old: {}), "another seed, threads", id="no facts"),
    ],
)
def test_what_cannot_be_continued_is_ignored_with_a_warning(
    spoil: Callable[[Path], object], says: str, kept: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so, and nothing of the run is touched: training starts at its first epoch."""
    path = Path(shutil.copytree(kept, tmp_path / "resume")) / CHECKPOINT
    spoil(path)
    hook = ResumeHook(path.parent, {"seed": 3, "threads": torch.get_num_threads()}, *[SimpleNamespace()] * 3)
    hook.before_train(SimpleNamespace())
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{path} is ignored" in line
    assert says in line
    assert "\n" not in line


def test_a_full_disk_costs_only_the_checkpoint(  # and the same seed gives the same bytes
    undisturbed: Callable[[str], TrainingResult],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert digests_of(run(OPTIONS, resume=tmp_path / "resume").folder) == digests_of(undisturbed("scratch").folder)
    assert [line for line in caplog.messages if "No space left" in line and "could not be kept" in line]
    assert list((tmp_path / "resume").iterdir()) == []


def test_a_failed_write_leaves_the_last_state(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there yet" / "state.pth"
    state = {"a": torch.arange(3), "b": [1, 2.5, "c", None, True]}
    write_state(path, state)
    with pytest.raises(Exception, match="pickle"):
        write_state(path, {"a": lambda: 1})
    found = read_state(path)
    assert (found["a"].tolist(), found["b"]) == ([0, 1, 2], state["b"])
    assert list(path.parent.iterdir()) == [path]


def test_any_damage_is_found_or_harmless(tmp_path: Path) -> None:
    """A byte changed anywhere: torch alone would take most of these for weights."""
    path, expected = tmp_path / "state.pth", {"a": torch.arange(300), "b": 0.25}
    write_state(path, expected)
    whole = path.read_bytes()
    chance = random.Random(0)
    found = 0
    for _ in range(200):
        content = bytearray(whole)
        content[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        try:
            state = read_state(path)
        except DataError:
            found += 1
        else:
            assert torch.equal(state["a"], expected["a"])
            assert state["b"] == expected["b"]
    assert found > 100
