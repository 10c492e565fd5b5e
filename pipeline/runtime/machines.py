"""What a step asks of a machine of the cluster: `machines` of a config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pipeline.errors import did_you_mean


@dataclass(frozen=True)
class Machine:
    """What a step asks for."""

    here: bool = False  # the user's own machine, such as for data that lies there
    cpus: float = 1  # also the number of threads of the step's libraries
    memory_gb: float = 0  # of 10^9 bytes
    gpus: float = 0
    nodes: int = 1  # machines of that size at once, for a notebook that uses `step.machines`

    def __str__(self) -> str:
        memory, gpus = (f", {self.memory_gb:g} GB" if self.memory_gb else ""), f", {self.gpus:g} GPUs"
        one = f"{self.cpus:g} CPUs{memory}{gpus if self.gpus else ''}"
        return one if self.nodes == 1 else f"{self.nodes} machines with {one}"

    def fits(self, has: Machine) -> bool:
        """Whether a machine has what is asked of each."""
        return self.cpus <= has.cpus and self.memory_gb <= has.memory_gb and self.gpus <= has.gpus


def wrong_machine(asked: Mapping[str, Any]) -> str:
    """What is wrong with a step's entry, or an empty text."""
    keys = [each.name for each in fields(Machine)]
    for key, value in asked.items():
        if key not in keys:
            return f"there is no key '{key}' but {', '.join(keys)}; {did_you_mean(key, keys)}".rstrip("; ")
        if key == "here":
            if value is not True or len(asked) > 1:
                return "'here' stands alone, and is true: this machine has what it has"
        elif isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            return f"'{key}' is no number above 0"
        elif key == "nodes" and not isinstance(value, int):
            return "'nodes' is no whole number"
    return ""
