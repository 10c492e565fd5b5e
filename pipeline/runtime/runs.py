"""The runs of a store, read from and written as records that are each written once; see the package's docstring.

<root>/runs/RUN/run.json
<root>/runs/RUN/attempts/STEP.001.started.json
<root>/runs/RUN/attempts/STEP.001.ended.json
<root>/runs/RUN/manifest.json
<root>/reuse/STEP/FINGERPRINT/RUN.001            an index of successes by the work's fingerprint

A record ends in a line of its own. One that does not was cut while it was written, and counts as not written.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from pipeline.errors import IntegrityError, MissingError, PipelineError, StepError, UsageError
from pipeline.runtime.manifest import (
    KILLED,
    RUN_ID,
    SCHEMA,
    SUCCEEDED,
    RunManifest,
    StepRecord,
    new_run_id,
    notebook_key,
    now,
)
from pipeline.runtime.store.artifact_store import Store

ATTEMPT = re.compile(r"(?P<step>\w+)\.(?P<number>\d+)\.(?P<moment>started|ended)\.json")
SECONDS = len("20260101T000000")  # the part of a run's id down to seconds

log = logging.getLogger(__name__)


class Runs:
    """The runs of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._read: dict[str, StepRecord] = {}  # records never change

    def new_id(self) -> str:
        """An id that sorts after every other's, whatever the clock says."""
        newest, run = max(self._candidates(), default=""), new_run_id()
        if run.partition("-")[0] > newest.partition("-")[0]:
            return run
        if run[:SECONDS] < newest[:SECONDS]:
            log.warning("this machine's clock is behind the newest run, %s: its time is taken instead", newest)
        return new_run_id(after=newest)

    def open(self, manifest: RunManifest) -> RunManifest:
        """Record a new run."""
        content = asdict(manifest)
        content.pop("attempts")
        if not self.store.files.create(f"runs/{manifest.run}/run.json", _dump(content)):
            raise StepError(f"there is a run {manifest.run} already", where=self.store.url, remedy="run again")
        return self.render(manifest.run)

    def ids(self) -> list[str]:
        """Oldest first, without runs whose opening was cut."""
        runs = self._candidates()
        openings = self.store.files.each(self._opening, runs, "reading runs")
        return [run for run, opening in zip(runs, openings, strict=True) if opening is not None]

    def every(self) -> list[tuple[str, RunManifest | str]]:
        """Each run, oldest first, or one line on why it cannot be read: a bad run must not hide the others."""

        def readable(run: str) -> RunManifest | str:
            try:
                return self.load(run)
            except PipelineError as error:
                return error.problem

        runs = self.ids()
        return list(zip(runs, self.store.files.each(readable, runs, "reading runs"), strict=True))

    def readable(self) -> list[RunManifest]:
        """Each run that can be read, oldest first; the others are logged."""
        every = self.every()
        for run, problem in every:
            if isinstance(problem, str):
                log.warning("run %s is left out: %s", run, problem)
        return [manifest for _, manifest in every if isinstance(manifest, RunManifest)]

    def load(self, run: str) -> RunManifest:
        """Assemble a run from its records; UsageError if a newer version wrote one."""
        opening = self._opening(run)
        if opening is None:
            remedy = "list them with: python -m pipeline runs"
            raise MissingError(f"there is no run '{run}'", where=f"{self.store.url}/runs", remedy=remedy)
        attempts: dict[str, StepRecord] = {}
        for key in sorted(self.record_keys(run), key=lambda key: key.endswith(".started.json")):  # its end first
            attempt = key.rsplit(".", 2)[0]
            if attempt not in attempts and (record := self._record(key)):
                attempts[attempt] = record
        records = sorted(attempts.values(), key=lambda record: (record.started, record.attempt))
        key = f"runs/{run}/run.json"
        try:
            return RunManifest.from_json(self._parse(key, opening), tuple(records))
        except (TypeError, AttributeError) as error:
            raise self._unreadable(key, error) from error

    def newest(self, *, pipeline: str = "", having: str = "", back: int = 0) -> RunManifest | None:
        """The newest run, or the one `back` before it, of a pipeline and `having` an output of an entity."""
        for run in reversed(self._candidates()):
            opening = self._opening(run)
            if opening is None:
                continue
            if pipeline and self._parse(f"runs/{run}/run.json", opening).get("pipeline") != pipeline:
                continue
            if having and not self.load(run).output(having):
                continue
            if not back:
                return self.load(run)
            back -= 1
        return None

    def record_keys(self, run: str) -> list[str]:
        """Keys of the records of a run's attempts."""
        folder = f"runs/{run}/attempts"
        return [f"{folder}/{name}" for name in self.store.files.names(folder) if ATTEMPT.fullmatch(name)]

    def cut_records(self, run: str) -> list[str]:
        """Keys of those records that were cut while they were written."""
        return [key for key in self.record_keys(run) if self._record(key) is None]

    def start(self, run: str, record: StepRecord) -> StepRecord:
        """Record that an attempt starts, under the next free number."""
        attempts = [found for key in self.record_keys(run) if (found := ATTEMPT.search(key))]
        number = max((int(found["number"]) for found in attempts if found["step"] == record.step), default=0)
        while True:  # another process may take the number first
            number += 1
            numbered = replace(record, attempt=number)
            if self.store.files.create(_attempt_key(run, numbered, "started"), _dump(asdict(numbered))):
                self.render(run)
                return numbered

    def end(self, run: str, record: StepRecord) -> RunManifest:
        """Record how an attempt ended, and index a success by its fingerprint."""
        if not self._create_end(run, record):
            raise StepError(
                f"another end of {run}/{record.made_by} is recorded already",
                where=self.store.files.location(_attempt_key(run, record, "ended")),
                remedy=f"python -m pipeline show {run}",
            )
        if record.status == SUCCEEDED:
            key = f"reuse/{record.step}/{record.fingerprint}/{run}.{record.attempt:03}"
            self.store.files.create(key, _dump(asdict(record)))
        return self.render(run)

    def end_killed(self, manifest: RunManifest) -> RunManifest:
        """Record the end of attempts whose process is known to be gone."""
        killed = [record for record in manifest.attempts if record.is_killed]
        for record in killed:
            end = replace(record, status=KILLED, ended=now(), error="its process was killed", error_kind="Killed")
            self._create_end(manifest.run, end)
        return self.render(manifest.run) if killed else manifest

    def same_work(self, step: str, fingerprint: str) -> tuple[str, StepRecord] | None:
        """The newest success with this fingerprint whose outputs are all in the store, as (run, record).

        Its outputs are protected from collection until the record that refers to them is written.
        """
        folder = f"reuse/{step}/{fingerprint}"
        for name in reversed(self.store.files.names(folder)):
            try:
                record = self._record(f"{folder}/{name}")
            except (IntegrityError, UsageError) as error:  # without it the step only runs again
                log.warning("%s", error)
                continue
            if record and all(self.store.keep_alive(artifact) for artifact in record.outputs.values()):
                return name.rsplit(".", 1)[0], record
        return None

    def render(self, run: str) -> RunManifest:
        """Write `manifest.json` again from the records.

        Of two processes that render at once, the last to write may have read before the other's record was there. So
        each reads again after writing, and the last version has every record.
        """
        manifest = self.load(run)
        while True:
            self.store.files.replace(f"runs/{run}/manifest.json", _dump(manifest.to_json()))
            before, manifest = manifest, self.load(run)
            if manifest == before:
                return manifest

    def _candidates(self) -> list[str]:
        return [name for name in self.store.files.names("runs") if RUN_ID.fullmatch(name)]

    def _opening(self, run: str) -> bytes | None:
        """The record of a run's opening, or None if there is none or it was cut."""
        content = self._content(f"runs/{run}/run.json") if RUN_ID.fullmatch(run) else b""
        return None if _is_cut(content) else content

    def _create_end(self, run: str, record: StepRecord) -> bool:
        key, content = _attempt_key(run, record, "ended"), _dump(asdict(record))
        if not self.store.files.create(key, content):
            if not _is_cut(self._content(key)):
                return False
            self.store.files.replace(key, content)  # only one process ends an attempt, and its write was cut
        return True

    def _content(self, key: str) -> bytes:
        """A record's bytes; none if it is absent, such as of a run that is just being removed."""
        try:
            return self.store.files.read(key)
        except FileNotFoundError:
            return b""

    def _record(self, key: str) -> StepRecord | None:
        """An attempt's record with the present URLs, or None if it was cut; each is read once."""
        if key not in self._read:
            content = self._content(key)
            if _is_cut(content):
                log.warning("a record was cut off while it was written, and does not count: %s", key)
                return None
            run = key.split("/")[1] if key.startswith("runs/") else key.rpartition("/")[2].rpartition(".")[0]
            try:
                record = StepRecord.from_json(self._parse(key, content))
            except (TypeError, AttributeError) as error:
                raise self._unreadable(key, error) from error
            origin, files = record.reused_from or f"{run}/{record.made_by}", self.store.files
            self._read[key] = replace(
                record,
                inputs={name: self.store.located(artifact) for name, artifact in record.inputs.items()},
                outputs={name: self.store.located(artifact) for name, artifact in record.outputs.items()},
                notebook=record.notebook and files.location(notebook_key(origin)),
                report=record.report and files.location(notebook_key(origin, "html")),
            )
        return self._read[key]

    def _parse(self, key: str, content: bytes) -> dict[str, Any]:
        """A record's values, of this schema or an older one."""
        try:
            values: dict[str, Any] = json.loads(content)
            is_newer = int(values.get("schema", 1)) > SCHEMA
        except (ValueError, TypeError, AttributeError) as error:
            raise self._unreadable(key, error) from error
        if is_newer:
            raise UsageError(
                f"a record of {key.split('/')[1]} was written by a newer version of the pipeline",
                where=self.store.files.location(key),
                expected=f"manifest schema {SCHEMA} or older, found {values['schema']}",
                remedy="update the pipeline",
            )
        return values

    def _unreadable(self, key: str, error: Exception) -> IntegrityError:
        return IntegrityError(
            f"a record cannot be read: {error}",
            where=self.store.files.location(key),
            expected=f"JSON of manifest schema {SCHEMA} or older",
            remedy="move a damaged run's folder out of the store",
        )


def _attempt_key(run: str, record: StepRecord, moment: str) -> str:
    return f"runs/{run}/attempts/{record.step}.{record.attempt:03}.{moment}.json"


def _dump(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _is_cut(content: bytes) -> bool:
    """Whether a record was cut while it was written; one that is damaged otherwise is not."""
    last = content.removesuffix(b"\n").rpartition(b"\n")[2]
    is_whole = content.endswith(b"}\n") and not last.startswith(b" ")  # the braces within a record are indented
    if is_whole or content[:1] not in (b"", b"{"):
        return False
    try:
        json.loads(content)
    except ValueError:
        return True
    return False
