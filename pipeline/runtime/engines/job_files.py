"""What a command line and the jobs of an attempt tell each other, as files of the store.

    <root>/runs/RUN/jobs/STEP.001/request.json      what the jobs are to do
                                  watcher.json      the process of the command that follows them
                                  1.started.json    of the first try: where it runs
                                  1.stop            it is to stop
                                  1.ended.json      how it ended: written once, so that a lost try changes nothing
                                  logs/…            `step.logs` while it runs
    <root>/resume/STEP.FINGERPRINT/index.json       `step.resume`, until the step succeeds: names and digests
                                   SHA256           the bytes of one file

A try is one job: when its machine dies, the next try goes on from `step.resume`.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.files import sha256_of
from pipeline.runtime.engines.engine import Assignment, resume_name
from pipeline.runtime.machines import Machine
from pipeline.runtime.manifest import StepRecord
from pipeline.runtime.process import NOBODY, Process
from pipeline.runtime.store.artifact_store import Store

INDEX = "index.json"
PROBES = "probes/"  # below it a machine of the cluster says what it has
ABANDONED = 75  # the exit code of a job that nobody follows any more

log = logging.getLogger(__name__)


class JobFiles:
    """The files of one attempt."""

    def __init__(self, store: Store, run: str, record: StepRecord) -> None:
        self._store = store
        self._folder = f"runs/{run}/jobs/{record.step}.{record.attempt:03}"
        self._name = f"{run}-{record.step}-{record.attempt:03}"
        self._resume = f"resume/{resume_name(record)}"

    def name(self, number: int) -> str:
        """The name of a try's job on the cluster."""
        return f"{self._name}-{number}"

    def ask(self, assignment: Assignment) -> None:
        """Say what the jobs are to do."""
        self._store.files.create(f"{self._folder}/request.json", _dump(asdict(assignment)))

    def watch(self, process: Process) -> None:
        """Say that a process follows the jobs."""
        self._store.files.replace(f"{self._folder}/watcher.json", _dump(asdict(process)))

    def watcher(self) -> Process:
        """The process that was the last to follow the jobs."""
        found = self._read("watcher.json")
        return Process(**found) if found else NOBODY

    def start(self, number: int, facts: Mapping[str, Any]) -> None:
        """Say where a try runs."""
        self._store.files.create(f"{self._folder}/{number}.started.json", _dump(facts))

    def started(self, number: int) -> dict[str, Any] | None:
        """Where a try runs, or None if it has not started."""
        return self._read(f"{number}.started.json")

    def stop(self, number: int) -> None:
        """Ask a try to stop."""
        self._store.files.create(f"{self._folder}/{number}.stop", b"{}\n")

    def is_to_stop(self, number: int) -> bool:
        """Whether a try is asked to stop."""
        return self._store.files.exists(f"{self._folder}/{number}.stop")

    def end(self, number: int, record: StepRecord, signal: int) -> None:
        """Say how a try ended."""
        content = {"record": asdict(record), "signal": signal}
        self._store.files.create(f"{self._folder}/{number}.ended.json", _dump(content))

    def ended(self, number: int) -> tuple[StepRecord, int] | None:
        """How a try ended: its record, and the signal that stopped it or 0; None if it has not said so."""
        found = self._read(f"{number}.ended.json")
        return (StepRecord.from_json(found["record"]), found["signal"]) if found else None

    def tries(self) -> int:
        """How many tries have started."""
        names = self._store.files.names(self._folder)
        return sum(name.endswith(".started.json") for name in names)

    def keep_resume(self, folder: Path) -> None:
        """Store what the next attempt at the same work can go on from, in place of what was there."""
        files, found = self._store.files, self._store.files_of(folder, "resume")
        for file in found:
            if not files.exists(f"{self._resume}/{file.sha256}"):
                files.upload(f"{self._resume}/{file.sha256}", folder / file.path, file.sha256)
        files.replace(f"{self._resume}/{INDEX}", _dump({file.path: file.sha256 for file in found}))
        self._forget_resume({INDEX, *(file.sha256 for file in found)})

    def fetch_resume(self, folder: Path) -> None:
        """Get what an earlier attempt left to go on from; nothing if there is none, or it is damaged."""
        try:
            index = json.loads(self._store.files.read(f"{self._resume}/{INDEX}"))
            for name, sha256 in index.items():
                path = folder / PurePosixPath(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                self._store.files.download(f"{self._resume}/{sha256}", path)
                if sha256_of(path) != sha256:
                    raise ValueError(f"{name} is damaged")
        except (FileNotFoundError, ValueError) as error:
            if folder.is_dir():
                log.warning("the step starts anew: what an earlier attempt left is not whole: %s", error)
                shutil.rmtree(folder)

    def forget_resume(self) -> None:
        """Let the next attempt start anew."""
        self._forget_resume(set())

    def _forget_resume(self, kept: set[str]) -> None:
        for name in sorted(self._store.files.names(self._resume), key=lambda name: name != INDEX):
            if name not in kept:
                self._store.files.remove(f"{self._resume}/{name}", float("inf"))

    def keep_log(self, name: str, content: bytes) -> None:
        """Store a file of `step.logs`."""
        self._store.files.replace(f"{self._folder}/logs/{name}", content)

    def fetch_logs(self, folder: Path) -> None:
        """Bring the files of `step.logs` up to date: they only grow, and TensorBoard keeps them open."""
        start = f"{self._folder}/logs/"
        for info in self._store.files.find(start.rstrip("/")):
            path = folder / info.key.removeprefix(start)
            known = path.stat().st_size if path.is_file() else 0
            if path.resolve().is_relative_to(folder.resolve()) and info.size > known:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as stream:
                    stream.write(self._store.files.read(info.key)[known:])

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = json.loads(self._store.files.read(f"{self._folder}/{name}"))
        except (FileNotFoundError, ValueError):  # it is not there, or just being written
            return None
        return content


def read_request(store: Store, run: str, step: str, attempt: int) -> Assignment:
    """What the jobs of an attempt are to do."""
    content = json.loads(store.files.read(f"runs/{run}/jobs/{step}.{attempt:03}/request.json"))
    record, machine = StepRecord.from_json(content["record"]), Machine(**content["machine"])
    return Assignment(**{**content, "record": record, "machine": machine})


def _dump(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
