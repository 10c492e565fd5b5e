"""The runs of a store, read from and written as records.

The truth is a set of small records, each written once: the run was opened, an attempt at a step started, an attempt
ended. `manifest.json` is rendered from them after each, for people and programs to read, and never read back. So there
is no read-modify-write and no lock, and two writers lose nothing.

A record ends in a line of its own. One that does not was cut off while it was written, which only places without
exclusive links or conditional writes allow; nobody was told that it had been written, so it counts as not written.

    <root>/runs/RUN/run.json
    <root>/runs/RUN/attempts/STEP.001.started.json
    <root>/runs/RUN/attempts/STEP.001.ended.json
    <root>/runs/RUN/manifest.json
    <root>/reuse/STEP/FINGERPRINT/RUN.001            an index of successes, by what they were made from
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from pipeline.errors import IntegrityError, MissingError, PipelineError, StepError, UsageError
from pipeline.runtime.manifest import KILLED, RUN_ID, SCHEMA, SUCCEEDED, RunManifest, StepRecord, new_run_id, now
from pipeline.runtime.store.artifact_store import Store
from pipeline.runtime.store.parallel_transfers import in_parallel

SECONDS = len("20260101T000000")  # of a run's id
WHOLE = b"}\n"  # how a record ends
RECORD = re.compile(r"(?P<step>\w+)\.(?P<number>\d+)\.(?P<moment>started|ended)\.json")

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
        """Record a new run.

        Raises:
            StepError: There is another run of this id.
        """
        content = asdict(manifest)
        content.pop("attempts")
        if not self.store.files.create(f"runs/{manifest.run}/run.json", _dump(content)):
            raise StepError(f"there is a run {manifest.run} already", where=self.store.url, remedy="run again")
        return self.render(manifest.run)

    def ids(self) -> list[str]:
        """Oldest first. A run whose opening was cut short is none."""
        runs = self._candidates()
        openings = in_parallel(self._opening, runs, at_once=self.store.files.parallel, label="reading runs")
        return [run for run, opening in zip(runs, openings, strict=True) if opening is not None]

    def every(self) -> list[tuple[str, RunManifest | str]]:
        """Each run, oldest first, or in one line why it cannot be read: one bad run must not hide the others."""
        runs = self.ids()
        read = in_parallel(self._readable, runs, at_once=self.store.files.parallel, label="reading runs")
        return list(zip(runs, read, strict=True))

    def readable(self) -> list[RunManifest]:
        """Each run that can be read, oldest first; what cannot is logged."""
        readable = []
        for run, manifest in self.every():
            if isinstance(manifest, str):
                log.warning("run %s is left out: %s", run, manifest)
            else:
                readable.append(manifest)
        return readable

    def load(self, run: str) -> RunManifest:
        """Put a run together from its records.

        Raises:
            MissingError: No such run.
            UsageError: It was written by a newer version.
            IntegrityError: A record cannot be read.
        """
        return self._load(run, self._records(run))

    def newest(self, *, pipeline: str = "", having: str = "") -> RunManifest | None:
        """The newest run, of one pipeline or having an output of one entity where asked for."""
        for run in reversed(self._candidates()):
            opening = self._opening(run)
            if opening is None or (
                pipeline and self._parsed(opening, f"runs/{run}/run.json").get("pipeline") != pipeline
            ):
                continue
            manifest = self.load(run)
            if not having or manifest.output(having):
                return manifest
        return None

    def _readable(self, run: str) -> RunManifest | str:
        try:
            return self.load(run)
        except PipelineError as error:
            return error.problem

    def _candidates(self) -> list[str]:
        return [name for name in self.store.files.names("runs") if RUN_ID.fullmatch(name)]

    def _opening(self, run: str) -> bytes | None:
        """The record of a run's opening, or None where there is none."""
        if not RUN_ID.fullmatch(run):
            return None
        try:
            content = self.store.files.read(f"runs/{run}/run.json")
        except FileNotFoundError:
            return None
        return None if _is_cut(content) else content

    def _records(self, run: str) -> list[str]:
        if not RUN_ID.fullmatch(run):
            return []
        return [name for name in self.store.files.names(f"runs/{run}/attempts") if RECORD.fullmatch(name)]

    def _load(self, run: str, names: list[str]) -> RunManifest:
        opening, folder = self._opening(run), f"runs/{run}"
        if opening is None:
            known = self.ids()
            raise MissingError(
                f"there is no run '{run}'",
                where=f"{self.store.url}/runs",
                expected=f"one of {len(known)}, the newest {known[-1]}" if known else "a run; there is none yet",
                remedy="list them with: python -m pipeline runs",
            )
        content = self._parsed(opening, f"{folder}/run.json")
        attempts: dict[str, StepRecord] = {}
        for name in sorted(names, key=lambda name: name.endswith(".started.json")):  # how it ended, where it has
            key = name.removesuffix(".started.json").removesuffix(".ended.json")
            if key not in attempts and (record := self._record(f"{folder}/attempts/{name}")):
                attempts[key] = record
        records = sorted(attempts.values(), key=lambda record: (record.started, record.attempt))
        try:
            return RunManifest.from_json(content, tuple(records))
        except (TypeError, AttributeError) as error:
            raise self._unreadable(f"{folder}/run.json", str(error)) from error

    def record_keys(self, run: str) -> list[str]:
        """Where the records of a run's attempts lie."""
        return [f"runs/{run}/attempts/{name}" for name in self._records(run)]

    def cut_records(self, run: str) -> list[str]:
        """Those of them that were cut off while they were written."""
        return [key for key in self.record_keys(run) if _is_cut(self._content(key))]

    def _content(self, key: str) -> bytes:
        try:
            return self.store.files.read(key)
        except FileNotFoundError as error:
            raise MissingError(
                f"run {key.split('/')[1]} is being removed", where=self.store.files.location(key), remedy="look again"
            ) from error

    def start(self, run: str, record: StepRecord) -> StepRecord:
        """Record that an attempt starts, under the next free number."""
        taken = [found for found in map(RECORD.fullmatch, self._records(run)) if found and found["step"] == record.step]
        number = max((int(found["number"]) for found in taken), default=0)
        while True:  # until no other process has taken the number
            number += 1
            numbered = replace(record, attempt=number)
            if self.store.files.create(self._key(run, numbered, "started"), _dump(asdict(numbered))):
                self.render(run)
                return numbered

    def end(self, run: str, record: StepRecord) -> RunManifest:
        """Record how an attempt ended, and make a success findable by what it was made from.

        Raises:
            StepError: Another end of it is recorded already.
        """
        if not self._create_end(run, record):
            raise StepError(
                f"another end of {run}/{record.made_by} is recorded already",
                where=self.store.files.location(self._key(run, record, "ended")),
                remedy=f"python -m pipeline show {run}",
            )
        if record.status == SUCCEEDED:
            self.store.files.create(
                f"reuse/{record.step}/{record.fingerprint}/{run}.{record.attempt:03}", _dump(asdict(record))
            )
        return self.render(run)

    def _create_end(self, run: str, record: StepRecord) -> bool:
        key, content = self._key(run, record, "ended"), _dump(asdict(record))
        if self.store.files.create(key, content):
            return True
        if not _is_cut(self._content(key)):
            return False
        self.store.files.replace(key, content)  # only one process ends an attempt, and it was cut off
        return True

    def bury(self, manifest: RunManifest) -> RunManifest:
        """Record the end of attempts whose process is known to be gone: without it they would run for ever."""
        killed = [record for record in manifest.attempts if record.is_killed]
        for record in killed:
            told = replace(record, status=KILLED, ended=now(), error="its process was killed", error_kind="Killed")
            self._create_end(manifest.run, told)
        return self.render(manifest.run) if killed else manifest

    def same_work(self, step: str, fingerprint: str) -> tuple[str, StepRecord] | None:
        """The newest success of the same work whose outputs are all still in the store, and its run.

        They are spared from collection until the record that refers to them is written.
        """
        folder = f"reuse/{step}/{fingerprint}"
        for name in reversed(self.store.files.names(folder)):
            try:
                record = self._record(f"{folder}/{name}")
            except (IntegrityError, UsageError) as error:  # the worst that comes of it is that a step runs again
                log.warning("%s", error)
                continue
            if record and all(self.store.keep_alive(artifact) for artifact in record.outputs.values()):
                return name.rsplit(".", 1)[0], record
        return None

    def render(self, run: str) -> RunManifest:
        """Write `manifest.json` anew from the records.

        Of two processes that render at once, the last to write may have read before the other's record was there. Each
        therefore looks again after writing, and so the last word has every record in it.
        """
        manifest = self.load(run)
        while True:
            self.store.files.replace(f"runs/{run}/manifest.json", _dump(manifest.to_json()))
            before, manifest = manifest, self.load(run)
            if manifest == before:
                return manifest

    def _key(self, run: str, record: StepRecord, moment: str) -> str:
        return f"runs/{run}/attempts/{record.step}.{record.attempt:03}.{moment}.json"

    def _record(self, key: str) -> StepRecord | None:
        """An attempt's record, or None where it was cut off while it was written."""
        if key in self._read:
            return self._read[key]
        content = self._content(key)
        if _is_cut(content):
            log.warning("a record was cut off while it was written, and does not count: %s", key)
            return None
        values = self._parsed(content, key)
        try:
            self._read[key] = StepRecord.from_json(values)
        except (TypeError, AttributeError) as error:
            raise self._unreadable(key, str(error)) from error
        return self._read[key]

    def _parsed(self, content: bytes, key: str) -> dict[str, Any]:
        """A record's values, of this schema or an older one."""
        try:
            values = json.loads(content)
        except ValueError as error:
            raise self._unreadable(key, str(error)) from error
        if not isinstance(values, dict):
            raise self._unreadable(key, "it is no JSON object")
        found = values.get("schema", 1)
        if not isinstance(found, int):
            raise self._unreadable(key, "its schema is no number")
        if found > SCHEMA:
            raise UsageError(
                f"a record of {key.split('/')[1]} was written by a newer version of the pipeline",
                where=self.store.files.location(key),
                expected=f"manifest schema {SCHEMA} or older, found {found}",
                remedy="update the pipeline",
            )
        return values

    def _unreadable(self, key: str, why: str) -> IntegrityError:
        return IntegrityError(
            f"a record cannot be read: {why}",
            where=self.store.files.location(key),
            expected=f"JSON of manifest schema {SCHEMA} or older",
            remedy="move a damaged run's folder out of the store",
        )


def _is_cut(content: bytes) -> bool:
    if content.endswith(WHOLE) or content[:1] not in (b"", b"{"):
        return False
    try:
        json.loads(content)
    except ValueError:
        return True
    return False


def _dump(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
