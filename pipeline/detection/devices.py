"""The devices of a training: how it is divided among them, one process each, and how it fits into their memory.

torch spawns the processes, and all run the same session. What they have to say, this process gets through one queue.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from logging.handlers import QueueHandler
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import ProcessException, spawn

from pipeline.detection.hyperparameters import MOSAIC_STEPS, ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.session import SessionResult, TrainingJob, is_out_of_memory, run
from pipeline.errors import PipelineError, StepError, UsageError

log = logging.getLogger(__name__)

LONGEST_WAIT = timedelta(minutes=30)
"""After which a process that waits for another fails. One evaluates the detections of all while the others wait: about
a minute for 100,000 images. NCCL's own limit would be 10 minutes."""

Report = Callable[[int, int, str], None]


def execution_config(options: TrainingOptions, hyperparameters: Hyperparameters, images: int) -> ExecutionConfig:
    """Divide a training with some number of images among the devices of this machine, or raise `UsageError`."""
    cuda, batch = torch.cuda.is_available(), options.batch_size
    there = torch.cuda.device_count() if cuda else cores()
    # by default as many GPUs as can share a batch evenly
    devices = options.devices or max(n for n in range(1, there + 1 if cuda else 2) if batch % n == 0)
    if devices > there:
        problem = f"devices is {devices}, and there are {there} {'GPUs' if cuda else 'cores and no GPU'}"
        raise UsageError(problem, where="devices", expected=f"0 to {there}")
    if options.precision == "mixed" and not cuda:
        remedy = 'set precision to "auto"'
        raise UsageError("mixed precision needs a GPU", where="precision", expected='"full" or "auto"', remedy=remedy)
    if batch % devices:
        raise UsageError(
            f"a batch of {batch} cannot be shared out evenly to {devices} devices",
            where="batch_size",
            expected=f"a multiple of {devices}",
            remedy=f"set batch_size to {max(1, round(batch / devices)) * devices}",
        )
    iterations, share = ceil(images / batch), batch // devices
    long = iterations * options.epochs >= MOSAIC_STEPS
    workers = 0 if cores() <= 2 else min(4, cores() - 1)
    return ExecutionConfig(
        iterations=iterations,
        devices=devices,
        micro_batch=min(options.micro_batch or share, share),
        workers=options.workers if options.workers >= 0 else workers,
        mixed=cuda and options.precision != "full",
        mosaic=options.augmentation == "mosaic" or (options.augmentation == "auto" and hyperparameters.mosaic and long),
        cuda=cuda,
    )


def run_within_memory(job: TrainingJob, report: Report) -> tuple[SessionResult, TrainingJob]:
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


def run_on_devices(job: TrainingJob, report: Report) -> SessionResult:
    """Run a session with a process per device, and wait for it.

    Raises:
        StepError: A process failed; where it raised a `PipelineError`, that error.
        torch.OutOfMemoryError: A process ran out of memory.
    """
    received: list[Any] = []
    messages: Any = get_context("spawn").Queue()

    def receive() -> None:
        while not messages.empty():
            message = messages.get()
            if isinstance(message, logging.LogRecord):
                log.log(message.levelno, "%s", message.getMessage())
            elif isinstance(message, tuple):
                report(*message)
            else:
                received.append(message)

    failure = "a process ended before its training did"
    with tempfile.TemporaryDirectory() as folder:
        arguments = (job, Path(folder) / "meeting", messages)
        processes: Any = spawn(_work, arguments, job.execution.devices, join=False)  # type: ignore[no-untyped-call]
        try:
            while not processes.join(timeout=0.1):
                receive()
        except ProcessException as error:
            failure = str(error).strip()
        finally:
            for process in processes.processes:  # one may be left where this process was interrupted
                process.kill()
                process.join()
    receive()
    for message in received:
        if isinstance(message, Exception):
            raise message
    if not received:
        remedy = "train with devices=1 to see whether the training or the devices cause it"
        raise StepError("a process of the training failed", where=failure, remedy=remedy)
    result: SessionResult = received[0]
    return result


def _work(rank: int, job: TrainingJob, meeting: Path, messages: Any) -> None:
    """Run one of the processes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # torch has the kernel send it where the parent is killed
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libraries print to them
        os.dup2(nowhere, stream)
    count, cuda = job.execution.devices, job.execution.cuda
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))))
    os.environ["LOCAL_RANK"] = str(rank)  # mmengine reads it
    if cuda:
        torch.cuda.set_device(rank)
    backend, place = "nccl" if cuda else "gloo", f"file://{meeting}"
    torch.distributed.init_process_group(backend, init_method=place, timeout=LONGEST_WAIT, rank=rank, world_size=count)
    if rank == 0:  # the others log the same
        own = logging.getLogger("pipeline")
        own.setLevel(logging.INFO)
        own.addHandler(QueueHandler(messages))
    try:
        result = run(job, lambda *values: messages.put(values))
        if rank == 0:
            messages.put(result)
    except (PipelineError, RuntimeError) as error:
        if isinstance(error, PipelineError) or is_out_of_memory(error):
            messages.put(error)
        raise
    torch.distributed.destroy_process_group()


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
