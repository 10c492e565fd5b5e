"""Training on two devices: real processes on the CPU, started by the real torchrun."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from pipeline import errors
from pipeline.detection import devices, distributed
from pipeline.detection.checkpoints import read_checkpoint
from pipeline.detection.distributed import _result
from pipeline.detection.families.yolox.detector import PartwiseYOLOX
from pipeline.detection.hooks import EpochRecord
from pipeline.detection.hyperparameters import Hyperparameters, TrainingOptions
from pipeline.detection.resuming import CHECKPOINT
from pipeline.detection.session import SessionResult
from pipeline.detection.training import train

OPTIONS = TrainingOptions(variant="nano", image_size=64, epochs=1, batch_size=4, seed=3, devices=2, workers=0)
RESULT = ("best.pth", "last.pth", "history.json", "config.py", "model.json", "learned_images.npz")
OUTCOME = SessionResult((EpochRecord(1, {"loss": 2.0}, 1e-3, 0.1, 0.2),), 1, "", 0)

CHANGED = """
import sys
import torch
from pipeline.detection import distributed
from pipeline.detection.families.yolox.detector import PartwiseYOLOX

{change}

if __name__ == "__main__":
    distributed.main()
"""
STILL = """
train = PartwiseYOLOX.train

def still(self, mode=True):
    train(self, mode)
    for module in self.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    return self

PartwiseYOLOX.train = still
"""
CROWDED = """
loss = PartwiseYOLOX.loss

def crowded(self, batch_inputs, *arguments, **named):
    if len(batch_inputs) > 1 and distributed.rank() == 1:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return loss(self, batch_inputs, *arguments, **named)

PartwiseYOLOX.loss = crowded
"""
BROKEN = """
def broken(self, *arguments, **named):
    raise TypeError("the very words of the mistake")

PartwiseYOLOX.loss = broken
"""
PARENT = """
import sys
from pathlib import Path
from pipeline.detection.hyperparameters import TrainingOptions
from pipeline.detection.training import train

weights, train_folder, eval_folder, folder, resume = map(Path, sys.argv[1:])
options = TrainingOptions("nano", 64, 10, 8, learning_rate=1e-3, freeze="stem", seed=3, devices=2, workers=0)
train(options, train_folder, eval_folder, folder, weights=weights, resume=resume)
"""

SLEEPERS = """
import sys
from pathlib import Path
from types import SimpleNamespace
from pipeline.detection import distributed

from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.session import TrainingJob

distributed.__spec__ = SimpleNamespace(name="sleeper")
job = TrainingJob(TrainingOptions(), Hyperparameters(), ("a",), "", "", "", "", "", ExecutionConfig(1, devices=2))
distributed.run_on_devices(job, print)
"""
SLEEPER = """
import os, pathlib, time
pathlib.Path(os.environ["PLACE"], os.environ["RANK"]).write_text("")
time.sleep(100)
"""


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the processes, too: what they compute depends on it, to the last bit."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the processes run a changed detector."""

    def change(source: str) -> None:
        folder = new(tmp_path / "changed")
        (folder / "changed_distributed.py").write_text(CHANGED.format(change=source))
        monkeypatch.setattr(distributed, "__spec__", SimpleNamespace(name="changed_distributed"))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path[:1]]))

    return change


