"""Losses and metrics for TensorBoard, and for MLflow where it is configured, by mmengine's own backends."""

# ruff: noqa: ARG002  # mmengine calls every hook with the same arguments

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from typing import Any

import requests
from mmengine.hooks import Hook
from mmengine.registry import VISBACKENDS
from mmengine.visualization.vis_backend import MLflowVisBackend
from torch import Tensor

from pipeline.detection.hooks import measured, peak_rate
from pipeline.errors import UsageError

log = logging.getLogger(__name__)

ANSWER_WITHIN = 10.0  # seconds
# MLflow's own variables; its credentials come from the environment too, never from a config
MLFLOW_SERVER, MLFLOW_EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"


def check_mlflow() -> None:
    """Refuse to train where MLflow is configured and cannot be reached.

    Raises:
        UsageError: `MLFLOW_TRACKING_URI` is set, and the package is not installed or the server does not answer.
    """
    if os.environ.get(MLFLOW_SERVER) and importlib.util.find_spec("mlflow") is None:
        raise UsageError(
            f"{MLFLOW_SERVER} is set, and MLflow's client is not installed",
            where="the environment",
            expected="the package mlflow-skinny",
            remedy=f"pip install mlflow-skinny, or unset {MLFLOW_SERVER}",
        )
    server = os.environ.get(MLFLOW_SERVER, "")
    if server.startswith(("http://", "https://")):
        try:
            requests.get(f"{server.rstrip('/')}/health", timeout=ANSWER_WITHIN)  # any answer will do
        except requests.RequestException as error:
            raise UsageError(
                f"the MLflow server does not answer: {type(error).__name__}",
                where=MLFLOW_SERVER,  # and not its value, which may hold a password
                expected=f"a server that answers within {ANSWER_WITHIN:.0f} s",
                remedy=f"start it, or unset {MLFLOW_SERVER}",
            ) from None


def backends(logs: str) -> list[dict[str, Any]]:
    """mmengine's configs of TensorBoard, and of MLflow where the environment names a server.

    Args:
        logs: Folder for TensorBoard's event files; empty for no tracking at all.
    """
    configs: list[dict[str, Any]] = [{"type": "TensorboardVisBackend", "save_dir": logs}] if logs else []
    if logs and os.environ.get(MLFLOW_SERVER):
        experiment = os.environ.get(MLFLOW_EXPERIMENT, "detection")
        # MLflow limits the length of parameters, and a whole config is of no use to compare runs
        wanted = {"exp_name": experiment, "tracked_config_keys": ["train_cfg", "randomness"]}
        configs.append({"type": "EnvironmentMLflowVisBackend", "save_dir": logs, **wanted})
    return configs


@VISBACKENDS.register_module()
class EnvironmentMLflowVisBackend(MLflowVisBackend):  # type: ignore[misc]  # mmengine is untyped
    """mmengine's backend without the server's URL in the config: it may hold a password, and the config is written."""

    def __init__(self, save_dir: str, **others: Any) -> None:
        super().__init__(save_dir, tracking_uri=os.environ[MLFLOW_SERVER], **others)


def close(visualizer: Any) -> None:
    """Flush the backends and end MLflow's run, so that the next training starts a new one.

    A failure is logged: it must not end a training.
    """
    try:
        visualizer.close()
    except Exception as error:  # noqa: BLE001, each client raises its own
        log.warning("tracking could not be finished: %s", _first_line(error))


class TrackingHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Passes losses, learning rate and metrics to the backends.

    Args:
        interval: Steps between two points of the training curves.
    """

    priority = "LOW"

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self._failed = False

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Add a point to the training curves."""
        step = runner.iter + 1
        if step % self.interval == 0 or step == runner.max_iters:
            points = {f"train/{name}": float(value) for name, value in (outputs or {}).items()}
            self._add(runner, {**points, "train/rate": peak_rate(runner)}, step)

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Add a point to the curves of the eval set, at the same axis of steps."""
        points = {f"eval/{name}": value for name, value in measured(metrics).items()}
        self._add(runner, points, runner.iter)

    def _add(self, runner: Any, points: dict[str, float], step: int) -> None:
        if self._failed:
            return
        try:
            runner.visualizer.add_scalars(points, step=step)
        except Exception as error:  # noqa: BLE001, each client raises its own errors, and none may end a training
            self._failed = True
            log.warning("training goes on without tracking: %s", _first_line(error))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
