"""A training divided among several machines of a Ray cluster, by Ray Train.

Ray Train reserves the machines, starts a process on each, and notices when one is gone. That process spawns one per
device, as on a single machine, and these form torch's process group. The machine that runs this code is the first: the
process with the weights, the checkpoints and the curves is there, and writes them to this disk.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from pipeline.detection.devices import Machines, Place, ProcessError, Report, run_processes
from pipeline.detection.session import SessionResult, TrainingJob, is_out_of_memory, with_own_files
from pipeline.errors import MissingError, PipelineError, StepError

MOST_LOST = 5  # machines: a training that brings down its machine would go on for ever
NOTICING = 60.0  # seconds until a cluster has noticed that a machine is gone
WAITING = 10.0  # seconds that a training may wait for machines before that is told
POLLING = 0.2  # seconds

log = logging.getLogger(__name__)


def run_on_machines(job: TrainingJob, report: Report, machines: Machines) -> SessionResult:
    """Run a session on several machines, and go on after the last epoch elsewhere when one of them is gone.

    Raises:
        MissingError: Ray Train is not installed here.
        StepError: A process failed, or machines were lost again and again.
        torch.OutOfMemoryError: A process ran out of memory.
    """
    try:
        import ray
        import ray.train
    except ImportError as error:
        problem = f"a training on {machines.count} machines needs Ray Train: {error}"
        raise MissingError(problem, where=socket.gethostname(), remedy="make ray, on each machine") from error
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(24 * 3600)  # machines may be busy for long
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        for _ in range(MOST_LOST):
            attempt = _Attempt(job, machines, report)
            if result := attempt.run():
                return result
            log.warning("%s is gone; the training goes on with another machine", attempt.lost)
        raise StepError(
            f"the training lost a machine {MOST_LOST} times",
            where="training",
            expected="machines that outlive it",
            remedy="see what ends them, such as a lack of memory",
        )
    finally:
        ray.shutdown()  # ends the processes elsewhere, too


class _Attempt:
    """One attempt: until the training is over, or a machine is lost."""

    def __init__(self, job: TrainingJob, machines: Machines, report: Report) -> None:
        import ray
        from ray.util.queue import Queue

        self._job, self._machines, self._report = job, machines, report
        self._here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        self._messages = Queue(actor_options={"num_cpus": 0, "label_selector": self._here})
        self._names: dict[str, str] = {}  # of the machines at work, by Ray's ids
        self._received: list[Any] = []
        self._failure: BaseException | None = None
        self.lost = ""  # names of machines

    def run(self) -> SessionResult | None:
        """Its result, or None where a machine is gone."""
        thread = threading.Thread(target=self._fit, daemon=True)  # of the main thread Ray would take Ctrl-C away
        thread.start()
        began, is_told = time.monotonic(), False
        while thread.is_alive():
            thread.join(POLLING)
            self._receive()
            if not is_told and not self._names and time.monotonic() - began > WAITING:
                log.info("waiting for %d machines", self._machines.count)
                is_told = True
        self._receive()
        if error := next((each for each in self._received if isinstance(each, Exception)), None):
            raise error
        if self._failure is None:
            result: SessionResult = self._received[0]
            return result
        if self._is_one_lost():
            return None
        lines = [line for line in str(self._failure).splitlines() if line.strip()]
        raise ProcessError("a process of the training failed", where=" ".join(lines[-3:])) from self._failure

    def _fit(self) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        size = self._machines
        asked = {"CPU": size.cpus, "GPU": size.gpus, "memory": size.memory_gb * 1e9}
        scaling = ScalingConfig(
            num_workers=size.count,
            use_gpu=size.gpus > 0,
            resources_per_worker={name: amount for name, amount in asked.items() if amount},
            placement_strategy="STRICT_SPREAD",
            label_selector=[self._here, *({} for _ in range(size.count - 1))],
        )
        with tempfile.TemporaryDirectory() as folder:  # Ray Train keeps notes there
            trainer = TorchTrainer(
                _work_on_machine,
                train_loop_config={"job": self._job, "machines": size, "messages": self._messages},
                torch_config=_no_process_group(),
                scaling_config=scaling,
                run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=0)),
            )
            try:
                trainer.fit()
            except BaseException as error:  # noqa: BLE001, the main thread raises it
                self._failure = error

    def _receive(self) -> None:
        while not self._messages.empty():
            kind, *values = self._messages.get()
            if kind == "machine":
                self._names[values[0]] = values[1]
                if len(self._names) == self._machines.count:
                    log.info("training on %s", ", ".join(sorted(self._names.values())))
            elif kind == "log":
                log.log(*values)
            elif kind == "report":
                self._report(*values)
            else:
                self._received.append(values[0])

    def _is_one_lost(self) -> bool:
        """Whether the cluster notices soon that one of the machines is gone."""
        import ray

        end = time.monotonic() + NOTICING
        while time.monotonic() < end:
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            if gone := [name for node, name in self._names.items() if node not in alive]:
                self.lost = ", ".join(gone)
                return True
            time.sleep(1)
        return False


def _no_process_group() -> Any:
    """Ray Train's configuration for torch, without the process group that it would make of its own processes."""
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig

    class NoProcessGroup(TorchConfig):  # type: ignore[misc]  # Ray is not checked
        @property
        def backend_cls(self) -> type[Any]:
            return Backend  # type: ignore[no-any-return]

    return NoProcessGroup()


def _work_on_machine(config: dict[str, Any]) -> None:
    """Run the processes of one machine."""
    import ray
    import ray.train
    from ray.train.collective import barrier, broadcast_from_rank_zero

    job, machines, messages = config["job"], config["machines"], config["messages"]
    context, address = ray.train.get_context(), ray.util.get_node_ip_address()
    messages.put(("machine", ray.get_runtime_context().get_node_id(), socket.gethostname()))
    threads = max(1, int(machines.cpus) // max(1, job.execution.devices // machines.count))
    os.environ["OMP_NUM_THREADS"] = str(threads)  # Ray has set it for one process
    if interface := _interface(address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)  # gloo takes the loopback where a host has no address
    logger = logging.getLogger("pipeline")
    logger.setLevel(logging.INFO)
    logger.addHandler(_ForwardingHandler(messages))
    try:
        with machines.inputs(), tempfile.TemporaryDirectory() as folder:
            job = with_own_files(job, Path(folder))
            barrier()  # a download may take longer than the processes wait for each other
            meeting = broadcast_from_rank_zero(f"tcp://{address}:{_free_port(address)}")
            place = Place(context.get_world_rank(), machines.count, meeting)
            for result in run_processes(job, lambda *values: messages.put(("report", *values)), place):
                messages.put(("result", result))
    except Exception as error:
        # a `ProcessError` may only mean that another machine is gone: nobody is told of it before that is known
        if not isinstance(error, ProcessError) and (isinstance(error, PipelineError) or is_out_of_memory(error)):
            messages.put(("error", error))
        raise  # Ray Train ends the others


class _ForwardingHandler(logging.Handler):
    """Sends what is logged to the machine that runs the notebook."""

    def __init__(self, messages: Any) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line."""
        self._messages.put(("log", record.levelno, "%s", record.getMessage()))


def _interface(address: str) -> str:
    """The network interface that has an address of this machine, or an empty text."""
    found = psutil.net_if_addrs()
    return next((name for name, each in found.items() if address in [one.address for one in each]), "")


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as server:
        port: int = server.getsockname()[1]
        return port
