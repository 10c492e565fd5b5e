"""A training as TensorBoard and MLflow see it: through their own readers."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.detection.hyperparameters import TrainingOptions
from pipeline.detection.tracking import MLFLOW_EXPERIMENT, MLFLOW_SERVER, TrackingHook, backends, check_mlflow, close
from pipeline.detection.training import TrainingResult, train
from pipeline.errors import StepError, UsageError

OPTIONS = TrainingOptions(variant="nano", image_size=64, epochs=3, batch_size=4, seed=3)  # 4 steps an epoch
RESULT = ("best.pth", "last.pth", "history.json", "config.py", "model.json")


@dataclass(frozen=True)
class Tracked:
    """A training, its TensorBoard logs, and its run as MLflow's client reads it."""

    result: TrainingResult
    logs: Path
    store: Path
    run: Any
    client: Any


def use_mlflow(patch: pytest.MonkeyPatch, store: Path) -> Any:
    """A client of a store in a folder, which current MLflow must be asked for."""
    client = pytest.importorskip("mlflow")
    patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    patch.setenv(MLFLOW_SERVER, f"file:{store}")
    patch.setenv(MLFLOW_EXPERIMENT, "discs and blocks")
    return client


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    client = use_mlflow(monkeypatch, tmp_path / "mlruns")
    yield client
    client.end_run()
    client.set_tracking_uri(None)


