"""The runs of a store, read from and written as records that are each written once; see the package's docstring.

<root>/runs/RUN/run.json
<root>/runs/RUN/attempts/STEP.001.started.json
<root>/runs/RUN/attempts/STEP.001.ended.json
<root>/runs/RUN/manifest.json
<root>/reuse/STEP/FINGERPRINT/RUN.001            an index of successes by the work's fingerprint
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace

from pipeline.errors import IntegrityError, MissingError, PipelineError, StepError, UsageError
from pipeline.runtime.manifest import KILLED, RUN_ID, SUCCEEDED, RunManifest, StepRecord, new_run_id, now
from pipeline.runtime.records import ATTEMPT, attempt_key, content_of, dump, is_cut, parse, read_attempt, unreadable
from pipeline.runtime.store.artifact_store import Store

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
        """Record a new run.

        Raises:
            StepError: A run of this id exists.
        """
        content = asdict(manifest)
        content.pop("attempts")
        if not self.store.files.create(f"runs/{manifest.run}/run.json", dump(content)):
            raise StepError(f"there is a run {manifest.run} already", where=self.store.url, remedy="run again")
        return self.render(manifest.run)

    def ids(self) -> list[str]:
        """Oldest first, without runs whose opening was cut."""
        runs = self._candidates()
        openings = self.store.files.each(self._opening, runs, "reading runs")
        return [run for run, opening in zip(runs, openings, strict=True) if opening is not None]

    def every(self) -> list[tuple[str, RunManifest | str]]:
        """Each run, oldest first, or one line on why it cannot be read: a bad run must not hide the others."""
        runs = self.ids()
        return list(zip(runs, self.store.files.each(self._readable, runs, "reading runs"), strict=True))

    def readable(self) -> list[RunManifest]:
        """Each run that can be read, oldest first; the others are logged."""
        readable = []
        for run, manifest in self.every():
            if isinstance(manifest, str):
                log.warning("run %s is left out: %s", run, manifest)
            else:
                readable.append(manifest)
        return readable

    def load(self, run: str) -> RunManifest:
        """Assemble a run from its records.

        Raises:
            MissingError: No such run.
            UsageError: A newer version wrote it.
            IntegrityError: A record cannot be read.
        """
        key, opening = f"runs/{run}/run.json", self._opening(run)
        if opening is None:
            known = self.ids()
            raise MissingError(
                f"there is no run '{run}'",
                where=f"{self.store.url}/runs",
                expected=f"one of {len(known)}, the newest {known[-1]}" if known else "a run; there is none yet",
                remedy="list them with: python -m pipeline runs",
            )
        content = parse(self.store, key, opening)
        attempts: dict[str, StepRecord] = {}
        for name in sorted(self.record_keys(run), key=lambda name: name.endswith(".started.json")):  # its end first
            attempt = name.removesuffix(".started.json").removesuffix(".ended.json")
            if attempt not in attempts and (record := self._record(name)):
                attempts[attempt] = record
        records = sorted(attempts.values(), key=lambda record: (record.started, record.attempt))
        try:
            return RunManifest.from_json(content, tuple(records))
        except (TypeError, AttributeError) as error:
            raise unreadable(self.store, key, str(error)) from error

    def newest(self, *, pipeline: str = "", having: str = "") -> RunManifest | None:
        """The newest run.

        Args:
            pipeline: Only of this pipeline.
            having: Only with an output of this entity.
        """
        for run in reversed(self._candidates()):
            opening = self._opening(run)
            if opening is None:
                continue
            if pipeline and parse(self.store, f"runs/{run}/run.json", opening).get("pipeline") != pipeline:
                continue
            manifest = self.load(run)
            if not having or manifest.output(having):
                return manifest
        return None

    def record_keys(self, run: str) -> list[str]:
        """Keys of the records of a run's attempts."""
        folder = f"runs/{run}/attempts"
        names = self.store.files.names(folder) if RUN_ID.fullmatch(run) else []
        return [f"{folder}/{name}" for name in names if ATTEMPT.fullmatch(name)]

    def cut_records(self, run: str) -> list[str]:
        """Keys of those records that were cut while they were written."""
        return [key for key in self.record_keys(run) if is_cut(content_of(self.store, key))]

    def start(self, run: str, record: StepRecord) -> StepRecord:
        """Record that an attempt starts, under the next free number."""
        attempts = [found for key in self.record_keys(run) if (found := ATTEMPT.search(key))]
        number = max((int(found["number"]) for found in attempts if found["step"] == record.step), default=0)
        while True:  # another process may take the number first
            number += 1
            numbered = replace(record, attempt=number)
            if self.store.files.create(attempt_key(run, numbered, "started"), dump(asdict(numbered))):
                self.render(run)
                return numbered

    def end(self, run: str, record: StepRecord) -> RunManifest:
        """Record how an attempt ended, and index a success by its fingerprint.

        Raises:
            StepError: Another end of it is recorded already.
        """
        if not self._create_end(run, record):
            raise StepError(
                f"another end of {run}/{record.made_by} is recorded already",
                where=self.store.files.location(attempt_key(run, record, "ended")),
                remedy=f"python -m pipeline show {run}",
            )
        if record.status == SUCCEEDED:
            self.store.files.create(
                f"reuse/{record.step}/{record.fingerprint}/{run}.{record.attempt:03}", dump(asdict(record))
            )
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
            self.store.files.replace(f"runs/{run}/manifest.json", dump(manifest.to_json()))
            before, manifest = manifest, self.load(run)
            if manifest == before:
                return manifest

    def _readable(self, run: str) -> RunManifest | str:
        try:
            return self.load(run)
        except PipelineError as error:
            return error.problem

    def _candidates(self) -> list[str]:
        return [name for name in self.store.files.names("runs") if RUN_ID.fullmatch(name)]

    def _opening(self, run: str) -> bytes | None:
        """The record of a run's opening, or None if there is none or it was cut."""
        if not RUN_ID.fullmatch(run):
            return None
        try:
            content = self.store.files.read(f"runs/{run}/run.json")
        except FileNotFoundError:
            return None
        return None if is_cut(content) else content

    def _create_end(self, run: str, record: StepRecord) -> bool:
        key, content = attempt_key(run, record, "ended"), dump(asdict(record))
        if self.store.files.create(key, content):
            return True
        if not is_cut(content_of(self.store, key)):
            return False
        self.store.files.replace(key, content)  # only one process ends an attempt, and its write was cut
        return True

    def _record(self, key: str) -> StepRecord | None:
        """An attempt's record, or None if it was cut; each is read once, since records never change."""
        if key not in self._read:
            record = read_attempt(self.store, key)
            if record is None:
                return None
            self._read[key] = record
        return self._read[key]
