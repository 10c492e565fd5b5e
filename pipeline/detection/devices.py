"""The devices of a training: how it is divided among them, one process each, and how it fits into their memory.

torch spawns the processes of a machine, and all run the same session. What they have to say, this process gets through
one queue. Of several machines, each spawns its own; see `cluster_training`.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from logging.handlers import QueueHandler
from math import ceil
from typing import Any, Protocol

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

MOST_LOADERS = 8  # data loading processes of a device, each of which takes memory

Report = Callable[[int, int, str], None]


class Machines(Protocol):
    """The machines that a training is divided among; it can be sent to each of them."""

    count: int
    cpus: float  # of each, as the two below
    gpus: float
    memory_gb: float  # of 10^9 bytes; 0 where nothing is said

    def inputs(self) -> AbstractContextManager[None]:
        """Have the data sets and the weights on the machine that calls this, by the paths of the first machine."""
        ...


class ProcessError(StepError):
    """A process of a training ended without saying why."""


@dataclass(frozen=True)
class Place:
    """A machine's place among those of a training."""

    machine: int = 0
    machines: int = 1
    address: str = ""  # where the processes of all meet, as torch writes it; empty for a single machine


def execution_config(
    options: TrainingOptions, hyperparameters: Hyperparameters, images: int, machines: Machines | None = None
) -> ExecutionConfig:
    """Divide a training with some number of images among the devices of this machine, or of several machines.

    Raises:
        UsageError: There are not so many devices, or the batch cannot be shared out to them evenly.
    """
    count, batch = machines.count if machines else 1, options.batch_size
    cuda = machines.gpus > 0 if machines else torch.cuda.is_available()
    gpus = machines.gpus if machines else torch.cuda.device_count()
    processors = max(1, int(machines.cpus)) if machines else cores()
    there = count * (max(1, int(gpus)) if cuda else processors)
    # by default as many GPUs as can share a batch evenly, on the CPU one process a machine
    most = there if cuda else count
    devices = options.devices or max((n for n in range(count, most + 1, count) if batch % n == 0), default=count)
    if devices > there:
        problem = f"devices is {devices}, and there are {there} {'GPUs' if cuda else 'cores and no GPU'}"
        raise UsageError(problem, where="devices", expected=f"0 to {there}")
    if devices % count:
        problem = f"{devices} devices cannot be divided among {count} machines"
        raise UsageError(problem, where="devices", expected=f"0, or a multiple of {count}")
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
    workers = 0 if processors <= 2 else min(MOST_LOADERS, max(1, processors // (devices // count) - 1))
    return ExecutionConfig(
        iterations=iterations,
        devices=devices,
        micro_batch=min(options.micro_batch or share, share),
        workers=options.workers if options.workers >= 0 else workers,
        mixed=cuda and options.precision != "full",
        mosaic=options.augmentation == "mosaic" or (options.augmentation == "auto" and hyperparameters.mosaic and long),
        cuda=cuda,
    )


def run_within_memory(
    job: TrainingJob, report: Report, start: Callable[[TrainingJob, Report], SessionResult] | None = None
) -> tuple[SessionResult, TrainingJob]:
    """Run a session; whenever memory runs out, continue after the last epoch with half as many images at once.

    `start` runs it elsewhere than on this machine.
    """
    start = start or (run if job.execution.devices == 1 else run_on_devices)
    while True:
        try:
            return start(job, report), job
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
    """Run a session with a process per device of this machine, and wait for it.

    Raises:
        StepError: A process failed; where it raised a `PipelineError`, that error.
        torch.OutOfMemoryError: A process ran out of memory.
    """
    [result] = run_processes(job, report, Place())
    return result


def run_processes(job: TrainingJob, report: Report, place: Place) -> list[SessionResult]:
    """Run this machine's processes of a session; the result, if the machine is the first, and nothing otherwise.

    Raises:
        ProcessError: A process failed, and said nothing.
        StepError: It raised another `PipelineError`.
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

    failure = ""
    with tempfile.TemporaryDirectory() as folder:
        here = replace(place, address=place.address or f"file://{folder}/meeting")
        arguments, count = (job, here, messages), job.execution.devices // place.machines
        processes: Any = spawn(_work, arguments, count, join=False)  # type: ignore[no-untyped-call]
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
    if failure or not (received or place.machine):
        remedy = "train with devices=1 to see whether the training or the devices cause it"
        where = failure or "a process ended before its training did"
        raise ProcessError("a process of the training failed", where=where, remedy=remedy)
    return received


def _work(number: int, job: TrainingJob, place: Place, messages: Any) -> None:
    """Run one of this machine's processes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # torch has the kernel send it where the parent is killed
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libraries print to them
        os.dup2(nowhere, stream)
    count, cuda = job.execution.devices, job.execution.cuda
    own = count // place.machines
    rank = own * place.machine + number
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // own)))))
    os.environ["LOCAL_RANK"] = str(number)  # mmengine reads it
    if cuda:
        torch.cuda.set_device(number)
    torch.distributed.init_process_group(
        "nccl" if cuda else "gloo", init_method=place.address, timeout=LONGEST_WAIT, rank=rank, world_size=count
    )
    if rank == 0:  # the others log the same
        logger = logging.getLogger("pipeline")
        logger.setLevel(logging.INFO)
        logger.addHandler(QueueHandler(messages))
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