@pytest.mark.slow
def test_a_step_of_two_processes_is_the_step_of_one(
    make_dataset: Callable[..., Path],
    tmp_path: Path,
    skilled: Path,
    changed: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of 2 x 2 images, of 4, and of 2 x 2 in parts of 1, with batch norms that keep their statistics.

    Which image a process gets, the objects by which losses are divided, and the mean of gradients: all of it counts.
    """
    folders = make_dataset(tmp_path / "train", 4, 5), make_dataset(tmp_path / "eval", 3, 6)
    hyperparameters = Hyperparameters(
        optimizer="SGD", learning_rate=0.01, warm_up=0.0, averaged_steps=0.0, balanced=False, max_gradient=1e9
    )
    changed(STILL)
    exec(STILL, {"torch": torch, "PartwiseYOLOX": Restored(PartwiseYOLOX, monkeypatch)})
    results = {}
    for name, count, part in (("one", 1, 0), ("two", 2, 0), ("two in parts", 2, 1)):
        options = replace(OPTIONS, devices=count, micro_batch=part)
        capsys.readouterr()
        results[name] = train(options, *folders, new(tmp_path / name), weights=skilled, hyperparameters=hyperparameters)
        assert "100% epoch 1/1 loss" in capsys.readouterr().err  # who waits sees it, however many processes
    records = {name: read_checkpoint(tmp_path / name / "last.pth").learned for name in results}
    assert all(learned and len(learned) == 7 + 13 + 5 for learned in records.values())  # of these and of the weights
    one = results["one"]
    start, expected = (read_checkpoint(path).state for path in (skilled, tmp_path / "one" / "last.pth"))
    moved = [n for n, v in start.items() if n.endswith("weight") and float((expected[n] - v).abs().max()) > 1e-5]
    assert len(moved) > 100
    result, found = results["two"], read_checkpoint(tmp_path / "two" / "last.pth").state
    for name, value in expected.items():
        step = (value - start[name]).abs().max().item() if value.is_floating_point() else 0.0
        torch.testing.assert_close(found[name], value, atol=1e-3 * step + 1e-6, rtol=1e-5, msg=name)
    assert [record.epoch for record in result.history] == [0, 1]
    assert result.history[1].loss == pytest.approx(one.history[1].loss, rel=1e-4)
    assert result.history[0] == one.history[0]
    assert result.history[1].mAP == pytest.approx(one.history[1].mAP, abs=0.02)
    assert {path.name for path in result.folder.iterdir()} == {path.name for path in one.folder.iterdir()}
    assert results["two in parts"].micro_batch == 1


class Restored:
    """A class whose attributes are put back after the test."""

    def __init__(self, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
        self.__dict__.update(kind=kind, monkeypatch=monkeypatch, train=kind.train)

    def __setattr__(self, name: str, value: Any) -> None:
        self.monkeypatch.setattr(self.kind, name, value)


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.slow
def test_a_killed_training_leaves_no_process_and_goes_on_to_the_same_bytes(
    datasets: tuple[Path, Path], skilled: Path, tmp_path: Path
) -> None:
    """Every second of ten epochs is validated. It is killed in one after an epoch that was not."""
    options = replace(OPTIONS, epochs=10, batch_size=8, learning_rate=1e-3, freeze="stem")
    expected = train(options, *datasets, new(tmp_path / "undisturbed"), weights=skilled)
    resume = tmp_path / "resume"
    arguments = [str(skilled), *map(str, datasets), str(new(tmp_path / "killed")), str(resume)]
    process = subprocess.Popen([sys.executable, "-c", PARENT, *arguments], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while kept_epoch(resume) not in (3, 5, 7):
        assert time.monotonic() < end, "it did not come to that epoch"
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    started = descendants(process)
    assert len(started) >= 3  # torchrun, and a process for each device
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(started, timeout=15)
    assert alive == []
    epoch = kept_epoch(resume)
    assert epoch in range(3, 10)
    result = train(options, *datasets, new(tmp_path / "out"), weights=skilled, resume=resume)
    assert asdict(result) == asdict(replace(expected, folder=tmp_path / "out"))
    for name in RESULT:
        assert (tmp_path / "out" / name).read_bytes() == (expected.folder / name).read_bytes(), name


@pytest.mark.parametrize(
    "end",
    [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGINT, id="interrupted", marks=pytest.mark.slow)],
)
def test_processes_that_say_nothing_end_with_their_parent(end: signal.Signals, tmp_path: Path) -> None:
    """As in a long validation: none of them notices that nobody listens any more."""
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path[:1]]), "PLACE": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPERS],
        env=environment,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    limit = time.monotonic() + 60
    while not all((tmp_path / rank).exists() for rank in "01"):
        assert time.monotonic() < limit, "they did not start"
        time.sleep(0.05)
    started = descendants(process)
    assert len(started) == 3
    process.send_signal(end)
    process.wait(15)
    _, alive = psutil.wait_procs(started, timeout=15)
    for each in alive:
        each.kill()
    assert alive == []


def kept_epoch(resume: Path) -> int:
    """Of the checkpoint, which is replaced in one go."""
    if not (resume / CHECKPOINT).is_file():
        return 0
    return int(torch.load(resume / CHECKPOINT, weights_only=True)["epoch"])


def test_the_error_of_a_process_is_the_users(datasets: tuple[Path, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(datasets[0], tmp_path / "train"))
    (folder / "images" / "003.png").write_bytes(b"<html>404</html>")
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(errors.DataError) as caught:
        train(OPTIONS, folder, datasets[1], new(tmp_path / "out"))
    assert str(caught.value).splitlines()[0] == "an image cannot be decoded"
    assert "003.png" in str(caught.value)
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.slow
def test_where_memory_of_one_process_runs_out_all_go_on_in_smaller_parts(
    datasets: tuple[Path, Path], tmp_path: Path, changed: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    changed(CROWDED)
    result = train(OPTIONS, *datasets, new(tmp_path / "out"))
    assert [line for line in caplog.messages if "out of memory with 2 images at once: continuing with 1" in line]
    assert (result.micro_batch, [record.epoch for record in result.history]) == (1, [1])


@pytest.mark.slow
def test_a_mistake_in_a_process_is_shown(
    datasets: tuple[Path, Path], tmp_path: Path, changed: Callable[[str], None]
) -> None:
    """Its words come before the long report that torchrun makes of it."""
    changed(BROKEN)
    with pytest.raises(errors.StepError, match=r"exit code 1[\s\S]*TypeError: the very words of the mistake"):
        train(OPTIONS, *datasets, new(tmp_path / "out"))


def test_a_batch_that_two_cannot_share_is_refused(datasets: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="batch of 5 cannot be shared out evenly to 2 devices"):
        train(replace(OPTIONS, batch_size=5), *datasets, tmp_path)
    assert list(tmp_path.iterdir()) == []


def told(place: Path, **errors_of: tuple[str, str]) -> Path:
    for name, (kind, message) in errors_of.items():
        (place / f"error.{name[1:]}.json").write_text(json.dumps({"kind": kind, "message": message}))
    return place


@pytest.mark.parametrize(
    ("files", "kind", "says"),
    [
        pytest.param({"r0": ("DataError", "a bad image")}, errors.DataError, "a bad image", id="data"),
        pytest.param({"r1": ("StepError", "diverged\n  do: x")}, errors.StepError, r"diverged\n  do: x", id="step"),
        pytest.param({"r1": ("OutOfMemory", "no room")}, torch.OutOfMemoryError, "no room", id="memory"),
        pytest.param(
            {"r0": ("DataError", "first"), "r1": ("DataError", "second")}, errors.DataError, "first", id="two of them"
        ),
        pytest.param({}, errors.StepError, r"exit code 1[\s\S]*last lines[\s\S]*devices=1", id="nothing was told"),
    ],
)
def test_how_a_failure_is_told(
    files: dict[str, tuple[str, str]], kind: type[Exception], says: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=says):
        _result(told(tmp_path, **files), 1, deque(["last words", "of torchrun"]))


def test_how_success_is_told(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(OUTCOME.to_json())
    assert _result(tmp_path, 0, deque()) == OUTCOME


@pytest.mark.parametrize(("code", "written"), [(1, True), (-9, True), (0, False)])
def test_success_needs_an_exit_code_and_an_outcome(code: int, written: bool, tmp_path: Path) -> None:
    if written:
        (tmp_path / "result.json").write_text(OUTCOME.to_json())
    with pytest.raises(errors.StepError, match=f"exit code {code}"):
        _result(tmp_path, code, deque())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param('{"step": 1, "steps": 2, "line": "epoch 1"}\n', [(1, 2, "epoch 1")], id="ours"),
        pytest.param("loading annotations into memory...\n", [], id="a library's"),
        pytest.param("5\n", [], id="a number"),
        pytest.param('{"step": 1}\n', [], id="something else in JSON"),
        pytest.param("\n", [], id="nothing"),
    ],
)
def test_what_a_process_prints(line: str, expected: list[tuple[int, int, str]]) -> None:
    seen: list[tuple[int, int, str]] = []
    distributed._receive(line, lambda *values: seen.append(values))
    assert seen == expected


@pytest.mark.parametrize(("own", "expected"), [(None, "cores"), ("7", "7")], ids=["not said", "said by the user"])
def test_cores_are_shared_out(own: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if own is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    cores = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert distributed._environment(2)["OMP_NUM_THREADS"] == (cores if expected == "cores" else expected)


def test_one_device_starts_no_process(
    datasets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "run_on_devices", lambda *_: pytest.fail("started"))
    train(replace(OPTIONS, devices=1), *datasets, tmp_path)
