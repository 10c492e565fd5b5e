"""Finds what no kept run refers to, and removes only that, beside any number of steps; see the store's docstring."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.errors import IntegrityError, UsageError
from pipeline.runtime.engines.choice import is_at_work
from pipeline.runtime.manifest import RUN_ID, RUNNING, RunManifest, StepRecord
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import YOUNG, Artifact
from pipeline.runtime.store.file_store import FileInfo

SPARED = 2 * YOUNG  # seconds
FOLDERS = ("runs", "reuse", "artifacts", "probes", "resume")  # and objects, of which there may be millions
ABANDONED = 14 * 24 * 3600.0  # seconds
AT_ANY_AGE = float("inf")
LOST = 7 * 24 * 3600.0  # seconds after which a running attempt of an unreachable machine no longer holds things back


@dataclass(frozen=True)
class Garbage:
    """The runs that stay, those that are removed, and the files that can be removed."""

    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    before: float  # only files last written before this time, in seconds since 1970, are removed
    records: tuple[FileInfo, ...]  # of dropped runs and of runs that were never opened, in the order of their removal
    markers: tuple[FileInfo, ...]  # indexes of artifacts that no kept run refers to
    objects: tuple[FileInfo, ...]  # file contents that no remaining artifact holds
    scraps: tuple[FileInfo, ...]  # unfinished and damaged files

    @property
    def files(self) -> tuple[FileInfo, ...]:
        """All files that can be removed."""
        return (*self.records, *self.markers, *self.objects, *self.scraps)


def find_garbage(runs: Runs, *, keep: int | None = None, spare: float = SPARED) -> Garbage:
    """Find the files that no kept run refers to; nothing is changed.

    The newest `keep` runs of each pipeline are kept, or all; so is a run of which a kept run reuses an attempt, because
    the kept run shows its notebooks. For `spare` seconds every file stays. While a run or an index cannot be read,
    its references are not known, and nothing is garbage.
    """
    if keep is not None and keep < 1:
        raise UsageError(f"--keep {keep}", expected="at least 1: the newest run is never removed")
    manifests = {run: runs.load(run) for run in runs.ids()}
    begun = [(run, record) for run, manifest in manifests.items() for record in manifest.attempts]
    running = [(run, record) for run, record in begun if _may_run(runs, run, record)]
    # what a running step relies on was young when it began, or has been renewed since
    before = min([time.time() - spare, *(_seconds(record.started) - YOUNG for _, record in running)])
    kept = _kept(manifests, keep, before, {run for run, _ in running})
    found = [info for folder in FOLDERS for info in runs.store.files.find(folder)]
    whole = [info for info in found if not _is_scrap(info)]
    records = [info for info in whole if info.key.startswith(("runs/", "reuse/"))]
    stored = [info for info in whole if info.key.startswith("artifacts/")]
    referred = {each.key for run in kept for record in manifests[run].attempts for each in record.artifacts}
    markers = [info for info in stored if info.key not in referred and info.modified < before]
    dead = {info.key for info in markers}
    live = _live_objects(runs, [info for info in stored if info.key not in dead])
    scraps = [info for info in found if _is_scrap(info)]
    objects = []
    for info in runs.store.files.find("objects"):  # one by one: nearly all are live
        if _is_scrap(info):
            scraps.append(info)
        elif info.key not in live and info.modified < before:
            objects.append(info)
    return Garbage(
        kept=tuple(run for run in manifests if run in kept),
        dropped=tuple(run for run in manifests if run not in kept),
        before=before,
        records=_dead_records(records, manifests, kept, before),
        markers=tuple(markers),
        objects=tuple(objects),
        scraps=(*(info for info in scraps if info.modified < before), *_abandoned_resume(whole)),
    )


def abandoned(resume: Path) -> list[Path]:
    """The folders of killed attempts on this machine that nobody has continued for a while."""

    def is_old(path: Path) -> bool:
        try:
            return path.stat().st_mtime < time.time() - ABANDONED
        except FileNotFoundError:  # a training has just replaced it
            return False

    folders = sorted(resume.iterdir()) if resume.is_dir() else []
    return [folder for folder in folders if all(map(is_old, (folder, *folder.rglob("*"))))]


def collect(runs: Runs, garbage: Garbage, leftovers: Iterable[Path] = ()) -> list[FileInfo]:
    """Remove garbage, except what has come into use since it was found, and `leftovers`, folders of killed attempts.

    A run disappears as a whole with its first file. The rest of a killed collection is garbage for the next one.
    The files that were removed from the store are returned.
    """
    for folder in leftovers:
        shutil.rmtree(folder, ignore_errors=True)
    files, known = runs.store.files, {info.key for info in garbage.records}
    # a run in which a step has begun meanwhile stays
    in_use = {run for run in garbage.dropped if not set(runs.record_keys(run)) <= known}
    records = [info for info in garbage.records if _run_of(info) not in in_use]
    first = [info for info in records if _removal_order(info) < (True, True)]
    removed = [info for info in first if files.remove(info.key, AT_ANY_AGE)]
    removed += _remove(runs, records[len(first) :], AT_ANY_AGE)
    for run in {_run_of(info) for info in garbage.records}:
        files.prune(f"runs/{run}")
    removed += _remove(runs, garbage.markers, garbage.before)
    # an artifact that was renewed meanwhile keeps its objects
    stored = [info for info in files.find("artifacts") if not _is_scrap(info)]
    live = _live_objects(runs, stored) if garbage.objects else set()
    removed += _remove(runs, [info for info in garbage.objects if info.key not in live], garbage.before)
    return [*removed, *_remove(runs, garbage.scraps, garbage.before)]


def _remove(runs: Runs, found: Iterable[FileInfo], before: float) -> list[FileInfo]:
    waiting, files = list(found), runs.store.files
    gone = files.each(lambda info: files.remove(info.key, before), waiting, "removing")
    return [info for info, is_gone in zip(waiting, gone, strict=True) if is_gone]


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _may_run(runs: Runs, run: str, record: StepRecord) -> bool:
    """Whether an attempt may be running; one on an unreachable machine counts only for `LOST` seconds."""
    if record.status != RUNNING:
        return False
    alive = is_at_work(runs.store, run, record)
    return time.time() - _seconds(record.started) <= LOST if alive is None else alive


def _kept(manifests: dict[str, RunManifest], keep: int | None, before: float, busy: set[str]) -> set[str]:
    newest: dict[str, list[str]] = {}
    for run in sorted(manifests, reverse=True):
        newest.setdefault(manifests[run].pipeline, []).append(run)
    kept = {run for runs in newest.values() for run in runs[:keep]}
    for run, manifest in manifests.items():
        began = max([manifest.created, *(record.started for record in manifest.attempts)])
        if _seconds(began) >= before or run in busy:
            kept.add(run)
    waiting = list(kept)
    while waiting:
        sources = {record.reused_from.partition("/")[0] for record in manifests[waiting.pop()].attempts}
        new = sources & manifests.keys() - kept
        kept |= new
        waiting += new
    return kept


def _live_objects(runs: Runs, markers: Iterable[FileInfo]) -> set[str]:
    """The keys of the objects that artifacts hold."""

    def held(info: FileInfo) -> list[str]:
        _, name, digest = info.key.split("/")
        try:
            return [file.key for file in runs.store.index(Artifact(name, "", digest, 0, 0))]
        except FileNotFoundError:  # another collection has just removed it
            return []
        except IntegrityError as error:
            raise IntegrityError(
                f"nothing is collected while an index is damaged: {error.problem}",
                where=runs.store.files.location(info.key),
                remedy="python -m pipeline verify says which step makes it anew",
            ) from error

    found = runs.store.files.each(held, markers, "reading indexes")
    return {key for keys in found for key in keys}


def _dead_records(
    records: Iterable[FileInfo], manifests: dict[str, RunManifest], kept: set[str], before: float
) -> tuple[FileInfo, ...]:
    """Files of dropped runs at any age, old files of runs that were never opened, and their offers for reuse."""
    dead = [
        info
        for info in records
        if RUN_ID.fullmatch(run := _run_of(info)) and run not in kept and (run in manifests or info.modified < before)
    ]
    return tuple(sorted(dead, key=lambda info: (_removal_order(info), info.key)))


def _abandoned_resume(found: Iterable[FileInfo]) -> list[FileInfo]:
    """What lost jobs have left to resume from, and nobody has continued for a while."""
    folders: dict[str, list[FileInfo]] = {}
    for info in found:
        if info.key.startswith("resume/"):
            folders.setdefault(info.key.rpartition("/")[0], []).append(info)
    limit = time.time() - ABANDONED
    return [info for files in folders.values() if all(each.modified < limit for each in files) for info in files]


def _run_of(info: FileInfo) -> str:
    """The run of a record, or of an offer for reuse."""
    folder, _, rest = info.key.partition("/")
    return rest.partition("/")[0] if folder == "runs" else rest.rpartition("/")[2].rpartition(".")[0]


def _removal_order(info: FileInfo) -> tuple[bool, bool]:
    """Offers for reuse first, then the openings of runs, then the rest."""
    return not info.key.startswith("reuse/"), not info.key.endswith("/run.json")


def _is_scrap(info: FileInfo) -> bool:
    name = info.key.rpartition("/")[2]
    return name.startswith(".") or name.endswith(".damaged") or info.key.startswith("probes/")
