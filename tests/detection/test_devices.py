"""The division of a training, and a training on two devices: real processes on the CPU."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import device_processes
import psutil
import pytest
import torch
from folders import digests_of
from ports import free_ports

from pipeline import errors
from pipeline.detection import devices, training
from pipeline.detection.checkpoints import read_checkpoint
from pipeline.detection.devices import Place, execution_config, run_processes
from pipeline.detection.families.yolox import FAMILY as YOLOX
from pipeline.detection.families.yolox.detector import PartwiseYOLOX
from pipeline.detection.hyperparameters import FROM_SCRATCH, MOSAIC_STEPS, Hyperparameters, TrainingOptions
from pipeline.detection.resuming import CHECKPOINT
from pipeline.detection.training import TrainingResult

ONE = TrainingOptions(detector="yolox-nano", image_size=64, epochs=3, batch_size=4)
OPTIONS = TrainingOptions(detector="yolox-nano", image_size=64, epochs=1, batch_size=4, seed=3, devices=2, workers=0)
Run = Callable[..., TrainingResult]

PARENT = """
import sys
from pathlib import Path
from pipeline.detection.hyperparameters import TrainingOptions
from pipeline.detection.training import train

weights, train_folder, eval_folder, folder, resume = map(Path, sys.argv[1:])
options = TrainingOptions("yolox-nano", 64, 10, 8, learning_rate=1e-3, freeze="stem", seed=3, devices=2, workers=0)
train(options, train_folder, eval_folder, folder, weights=weights, resume=resume)
"""

SLEEPERS = """
from pathlib import Path
import device_processes
from pipeline.detection import devices
from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.session import TrainingJob
from pipeline.serving.model_metadata import ModelMetadata

