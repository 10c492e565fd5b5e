"""A Ray cluster through the HTTP API of its jobs, so that this machine needs no Ray.

https://docs.ray.io/en/latest/cluster/running-applications/job-submission/rest.html. Address and token come from Ray's
own variables: `RAY_API_SERVER_ADDRESS`, and `RAY_AUTH_TOKEN` or a file, `RAY_AUTH_TOKEN_PATH` or `~/.ray/auth_token`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from pipeline.errors import PipelineError, StepError, UsageError
from pipeline.files import retrying
from pipeline.runtime.engines.job_files import ABANDONED
from pipeline.runtime.machines import Machine

ADDRESS = "RAY_API_SERVER_ADDRESS"
TOKEN, TOKEN_FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
PATIENCE = 20.0  # seconds until a request is given up
ATTEMPTS = 3
FAILED = "FAILED"
OVER = ("SUCCEEDED", FAILED, "STOPPED")  # of a job
# kinds of a job's error, as Ray names them: it waited in vain for a machine; its machine died
WAITED = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
DIED = ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE")


class UnreachableError(StepError):
    """The cluster does not answer. A job there may go on."""


@dataclass(frozen=True)
class RayJob:
    """A job as the cluster knows it."""

    status: str
    message: str
    kind: str  # of its error, as Ray names it, or empty
    exit_code: int | None  # of its command; None if that did not end by itself

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status in OVER

    @property
    def waited_in_vain(self) -> bool:
        """Whether it never got a machine."""
        return self.kind == WAITED

    def is_lost(self, *, began: bool) -> bool:
        """Whether its machine died, or was cut off; `began` tells whether its command has run.

        Of such a job Ray may also say that it failed to start: it does where it no longer finds what watched the job.
        """
        if self.exit_code is not None:
            return self.exit_code == ABANDONED
        return self.kind in DIED or (self.status == FAILED and began)


class RayCluster:
    """The cluster that the environment names."""

    def __init__(self, attempts: int = ATTEMPTS) -> None:
        self._attempts = attempts  # at each request
        self.address = os.environ.get(ADDRESS, "").rstrip("/")
        if not self.address.startswith(("http://", "https://")):
            raise UsageError(
                f"{ADDRESS} is no address over HTTP: {self.address}" if self.address else f"{ADDRESS} is not set",
                where="engine: ray",
                expected="the address of the cluster's dashboard",
                remedy=f"export {ADDRESS}=http://HEAD:8265",
            )
        self._session = requests.Session()
        if token := _token():
            self._session.headers["Authorization"] = f"Bearer {token}"

    def session(self) -> str:
        """The name of the cluster's present life; UsageError without the right token."""
        name: str = self._ask("GET", "/api/version").json()["session_name"]
        return name

    def machines(self) -> dict[str, Machine]:
        """What each machine has, by Ray's id of it."""
        answer = self._ask("GET", "/api/v0/nodes", params={"detail": 1, "limit": 10_000}).json()
        nodes = [node for node in answer["data"]["result"]["result"] if node["state"] == "ALIVE"]
        return {node["node_id"]: _machine(node["resources_total"]) for node in nodes}

    def upload(self, archive: bytes) -> str:
        """Make a ZIP file known to the cluster; its URI. The same bytes are sent once."""
        name = f"_ray_pkg_{hashlib.sha256(archive).hexdigest()[:32]}.zip"
        # asking also keeps it for ten minutes, until a job refers to it
        if self._ask("GET", f"/api/packages/gcs/{name}", absent=404).status_code == 404:
            self._ask("PUT", f"/api/packages/gcs/{name}", data=archive)
        return f"gcs://{name}"

    def submit(self, name: str, command: str, code: str, machine: Machine | None) -> None:
        """Submit a job that runs a command in the code's folder. A job of that name that is there already stays.

        Without a `machine` it runs on the head at once. A job that asks for several is put on one of that size and
        reserves nothing: it will ask for all of them, its own included. A job gets no environment variables, which
        anybody could read.
        """
        asked: dict[str, Any] = {}
        if machine and machine.nodes > 1:
            fitting = [node for node, has in self.machines().items() if machine.fits(has)]
            asked = {"entrypoint_label_selector": {"ray.io/node-id": f"in({','.join(fitting)})"}}
        elif machine:
            asked = {
                "entrypoint_num_cpus": machine.cpus,
                "entrypoint_num_gpus": machine.gpus,
                "entrypoint_memory": int(machine.memory_gb * 1e9),
            }
        job = {"submission_id": name, "entrypoint": command, "runtime_env": {"working_dir": code}, **asked}
        try:
            self._ask("POST", "/api/jobs/", json=job)
        except PipelineError:
            if not self.job(name):  # otherwise only an answer was lost
                raise

    def job(self, name: str) -> RayJob | None:
        """A job, or None if the cluster knows none of that name."""
        answer = self._ask("GET", f"/api/jobs/{name}", absent=404)
        if answer.status_code == 404:
            return None
        info = answer.json()
        return RayJob(info["status"], info["message"] or "", info["error_type"] or "", info["driver_exit_code"])

    def log(self, name: str) -> str:
        """What a job has printed; empty if its machine does not answer."""
        try:
            text: str = self._ask("GET", f"/api/jobs/{name}/logs", attempts=1).json()["logs"] or ""
        except PipelineError:
            return ""
        return text

    def stop(self, name: str) -> None:
        """Stop a job: SIGTERM, and after three seconds SIGKILL."""
        self._ask("POST", f"/api/jobs/{name}/stop", absent=404)

    def _ask(self, method: str, path: str, *, absent: int = 0, attempts: int = 0, **options: Any) -> requests.Response:
        """The answer to a request, also with the status `absent`; StepError or UsageError for any other error."""
        try:
            patiently = retrying(_is_transient, attempts=attempts or self._attempts, longest_wait=3)
            answer = patiently(self._session.request, method, self.address + path, timeout=PATIENCE, **options)
        except requests.RequestException as error:
            raise UnreachableError(
                f"the cluster does not answer: {type(error).__name__}",
                where=self.address,
                remedy=f"see that {ADDRESS} can be reached, and run the same command again: it re-attaches to a job",
            ) from error
        if answer.status_code in (401, 403):
            raise UsageError(
                "the cluster asks for a token" if answer.status_code == 401 else "the cluster refuses the token",
                where=self.address,
                remedy=f"export {TOKEN}=..., or {TOKEN_FILE}=FILE; ~/.ray/auth_token is read, too",
            )
        if answer.ok or answer.status_code == absent:
            return answer
        said = answer.text.strip().splitlines()
        last = next((line for line in reversed(said) if len(line) > 1), f"HTTP {answer.status_code}")
        raise StepError(f"the cluster refuses a request: {last[:300]}", where=f"{method} {self.address}{path}")


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, requests.ConnectionError | requests.Timeout)


def _token() -> str:
    if token := os.environ.get(TOKEN, "").strip():
        return token
    file = Path(os.environ.get(TOKEN_FILE) or "~/.ray/auth_token").expanduser()
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def _machine(resources: Mapping[str, float]) -> Machine:
    cpus, gpus, memory = (resources.get(name, 0) for name in ("CPU", "GPU", "memory"))
    return Machine(cpus=cpus, memory_gb=memory / 1e9, gpus=gpus)
