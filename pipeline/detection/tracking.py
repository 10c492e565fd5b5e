"""A training's figures for TensorBoard, and for MLflow where it is configured: by mmengine's own backends."""

# ruff: noqa: ARG002  # mmengine calls every hook with the same arguments

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from torch import Tensor

from pipeline.detection.hooks import measured
from pipeline.errors import UsageError

# MLflow's own; what it needs to log in comes from the environment as well, and nothing of it from a config
MLFLOW_SERVER, MLFLOW_EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"


def check_mlflow() -> None:
    """Refuse to train where MLflow is configured and has no client, before hours go untracked.

    Raises:
        UsageError: `MLFLOW_TRACKING_URI` is set, and the package is not installed.
    """
    if os.environ.get(MLFLOW_SERVER) and importlib.util.find_spec("mlflow") is None:
        raise UsageError(
            f"{MLFLOW_SERVER} is set, and MLflow's client is not installed",
            where="the environment",
            expected="the package mlflow-skinny",
            remedy=f"pip install mlflow-skinny, or unset {MLFLOW_SERVER}",
        )


def backends(logs: Path) -> list[dict[str, Any]]:
    """mmengine's settings for TensorBoard, and for MLflow where its environment names a server.

    Args:
        logs: Folder for TensorBoard's event files.
    """
    settings: list[dict[str, Any]] = [{"type": "TensorboardVisBackend", "save_dir": str(logs)}]
    server = os.environ.get(MLFLOW_SERVER)
    if server:
        experiment = os.environ.get(MLFLOW_EXPERIMENT, "detection")
        # parameters are limited in length there, and a whole config is not what one compares runs by
        wanted = {"exp_name": experiment, "tracking_uri": server, "tracked_config_keys": ["train_cfg", "randomness"]}
        settings.append({"type": "MLflowVisBackend", "save_dir": str(logs), **wanted})
    return settings


class TrackingHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Hands losses, rate and metrics to the backends.

    Args:
        interval: Steps between two points of the training curves.
    """

    priority = "LOW"

    def __init__(self, interval: int) -> None:
        self.interval = interval

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Add a point to the training curves."""
        step = runner.iter + 1
        if step % self.interval == 0 or step == runner.max_iters:
            points = {f"train/{name}": float(value) for name, value in (outputs or {}).items()}
            rate = max(float(group["lr"]) for group in runner.optim_wrapper.optimizer.param_groups)
            runner.visualizer.add_scalars({**points, "train/rate": rate}, step=step)

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Add a point to the curves of the eval set, at the same axis of steps."""
        points = {f"eval/{name}": value for name, value in measured(metrics).items()}
        runner.visualizer.add_scalars(points, step=runner.iter)
