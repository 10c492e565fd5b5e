"""Whether a machine has the Python and the packages that a record names."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import StepError
from pipeline.runtime.code import FACTS

SHOWN = 5


def refuse_environment(expected: Mapping[str, str], found: Mapping[str, str], where: str) -> None:
    """Refuse a machine with another Python or other packages; both environments are as `code.environment` gives them.

    Python's last number may differ, and the build of a package, such as torch's for a CPU or for CUDA.
    """
    differences = [
        f"{name} {found[name]} instead of {version}"
        for name, version in expected.items()
        if name not in FACTS and _comparable(name, found[name]) != _comparable(name, version)
    ]
    if differences:
        more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise StepError(
            f"the cluster has another environment: {', '.join(differences[:SHOWN])}{more}",
            where=where,
            expected="the Python and packages of the machine that runs the command",
            remedy="install requirements.lock and requirements.ray.lock there, or in the image of its machines",
        )


def _comparable(name: str, version: str) -> str:
    return version.rpartition(".")[0] if name == "python" else version.partition("+")[0]
