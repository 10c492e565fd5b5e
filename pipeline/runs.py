"""The runs of a store, read from and written as records.

The truth is a set of small records, each written once: the run was opened, an attempt at a step started, an attempt
ended. `manifest.json` is rendered from them after each, for people and programs to read, and never read back. So there
is no read-modify-write and no lock, and two writers lose nothing.

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

from pipeline.errors import IntegrityError, MissingError, UsageError
from pipeline.manifest import RUN_ID, SCHEMA, SUCCEEDED, RunManifest, StepRecord
from pipeline.store import Store

RECORD = re.compile(r"(?P<step>\w+)\.(?P<number>\d+)\.(?P<moment>started|ended)\.json")

log = logging.getLogger(__name__)


class Runs:
    """The runs of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def open(self, manifest: RunManifest) -> RunManifest:
        """Record a new run."""
        content = asdict(manifest)
        content.pop("attempts")
        self.store.files.create(f"runs/{manifest.run}/run.json", _dump(content))
        return self.render(manifest.run)

    def ids(self) -> list[str]:
        """Oldest first. A run whose opening was cut short is none."""
        return [run for run in self.store.files.names("runs") if self._is_open(run)]

    def _is_open(self, run: str) -> bool:
        return bool(RUN_ID.fullmatch(run)) and self.store.files.exists(f"runs/{run}/run.json")

    def load(self, run: str) -> RunManifest:
        """Put a run together from its records.

        Raises:
            MissingError: No such run.
            UsageError: It was written by a newer version.
            IntegrityError: A record cannot be read.
        """
        return self._load(run, self._records(run))

    def _records(self, run: str) -> list[str]:
        if not RUN_ID.fullmatch(run):
            return []
        return [name for name in self.store.files.names(f"runs/{run}/attempts") if RECORD.fullmatch(name)]

    def _load(self, run: str, names: list[str]) -> RunManifest:
        folder = f"runs/{run}"
        if not self._is_open(run):
            known = self.ids()
            raise MissingError(
                f"there is no run '{run}'",
                where=f"{self.store.url}/runs",
                expected=f"one of {len(known)}, the newest {known[-1]}" if known else "a run; there is none yet",
                remedy="list them with: python -m pipeline runs",
            )
        content = self._read(f"{folder}/run.json")
        if content.get("schema", 0) > SCHEMA:
            raise UsageError(
                f"run {run} was written by a newer version of the pipeline",
                where=f"{self.store.url}/{folder}/run.json",
                expected=f"manifest schema {SCHEMA} or older, found {content['schema']}",
                remedy="update the pipeline",
            )
        attempts: dict[str, StepRecord] = {}
        for name in sorted(names, key=lambda name: name.endswith(".started.json")):  # how it ended, where it has
            key = name.removesuffix(".started.json").removesuffix(".ended.json")
            if key not in attempts:
                attempts[key] = self._record(f"{folder}/attempts/{name}")
        records = sorted(attempts.values(), key=lambda record: (record.started, record.attempt))
        try:
            return RunManifest(**{**content, "attempts": tuple(records)})
        except TypeError as error:
            raise _unreadable(f"{self.store.url}/{folder}/run.json", str(error)) from error

    def newest(self, *, pipeline: str = "", having: str = "") -> RunManifest | None:
        """The newest run, of one pipeline or having an output of one entity where asked for."""
        for run in reversed(self.ids()):
            manifest = self.load(run)
            if (not pipeline or manifest.pipeline == pipeline) and (not having or manifest.output(having)):
                return manifest
        return None

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
        """Record how an attempt ended, and make a success findable by what it was made from."""
        self.store.files.create(self._key(run, record, "ended"), _dump(asdict(record)))
        if record.status == SUCCEEDED:
            self.store.files.create(
                f"reuse/{record.step}/{record.fingerprint}/{run}.{record.attempt:03}", _dump(asdict(record))
            )
        return self.render(run)

    def same_work(self, step: str, fingerprint: str) -> tuple[str, StepRecord] | None:
        """The newest success of the same work whose outputs are all still in the store, and its run."""
        folder = f"reuse/{step}/{fingerprint}"
        for name in reversed(self.store.files.names(folder)):
            try:
                record = self._record(f"{folder}/{name}")
            except IntegrityError as error:  # the worst that comes of it is that a step runs again
                log.warning("%s", error)
                continue
            if all(self.store.has(artifact) for artifact in record.outputs.values()):
                return name.rsplit(".", 1)[0], record
        return None

    def render(self, run: str) -> RunManifest:
        """Write `manifest.json` anew from the records.

        Of two processes that render at once, the last to write may have read before the other's record was there. Each
        therefore looks again after writing, and so the last word has every record in it.
        """
        names = self._records(run)
        while True:
            manifest = self._load(run, names)
            self.store.files.replace(f"runs/{run}/manifest.json", _dump(manifest.to_json()))
            before, names = names, self._records(run)
            if names == before:
                return manifest

    def _key(self, run: str, record: StepRecord, moment: str) -> str:
        return f"runs/{run}/attempts/{record.step}.{record.attempt:03}.{moment}.json"

    def _read(self, key: str) -> dict[str, Any]:
        try:
            content = json.loads(self.store.files.read(key))
        except ValueError as error:
            raise _unreadable(f"{self.store.url}/{key}", str(error)) from error
        if not isinstance(content, dict):
            raise _unreadable(f"{self.store.url}/{key}", "it is no JSON object")
        return content

    def _record(self, key: str) -> StepRecord:
        content = self._read(key)
        try:
            return StepRecord.from_json(content)
        except (TypeError, AttributeError) as error:
            raise _unreadable(f"{self.store.url}/{key}", str(error)) from error


def _unreadable(where: str, why: str) -> IntegrityError:
    return IntegrityError(
        f"a record cannot be read: {why}",
        where=where,
        expected=f"JSON of manifest schema {SCHEMA}",
        remedy="update the pipeline if a newer one wrote it; move a damaged run's folder out of the store",
    )


def _dump(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
