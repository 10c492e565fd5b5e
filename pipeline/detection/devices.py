"""A training on the machine at hand: on its devices, within its memory."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from math import ceil

import torch

from pipeline.detection.distributed import cores, run_on_devices
from pipeline.detection.families.yolox.mmdet_config import Setting
from pipeline.detection.hyperparameters import MOSAIC_STEPS, Recipe, Tuning
from pipeline.detection.session import Job, Outcome, is_out_of_memory, run
from pipeline.errors import UsageError

log = logging.getLogger(__name__)


def setting_for(recipe: Recipe, tuning: Tuning, images: int) -> Setting:
    """What the machine gives, and what the run is cut into."""
    cuda = torch.cuda.is_available()
    there = torch.cuda.device_count() if cuda else 1
    # of all GPUs as many as can share a step evenly
    devices = recipe.devices or max(n for n in range(1, there + 1) if recipe.batch_size % n == 0)
    if cuda and devices > there:
        raise UsageError(f"there are {there} GPUs, and devices is {devices}", where="devices", expected=f"0 to {there}")
    if not cuda and devices > cores():
        raise UsageError(
            f"devices is {devices}, and there is no GPU and {cores()} cores",
            where="devices",
            expected=f"0 to {cores()}",
        )
    if recipe.precision == "mixed" and not cuda:
        remedy = 'set precision to "auto"'
        raise UsageError("mixed precision needs a GPU", where="precision", expected='"full" or "auto"', remedy=remedy)
    if recipe.batch_size % devices:
        nearest = max(1, round(recipe.batch_size / devices)) * devices
        raise UsageError(
            f"a batch of {recipe.batch_size} cannot be shared out evenly to {devices} devices",
            where="batch_size",
            expected=f"a multiple of {devices}",
            remedy=f"set batch_size to {nearest}",
        )
    iterations = ceil(images / recipe.batch_size)
    long = iterations * recipe.epochs >= MOSAIC_STEPS
    return Setting(
        iterations=iterations,
        devices=devices,
        micro_batch=min(recipe.micro_batch or recipe.batch_size // devices, recipe.batch_size // devices),
        workers=_workers(recipe.workers),
        mixed=cuda and recipe.precision != "full",
        mosaic=recipe.augmentation == "mosaic" or (recipe.augmentation == "auto" and tuning.mosaic and long),
        cuda=cuda,
    )


def run_within_memory(job: Job, tell: Callable[[int, int, str], None]) -> tuple[Outcome, Job]:
    """Run a session, with fewer images at once whenever memory runs out; it goes on at its last finished epoch."""
    while True:
        try:
            return (run if job.setting.devices == 1 else run_on_devices)(job, tell), job
        except Exception as error:
            size = job.setting.micro_batch
            if size == 1 or not is_out_of_memory(error):
                raise
        half = ceil(size / 2)
        log.warning("out of memory with %d images at once: going on with %d, a step in parts", size, half)
        job = replace(job, setting=replace(job.setting, micro_batch=half))
        gc.collect()  # tensors of the failed step hang on cycles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _workers(asked: int) -> int:
    return asked if asked >= 0 else 0 if cores() <= 2 else min(4, cores() - 1)