devices._work = device_processes.asleep
metadata, execution, here = ModelMetadata("nano", (64, 64), ("a",)), ExecutionConfig(1, devices=2), Path()
job = TrainingJob(TrainingOptions(), Hyperparameters(), metadata, execution, here, here, here, None, here)
devices.run_on_devices(job, print)
"""


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


@pytest.mark.parametrize(
    ("gpus", "change", "says"),
    [
        pytest.param(2, {"devices": 3}, "devices is 3, and there are 2 GPUs", id="more devices than there are"),
        pytest.param(4, {"devices": 3, "batch_size": 8}, r"multiple of 3[\s\S]*batch_size to 9", id="an odd batch"),
        pytest.param(4, {"devices": 4, "batch_size": 1}, "set batch_size to 4", id="less than one image each"),
        pytest.param(0, {"devices": 2, "batch_size": 3}, "batch of 3 cannot be shared", id="processes on the CPU"),
        pytest.param(0, {"devices": 64, "batch_size": 64}, "devices is 64, .* cores and no GPU", id="more than cores"),
        pytest.param(0, {"precision": "mixed"}, "mixed precision needs a GPU", id="mixed precision on the CPU"),
    ],
)
def test_a_division_that_the_machine_cannot_do(
    gpus: int, change: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, gpus)
    with pytest.raises(errors.UsageError, match=says):
        execution_config(replace(ONE, **change), FROM_SCRATCH, 13)


@pytest.mark.parametrize(
    ("gpus", "change", "expected"),
    [
        pytest.param(0, {}, {"devices": 1, "micro_batch": 4, "mixed": False, "cuda": False, "iterations": 4}, id="CPU"),
        pytest.param(0, {"devices": 2}, {"devices": 2, "micro_batch": 2, "iterations": 4}, id="two processes"),
        pytest.param(1, {}, {"devices": 1, "mixed": True, "cuda": True}, id="one GPU"),
        pytest.param(1, {"precision": "full"}, {"mixed": False, "cuda": True}, id="full precision"),
        pytest.param(4, {"batch_size": 8}, {"devices": 4, "micro_batch": 2, "iterations": 2}, id="all GPUs"),
        pytest.param(4, {"devices": 2}, {"devices": 2, "micro_batch": 2}, id="two of them"),
        pytest.param(4, {"batch_size": 6}, {"devices": 3, "micro_batch": 2}, id="as many as share a batch evenly"),
        pytest.param(1, {"micro_batch": 3}, {"micro_batch": 3}, id="small parts"),
        pytest.param(2, {"micro_batch": 3}, {"micro_batch": 2}, id="parts larger than a device's share"),
    ],
)
def test_a_division(gpus: int, change: dict[str, Any], expected: dict[str, Any], monkeypatch: Any) -> None:
    pretend(monkeypatch, gpus)
    execution = execution_config(replace(ONE, **change), FROM_SCRATCH, 13)
    assert {name: getattr(execution, name) for name in expected} == expected


@dataclass(frozen=True)
class Spread:
    """Machines that are only counted."""

    count: int = 2
    cpus: float = 1
    gpus: float = 0
    memory_gb: float = 0

    def inputs(self) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.mark.parametrize(
    ("machines", "change", "expected"),
    [
        pytest.param(Spread(), {}, {"devices": 2, "micro_batch": 2, "cuda": False, "workers": 0}, id="a process each"),
        pytest.param(Spread(cpus=16), {"devices": 4}, {"devices": 4, "workers": 7}, id="cores are shared"),
        pytest.param(Spread(3, 64, 8), {"batch_size": 96}, {"devices": 24, "cuda": True, "workers": 7}, id="all GPUs"),
        pytest.param(Spread(3, 64, 8), {"batch_size": 18}, {"devices": 18}, id="GPUs that share a batch evenly"),
        pytest.param(Spread(gpus=1), {"precision": "mixed"}, {"mixed": True}, id="GPUs that this machine lacks"),
    ],
)
def test_a_division_among_machines(
    machines: Spread, change: dict[str, Any], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they have counts, not what this one has."""
    pretend(monkeypatch, 0)
    execution = execution_config(replace(ONE, **change), FROM_SCRATCH, 13, machines)
    assert {name: getattr(execution, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("machines", "change", "says"),
    [
        pytest.param(Spread(cpus=4), {"devices": 3}, "3 devices cannot be divided among 2 machines", id="an odd one"),
        pytest.param(Spread(), {"devices": 4}, "devices is 4, and there are 2 cores and no GPU", id="too many"),
        pytest.param(Spread(3), {}, "batch of 4 cannot be shared out evenly to 3", id="a batch for other machines"),
    ],
)
def test_a_division_that_the_machines_cannot_do(machines: Spread, change: dict[str, Any], says: str) -> None:
    with pytest.raises(errors.UsageError, match=says):
        execution_config(replace(ONE, **change), FROM_SCRATCH, 13, machines)


@pytest.mark.parametrize(
    ("augmentation", "epochs", "hyperparameters", "mosaic"),
    [
        pytest.param("auto", MOSAIC_STEPS // 4, FROM_SCRATCH, True, id="long, from scratch"),
        pytest.param("auto", MOSAIC_STEPS // 4 - 1, FROM_SCRATCH, False, id="short, from scratch"),
        pytest.param("auto", MOSAIC_STEPS, Hyperparameters(), False, id="long, pretrained"),
        pytest.param("mosaic", 1, Hyperparameters(), True, id="asked for"),
        pytest.param("flip", MOSAIC_STEPS, FROM_SCRATCH, False, id="refused"),
    ],
)
def test_when_images_are_mixed(augmentation: str, epochs: int, hyperparameters: Hyperparameters, mosaic: bool) -> None:
    options = replace(ONE, augmentation=augmentation, epochs=epochs)
    assert execution_config(options, hyperparameters, 13).mosaic == mosaic


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the processes, too: what they compute depends on it, to the last bit."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))


@pytest.mark.slow
def test_a_step_of_two_processes_is_the_step_of_one(
    make_dataset: Any,
    run: Run,
    tmp_path: Path,
    skilled: Path,
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
    monkeypatch.setattr(devices, "_work", device_processes.still)
    monkeypatch.setattr(PartwiseYOLOX, "train", PartwiseYOLOX.train)  # puts it back
    device_processes.keep_statistics()
    results = {}
    for name, count, part in (("one", 1, 0), ("two", 2, 0), ("two in parts", 2, 1)):
        options = replace(OPTIONS, devices=count, micro_batch=part)
        capsys.readouterr()
        results[name] = run(options, *folders, weights=skilled, hyperparameters=hyperparameters)
        assert "100% epoch 1/1 loss" in capsys.readouterr().out
        learned = read_checkpoint(results[name].folder / "last.pth", YOLOX).learned
        assert learned
        assert len(learned) == 7 + 13 + 5  # images of these sets and of the weights
    one, result = results["one"], results["two"]
    start, expected, found = (
        read_checkpoint(path, YOLOX).state for path in (skilled, one.folder / "last.pth", result.folder / "last.pth")
    )
    moved = [n for n, v in start.items() if n.endswith("weight") and float((expected[n] - v).abs().max()) > 1e-5]
    assert len(moved) > 100
    for name, value in expected.items():
        step = (value - start[name]).abs().max().item() if value.is_floating_point() else 0.0
        torch.testing.assert_close(found[name], value, atol=1e-3 * step + 1e-6, rtol=1e-5, msg=name)
    assert [record.epoch for record in result.history] == [0, 1]
    assert result.history[1].loss == pytest.approx(one.history[1].loss, rel=1e-4)
    assert result.history[0] == one.history[0]
    assert result.history[1].mAP == pytest.approx(one.history[1].mAP, abs=0.02)
    assert {path.name for path in result.folder.iterdir()} == {path.name for path in one.folder.iterdir()}
    assert results["two in parts"].micro_batch == 1


def end_with_children(process: subprocess.Popen[bytes], end: signal.Signals) -> None:
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(started) >= 2
    process.send_signal(end)
    process.wait(15)
    _, alive = psutil.wait_procs(started, timeout=15)
    for each in alive:
        each.kill()
    assert alive == []


def kept_epoch(resume: Path) -> int:
    """Of the checkpoint, which is replaced in one go."""
    path = resume / CHECKPOINT
    return int(torch.load(path, weights_only=True)["epoch"]) if path.is_file() else 0


@pytest.mark.slow
def test_a_killed_training_leaves_no_process_and_goes_on_to_the_same_bytes(
    run: Run, datasets: tuple[Path, Path], skilled: Path, tmp_path: Path
) -> None:
    """Every second of ten epochs is validated. It is killed in one after an epoch that was not."""
    options = replace(OPTIONS, epochs=10, batch_size=8, learning_rate=1e-3, freeze="stem")
    expected = run(options, weights=skilled)
    resume = tmp_path / "resume"
    (tmp_path / "killed").mkdir()
    arguments = [str(skilled), *map(str, datasets), str(tmp_path / "killed"), str(resume)]
    process = subprocess.Popen([sys.executable, "-c", PARENT, *arguments], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while kept_epoch(resume) not in (3, 5, 7):
        assert time.monotonic() < end, "it did not come to that epoch"
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    end_with_children(process, signal.SIGKILL)
    assert kept_epoch(resume) in range(3, 10)
    result = run(options, weights=skilled, resume=resume)
    assert asdict(result) == asdict(replace(expected, folder=result.folder))
    assert digests_of(result.folder) == digests_of(expected.folder)


@pytest.mark.parametrize(
    "end",
    [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGINT, id="interrupted", marks=pytest.mark.slow)],
)
def test_processes_that_say_nothing_end_with_their_parent(end: signal.Signals, tmp_path: Path) -> None:
    """Though SIGINT is ignored, as in a script's background job."""
    support = str(Path(device_processes.__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([support, *sys.path[:1]]), "PLACE": str(tmp_path)}
    kind = signal.SIG_IGN if end == signal.SIGKILL else signal.default_int_handler
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPERS],
        env=environment,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, kind),
    )
    limit = time.monotonic() + 60
    while not all((tmp_path / rank).exists() for rank in "01"):
        assert time.monotonic() < limit, "they did not start"
        time.sleep(0.05)
    end_with_children(process, end)
    for rank in "01":  # where one evaluates, the others wait
        assert (tmp_path / rank).read_text() == str(devices.LONGEST_WAIT)


OTHER = """
import pickle, sys
from pipeline.detection.devices import Place, run_processes
if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        job = pickle.load(file)
    assert run_processes(job, print, Place(1, 2, sys.argv[2])) == []
"""


@pytest.mark.slow
def test_two_machines_have_the_bytes_of_one_and_the_checkpoint_of_the_first(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The machines are two processes, of which the second has no folder to resume from."""

    def spread(job: Any, report: Any, machines: Spread) -> Any:
        address = f"tcp://127.0.0.1:{free_ports(1)[0]}"
        (tmp_path / "other.py").write_text(OTHER)
        (tmp_path / "job").write_bytes(pickle.dumps(replace(job, resume=tmp_path / "none", tables=None)))
        other = subprocess.Popen([sys.executable, tmp_path / "other.py", tmp_path / "job", address])
        [result] = run_processes(job, report, Place(0, machines.count, address))
        assert other.wait(60) == 0
        return result

    monkeypatch.setattr(training, "run_on_machines", spread)
    expected = digests_of(run(OPTIONS, resume=tmp_path / "on one").folder)
    assert digests_of(run(OPTIONS, machines=Spread(), resume=tmp_path / "on two").folder) == expected
    caplog.clear()
    assert digests_of(run(OPTIONS, machines=Spread(), resume=tmp_path / "on one").folder) == expected
    assert "continuing after epoch 1 of 1" in caplog.messages


def test_the_error_of_a_process_is_the_users(run: Run, datasets: tuple[Path, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(datasets[0], tmp_path / "train"))
    (folder / "images" / "003.png").write_bytes((folder / "images" / "003.png").read_bytes()[:100])
    with pytest.raises(errors.DataError) as caught:
        run(OPTIONS, folder, datasets[1])
    assert "003.png" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.slow
def test_where_memory_of_one_process_runs_out_all_go_on_in_smaller_parts(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "_work", device_processes.crowded)
    result = run(OPTIONS)
    assert [line for line in caplog.messages if "out of memory with 2 images at once: continuing with 1" in line]
    assert (result.micro_batch, [record.epoch for record in result.history]) == (1, [1])


@pytest.mark.parametrize(
    ("work", "says"),
    [
        pytest.param(device_processes.broken, "TypeError: the very words", id="a mistake", marks=pytest.mark.slow),
        pytest.param(device_processes.gone, "ended before its training did[\\s\\S]*devices=1", id="no result"),
    ],
)
def test_a_failed_process_is_shown(work: Any, says: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_work", work)
    with pytest.raises(errors.StepError, match=says):
        run(OPTIONS)