@pytest.fixture(scope="module")
def untracked(datasets: tuple[Path, Path], skilled: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """The same training as `tracked`, with an MLflow server in the environment, and without logs."""
    folder = tmp_path_factory.mktemp("untracked")
    with pytest.MonkeyPatch.context() as patch:
        use_mlflow(patch, folder / "mlruns")
        result = train(OPTIONS, *datasets, new(folder / "out"), weights=skilled)
    assert not (folder / "mlruns").exists()
    return result


@pytest.fixture(scope="module")
def tracked(datasets: tuple[Path, Path], skilled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracked]:
    folder = tmp_path_factory.mktemp("tracked")
    logs, store = folder / "some" / "logs", folder / "planted-secret"
    with pytest.MonkeyPatch.context() as patch:
        mlflow = use_mlflow(patch, store)
        result = train(OPTIONS, *datasets, new(folder / "out"), weights=skilled, logs=logs)
        [run] = runs(mlflow)
        yield Tracked(result, logs, store, run, mlflow.MlflowClient())
        mlflow.end_run()
        mlflow.set_tracking_uri(None)


def curves(logs: Path) -> dict[str, list[tuple[int, float]]]:
    """Points by tag."""
    reader = EventAccumulator(str(logs)).Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def runs(mlflow: Any) -> list[Any]:
    client = mlflow.MlflowClient()
    [experiment] = [each for each in client.search_experiments() if each.name == "discs and blocks"]
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def test_tensorboard_shows_losses_rate_and_metrics(tracked: Tracked) -> None:
    found, history = curves(tracked.logs), tracked.result.history
    assert {"train/loss", "train/loss_cls", "train/loss_bbox", "train/loss_obj", "train/rate"} < found.keys()
    for tag in ("train/loss", "train/rate"):
        assert [step for step, _ in found[tag]] == list(range(1, 13))
    for tag, name in (("eval/mAP", "mAP"), ("eval/mAP50", "mAP50")):
        expected = [(4 * record.epoch, pytest.approx(getattr(record, name))) for record in history]
        assert found[tag] == expected  # epoch 0 among them
    means = [sum(value for _, value in found["train/loss"][4 * e : 4 * e + 4]) / 4 for e in range(3)]
    assert means == [pytest.approx(record.loss["loss"], rel=1e-5) for record in history[1:]]


def test_mlflow_has_the_curves_where_the_environment_names_a_server(tracked: Tracked) -> None:
    run, history = tracked.run, tracked.client.get_metric_history
    assert run.info.status == "FINISHED"
    assert run.data.params["train_cfg.max_epochs"] == "3"
    points = [(point.step, point.value) for point in history(run.info.run_id, "eval/mAP")]
    assert points == [(4 * record.epoch, record.mAP) for record in tracked.result.history]
    assert [point.step for point in history(run.info.run_id, "train/loss")] == list(range(1, 13))


def test_the_servers_url_is_written_nowhere(tracked: Tracked) -> None:
    """It may hold a password, and mmengine writes its config down in several places."""
    folders = (tracked.logs, tracked.result.folder)
    written = [path for folder in folders for path in folder.rglob("*")] + list(tracked.store.rglob("config.py"))
    assert len(written) > 8
    assert not [path for path in written if path.is_file() and b"planted-secret" in path.read_bytes()]


def test_tracking_leaves_no_trace_in_the_result(tracked: Tracked, untracked: TrainingResult) -> None:
    result = tracked.result
    assert result.history == untracked.history
    names = [sorted(str(p.relative_to(r.folder)) for p in r.folder.rglob("*")) for r in (result, untracked)]
    assert names[0] == names[1]
    for name in RESULT:
        assert (result.folder / name).read_bytes() == (untracked.folder / name).read_bytes(), name


class Visualizer:
    """Keeps what is added; fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.added: list[tuple[int, dict[str, float]]] = []

    def add_scalars(self, points: dict[str, float], step: int) -> None:
        if self.fails == "add_scalars":
            raise OSError("no space left on device\nand more")
        self.added.append((step, points))

    def close(self) -> None:
        raise OSError("no space left on device\nand more")


def steps(hook: TrackingHook, visualizer: Visualizer, count: int) -> None:
    groups = [{"lr": 0.5}]
    wrapper = SimpleNamespace(optimizer=SimpleNamespace(param_groups=groups))
    runner = SimpleNamespace(iter=0, max_iters=count, visualizer=visualizer, optim_wrapper=wrapper)
    for runner.iter in range(count):
        hook.after_train_iter(runner, runner.iter, outputs={"loss": torch.tensor(1.0)})


def test_a_long_training_has_no_more_points_than_a_curve_needs() -> None:
    visualizer = Visualizer()
    steps(TrackingHook(5), visualizer, 12)
    point = {"train/loss": 1.0, "train/rate": 0.5}
    assert visualizer.added == [(5, point), (10, point), (12, point)]


@pytest.mark.parametrize("method", ["add_scalars", "close"])
def test_a_training_is_not_lost_for_its_curves(method: str, caplog: pytest.LogCaptureFixture) -> None:
    """As when the server goes away, or the disk with the logs is full: one line says so."""
    visualizer = Visualizer(method)
    if method == "close":
        close(visualizer)
    else:
        steps(TrackingHook(1), visualizer, 3)
    [line] = [record.message for record in caplog.records]
    assert line.endswith("no space left on device")


def test_a_training_after_one_that_failed_is_a_run_of_its_own(
    mlflow: Any, datasets: tuple[Path, Path], tmp_path: Path
) -> None:
    """In one process, as in a notebook; MLflow itself would go on with the run, and refuse other parameters."""
    with pytest.raises(StepError, match="diverged"):
        train(replace(OPTIONS, learning_rate=1e30), *datasets, new(tmp_path / "a"), logs=tmp_path / "logs" / "a")
    train(replace(OPTIONS, epochs=1), *datasets, new(tmp_path / "b"), logs=tmp_path / "logs" / "b")
    assert [run.data.params["train_cfg.max_epochs"] for run in runs(mlflow)] == ["3", "1"]
    assert mlflow.active_run() is None


def test_a_server_without_a_client_is_refused_before_training(
    datasets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MLFLOW_SERVER, "http://localhost:1")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "mlflow" else find(name, *rest)
    )
    with pytest.raises(UsageError, match=r"client is not installed[\s\S]*pip install mlflow-skinny"):
        train(OPTIONS, *datasets, tmp_path, logs=tmp_path / "logs")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_configured_is_not_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(MLFLOW_SERVER, raising=False)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    check_mlflow()
    assert [each["type"] for each in backends(str(tmp_path))] == ["TensorboardVisBackend"]
    assert backends("") == []


def test_mlflows_experiment_has_a_name_without_being_given_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(MLFLOW_SERVER, "http://localhost:5000")
    monkeypatch.delenv(MLFLOW_EXPERIMENT, raising=False)
    assert backends(str(tmp_path))[1]["exp_name"] == "detection"


def test_a_server_that_does_not_answer_is_told_before_training(
    datasets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv(MLFLOW_SERVER, "http://user:planted-secret@127.0.0.1:1")
    with pytest.raises(UsageError, match=r"does not answer[\s\S]*unset MLFLOW_TRACKING_URI") as caught:
        train(OPTIONS, *datasets, tmp_path, logs=tmp_path / "logs")
    assert "planted-secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
