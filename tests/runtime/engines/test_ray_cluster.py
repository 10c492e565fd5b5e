"""A cluster that cannot be reached, and that nothing of it is imported where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ports import free_ports

from pipeline.runtime.engines import ray_cluster
from pipeline.runtime.engines.job_files import ABANDONED
from pipeline.runtime.engines.ray_cluster import RayJob

CONFIG = "name: toy\nstore: s3://nowhere/x\nengine: ray\n"
IMPORTED = """
import sys
from pipeline.cli.entry import run_steps
sys.argv = ["step.dev.py"]
assert run_steps("dev") == 0
from pipeline.cli import run_commands
print(sorted(name for name in sys.modules if name.split(".")[0] in ("ray", "requests") or "engines.ray" in name))
"""


@pytest.fixture
def elsewhere(toy: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project whose steps are to run on a cluster."""
    (toy.root / "configs" / "demo.yaml").write_text(CONFIG)
    monkeypatch.setattr(ray_cluster, "ATTEMPTS", 1)
    return toy


def test_without_an_address_nothing_starts(elsewhere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ray_cluster.ADDRESS, raising=False)
    remedy = "export RAY_API_SERVER_ADDRESS=http://HEAD:8265"
    elsewhere.step("--config", "configs/demo.yaml").fails("RAY_API_SERVER_ADDRESS is not set", remedy, code=2)
    monkeypatch.setenv(ray_cluster.ADDRESS, "ray://head:10001")
    elsewhere.step("--config", "configs/demo.yaml").fails("no address over HTTP: ray://head:10001", remedy, code=2)


def test_a_cluster_that_does_not_answer_is_told(elsewhere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv(ray_cluster.ADDRESS, address)
    outcome = elsewhere.step("--config", "configs/demo.yaml")
    outcome.fails("the cluster does not answer: ConnectionError", address, "run the same command again")


@pytest.mark.parametrize(
    ("job", "began", "is_lost"),
    [
        pytest.param(("FAILED", "", "JOB_SUPERVISOR_ACTOR_DIED", None), False, True, id="before its command ran"),
        pytest.param(("FAILED", "", "JOB_SUPERVISOR_ACTOR_DIED", None), True, True, id="while its command ran"),
        pytest.param(("FAILED", "", "JOB_SUPERVISOR_ACTOR_START_FAILURE", None), True, True, id="not found any more"),
        pytest.param(("FAILED", "", "JOB_SUPERVISOR_ACTOR_START_FAILURE", None), False, False, id="it cannot start"),
        pytest.param(("FAILED", "", "RUNTIME_ENV_SETUP_FAILURE", None), False, False, id="its code does not arrive"),
        pytest.param(("FAILED", "", "JOB_ENTRYPOINT_COMMAND_ERROR", ABANDONED), True, True, id="cut off"),
        pytest.param(("FAILED", "", "JOB_ENTRYPOINT_COMMAND_ERROR", 1), True, False, id="its command failed"),
        pytest.param(("STOPPED", "", "", None), True, False, id="somebody stopped it"),
    ],
)
def test_a_job_whose_machine_is_gone_is_told_from_one_that_failed(job: Any, began: bool, is_lost: bool) -> None:
    assert RayJob(*job).is_lost(began=began) is is_lost


def test_an_unknown_step_among_the_machines_is_refused(elsewhere: Any) -> None:
    (elsewhere.root / "configs" / "demo.yaml").write_text(CONFIG + "machines: {secnd: {cpus: 1}}\n")
    elsewhere.step("--config", "configs/demo.yaml").fails("there is no step 'secnd'", "did you mean 'second'", code=2)


def test_who_uses_no_cluster_imports_nothing_of_it(ran: Any) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", IMPORTED]
    done = subprocess.run(command, cwd=ran.root, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stdout.strip().splitlines()[-1:]) == (0, ["[]"]), done.stderr
