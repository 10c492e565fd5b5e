"""Choose the devices of a training, and run it within their memory."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from math import ceil

import torch

from pipeline.detection.distributed import cores, run_on_devices
from pipeline.detection.hyperparameters import MOSAIC_STEPS, ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.session import SessionResult, TrainingJob, is_out_of_memory, run
from pipeline.errors import UsageError

log = logging.getLogger(__name__)


def execution_config(options: TrainingOptions, hyperparameters: Hyperparameters, images: int) -> ExecutionConfig:
    """Divide a training among the devices of this machine.

    Args:
        options: The user's options.
        hyperparameters: All that the user did not choose.
        images: Number of images of the train set.

    Raises:
        UsageError: The machine lacks the devices, or they cannot share a batch evenly.
    """
    cuda = torch.cuda.is_available()
    there = torch.cuda.device_count() if cuda else 1
    # by default as many GPUs as can share a batch evenly
    devices = options.devices or max(n for n in range(1, there + 1) if options.batch_size % n == 0)
    if cuda and devices > there:
        raise UsageError(f"there are {there} GPUs, and devices is {devices}", where="devices", expected=f"0 to {there}")
    if not cuda and devices > cores():
        raise UsageError(
            f"devices is {devices}, and there is no GPU and {cores()} cores",
            where="devices",
            expected=f"0 to {cores()}",
        )
    if options.precision == "mixed" and not cuda:
        remedy = 'set precision to "auto"'
        raise UsageError("mixed precision needs a GPU", where="precision", expected='"full" or "auto"', remedy=remedy)
    if options.batch_size % devices:
        nearest = max(1, round(options.batch_size / devices)) * devices
        raise UsageError(
            f"a batch of {options.batch_size} cannot be shared out evenly to {devices} devices",
            where="batch_size",
            expected=f"a multiple of {devices}",
            remedy=f"set batch_size to {nearest}",
        )
    iterations = ceil(images / options.batch_size)
    long = iterations * options.epochs >= MOSAIC_STEPS
    return ExecutionConfig(
        iterations=iterations,
        devices=devices,
        micro_batch=min(options.micro_batch or options.batch_size // devices, options.batch_size // devices),
        workers=_workers(options.workers),
        mixed=cuda and options.precision != "full",
        mosaic=options.augmentation == "mosaic" or (options.augmentation == "auto" and hyperparameters.mosaic and long),
        cuda=cuda,
    )


def run_within_memory(job: TrainingJob, report: Callable[[int, int, str], None]) -> tuple[SessionResult, TrainingJob]:
    """Run a session; whenever memory runs out, continue after the last epoch with half as many images at once."""
    while True:
        try:
            return (run if job.execution.devices == 1 else run_on_devices)(job, report), job
        except Exception as error:
            size = job.execution.micro_batch
            if size == 1 or not is_out_of_memory(error):
                raise
        half = ceil(size / 2)
        log.warning("out of memory with %d images at once: continuing with %d, and steps in parts", size, half)
        job = replace(job, execution=replace(job.execution, micro_batch=half))
        gc.collect()  # reference cycles hold tensors of the failed step
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _workers(asked: int) -> int:
    return asked if asked >= 0 else 0 if cores() <= 2 else min(4, cores() - 1)
