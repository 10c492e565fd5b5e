"""The machines of a cluster that a step is spread over. The notebook runs on the first, which has its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.machines import Machine
from pipeline.runtime.process import this_process, work_folder_at
from pipeline.runtime.store.artifact_store import Artifact, Store


@dataclass(frozen=True)
class StepMachines:
    """Several machines of one size; it can be sent to each of them.

    Attributes:
        count: How many there are.
        cpus: Of each.
        gpus: Of each.
        memory_gb: Of each, in 10^9 bytes; 0 where the config says nothing.
    """

    count: int
    cpus: float
    gpus: float
    memory_gb: float
    _store: str
    _folder: Path  # of the attempt on the first machine
    _inputs: Mapping[Path, Artifact]  # by their folders, within that one
    _first: tuple[str, str]  # host and boot of the first machine

    @classmethod
    def of(cls, machine: Machine, store: str, folder: Path, inputs: Mapping[Path, Artifact]) -> StepMachines:
        """The machines that a step asks for; this process runs on the first."""
        here = this_process()
        size = (machine.nodes, machine.cpus, machine.gpus, machine.memory_gb)
        return cls(*size, store, folder, inputs, (here.host, here.boot))

    @contextmanager
    def inputs(self) -> Iterator[None]:
        """Have the inputs on the machine that calls this during the block, by the paths of the first machine.

        Raises:
            StepError: The machine has no place of that name, or another process uses it.
            IntegrityError: The store has no whole copy of an input.
        """
        here = this_process()
        if (here.host, here.boot) == self._first:
            yield
            return
        with work_folder_at(self._folder):
            store = Store(self._store)
            for folder, artifact in self._inputs.items():
                store.get(artifact, folder)
            yield
