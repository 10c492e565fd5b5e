"""A Ray cluster of four machines on this one, and the checkout of its user, which the other machines do not see."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from counting import make_counter
from git_checkout import commit_all
from machines import lacking
from ray_machines import RayMachines, ray_machines

ROOT = Path(__file__).parents[2]
HERE = """\
name: here
parameters:
  data_load: {source_url: "sample://shapes?images=24&size=64&seed=3"}
  model_train: {image_size: 64, epochs: 4}
  model_eval: {min_map50: 0.0, allow_no_detections: true}
deliver: {model_quality_report: "report  {path}/report.html"}
"""
OF_STEPS = ("ray_job", "ipykernel", "TrainWorker", "multiprocessing.spawn")  # in the commands of a step's processes


@dataclass(frozen=True)
class Checkout:
    """The user's checkout, and the commands that its user types."""

    root: Path
    cluster: RayMachines
    package: str = ""  # the folder that has the package, unless the checkout has it

    def begin(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start `python ...` on the user's machine."""
        env = {**self.cluster.env, "OMP_NUM_THREADS": "1", "PYTHONPATH": self.package, **environment}
        return self.cluster.machines["user"].spawn(sys.executable, *arguments, env=env, cwd=self.root)

    def end(self, program: subprocess.Popen[str], code: int = 0, seconds: float = 900) -> str:
        """Wait for a command, which must end with this exit code; what it printed."""
        out, _ = program.communicate(timeout=seconds)
        assert program.returncode == code, out
        return out

    def run(self, *arguments: str, code: int = 0) -> str:
        """`python ...` on the user's machine."""
        return self.end(self.begin(*arguments), code)

    def manifest(self, config: str = "configs/demo.yaml") -> dict[str, Any]:
        """What `show --json` prints of the newest run of a config."""
        out = self.run("-m", "pipeline", "show", "--json", "--config", config)
        content: dict[str, Any] = json.loads(out[out.index("{") :])
        return content

    def process(self, program: subprocess.Popen[str]) -> psutil.Process:
        """The process of a command itself, below what takes it to the user's machine."""
        return next(each for each in psutil.Process(program.pid).children(True) if "python" in each.name())

    def at_work(self) -> dict[str, list[str]]:
        """The processes of steps on each machine of the cluster."""
        found = {}
        for name in ("head", "a", "b"):
            lines = [" ".join(each.cmdline()) for each in self.cluster.machines[name].processes() if each.is_running()]
            found[name] = [line for line in lines if any(kind in line for kind in OF_STEPS)]
        return {name: lines for name, lines in found.items() if lines}

    def place(self, step: str, config: str = "configs/demo.yaml") -> str:
        """The machine that a step runs on, or an empty text while it waits for one."""
        program = self.begin("-m", "pipeline", "status", "--json", "--config", config)
        out, _ = program.communicate(timeout=60)
        if program.returncode:  # there is no run yet
            return ""
        steps = json.loads(out[out.index("{") :])["steps"]
        why = next(each["why"] for each in steps if each["step"] == step)
        return why.partition(" on ")[2].partition(",")[0]


@dataclass(frozen=True)
class Undisturbed:
    """The manifests of two runs on one machine: with one process that trains, and with two."""

    on_one: dict[str, Any]
    on_two: dict[str, Any]


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayMachines]:
    """The cluster; it boots once."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: make .venv/.ray")
    if reason := lacking():
        pytest.skip(reason)
    with ray_machines() as booted:
        yield booted


@pytest.fixture(scope="session")
def checkout(cluster: RayMachines, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A git checkout of this project on the user's machine."""
    root = tmp_path_factory.mktemp("user") / "checkout"
    root.mkdir()
    for name in ("pipeline", "steps", "configs"):
        ignored = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__")
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    for name in ("step.dev.py", "step.prod.py", "pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    commit_all(root)
    return Checkout(root, cluster)


@pytest.fixture(scope="session", autouse=True)
def undisturbed(checkout: Checkout) -> Iterator[Future[Undisturbed]]:
    """The five notebooks on the user's machine, which run while the tests of the counter wait for the cluster."""
    (checkout.root / "configs" / "here.yaml").write_text(HERE)
    here = ("--config", "configs/here.yaml")

    def run() -> Undisturbed:
        checkout.run("step.dev.py", *here)
        on_one = checkout.manifest(here[1])
        checkout.run("step.dev.py", "model_train", *here, "--set", "model_train.devices=2")
        return Undisturbed(on_one, checkout.manifest(here[1]))

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run)


@pytest.fixture(scope="session")
def counter(cluster: RayMachines, tmp_path_factory: pytest.TempPathFactory, new_toy: Callable[..., Any]) -> Checkout:
    """A project of one step that only counts seconds, with an uncommitted note."""
    config = "name: counter\nstore: s3://shared/counter\nengine: ray\n"
    toy = make_counter(new_toy, tmp_path_factory.mktemp("user") / "counter", config)
    return Checkout(toy.root, cluster, str(ROOT))
