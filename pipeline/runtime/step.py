"""A step in a notebook: its inputs as local folders, its outputs as folders to fill, and one commit."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import GateError, IntegrityError, StepError, UsageError
from pipeline.files import sha256_of, write_atomically
from pipeline.limits import is_within
from pipeline.runtime.step_context import COMMITTED, CONTEXT, StepContext, project_root
from pipeline.runtime.store.artifact_store import Artifact, Store

log = logging.getLogger(__name__)


class Folders(Mapping[str, Path]):
    """Entity name to local folder. An input is fetched at its first use; an undeclared name is refused."""

    def __init__(self, kind: str, folders: dict[str, Path], artifacts: Mapping[str, Artifact], store: Store) -> None:
        self._kind = kind
        self._folders = folders
        self._artifacts = artifacts
        self._store = store
        self._fetched: dict[str, dict[str, tuple[int, int, int]]] = {}

    def __getitem__(self, name: str) -> Path:
        if name not in self._folders:
            raise UsageError(
                f"'{name}' is not among the step's {self._kind}",
                where="the notebook's interface cell",
                expected=", ".join(self._folders) or "none are declared",
                remedy="declare it in Step.open(...)",
            )
        folder = self._folders[name]
        if name in self._artifacts and name not in self._fetched:
            log.info("reading %s %s", name, self._artifacts[name].digest[:12])
            self._store.get(self._artifacts[name], folder, link=True)
            self._fetched[name] = _stats(folder)
        return folder

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)

    def check(self) -> None:
        """Verify that no fetched file was changed or removed.

        Raises:
            IntegrityError: One was: the result would not be made from the recorded inputs.
        """
        for name, before in self._fetched.items():
            folder, now = self._folders[name], _stats(self._folders[name])
            touched = [path for path in before if now.get(path) != before[path]]
            altered = self._altered(name, touched) if touched else []
            if altered:
                self._store.check(self._artifacts[name])  # the files may be hard links to the store's own
                raise IntegrityError(
                    f"the step changed its input {name}: {', '.join(altered[:3])}{' ...' if len(altered) > 3 else ''}",
                    where=folder,
                    expected="inputs that are only read",
                    remedy="copy the files into step.work before changing them, then run the step again; if its input "
                    "is then reported as damaged, first run the step that makes it with --force",
                )
            for path in sorted(now.keys() - before.keys())[:3]:
                log.warning("%s: %s was written into an input; it is not kept: write into step.work", name, path)

    def _altered(self, name: str, touched: list[str]) -> list[str]:
        """Those of the touched files whose bytes differ: a hard-linked file gets new times when its object does."""
        sha256 = {file.path: file.sha256 for file in self._store.index(self._artifacts[name])}
        paths = {path: self._folders[name] / path for path in touched}
        return sorted(name for name, path in paths.items() if not path.is_file() or sha256_of(path) != sha256[name])


class Step:
    """One step at work; see `open`.

    Attributes:
        name: The step's name.
        inputs: Entity name to a local folder with its files; to be read only.
        outputs: Entity name to an empty local folder to fill.
        cache: A folder that outlives attempts, for downloads.
        resume: A folder that outlives a killed or failed attempt, for the next attempt at the same work: same notebook,
            parameters, inputs and code. It is removed when the step succeeds.
        logs: A folder of this attempt that outlives it; it need not exist. Files that are watched while the step runs,
            such as TensorBoard's, go there: their times and host names would make every output different.
        work: A folder of this attempt, removed with it.
        mode: `dev` or `prod`.
        chosen: Inputs named by hand, those of earlier steps as `STEP: ENTITY`, each with its run, artifact or URL.
        uses: For each input, the number of different other inputs that this step has used it with over all runs of the
            store, this attempt included.
    """

    def __init__(self, context: StepContext, reads: Sequence[str], writes: Sequence[str]) -> None:
        self.name = context.step
        self.work = Path(context.work)
        self.cache = Path(context.cache)
        self.resume = Path(context.resume)
        self.logs = Path(context.logs)
        self.mode = context.mode
        self.chosen = dict(context.chosen)
        self.uses = dict(context.uses)
        self._context = context
        self._store = Store(context.store)
        outputs = {name: self.work / "outputs" / name for name in writes}
        for folder in (*outputs.values(), self.cache, self.resume):
            folder.mkdir(parents=True, exist_ok=True)
        inputs = {name: self.work / "inputs" / name for name in reads}
        self.inputs = Folders("inputs", inputs, context.inputs, self._store)
        self.outputs = Folders("outputs", outputs, {}, self._store)

    @classmethod
    def open(cls, name: str, *, reads: Sequence[str], writes: Sequence[str]) -> Step:
        """Begin a step. The notebook's `interface` cell holds this call with literals, which are read without running.

        Args:
            name: The step's name, the notebook's file name without its suffix.
            reads: Entities it needs.
            writes: Entities it makes.

        Raises:
            StepError: The runner runs another step.
            MissingError: Opened by hand, and no dev run has made an input yet.
        """
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
        path = os.environ.get(CONTEXT)
        if path is None:
            return cls(StepContext.opened_by_hand(name, reads), reads, writes)
        context = StepContext.read(Path(path))
        if context.step != name:
            raise StepError(
                f"the notebook opens step '{name}' while '{context.step}' runs",
                where="the notebook's interface cell",
                expected=f"Step.open('{context.step}', ...)",
            )
        if context.by_hand:
            os.chdir(project_root())  # parameters name files relative to the project, as they do headless
            for folder in ("inputs", "outputs"):  # its cells may have run before
                shutil.rmtree(Path(context.work) / folder, ignore_errors=True)
        return cls(context, reads, writes)

    @property
    def provenance(self) -> dict[str, str]:
        """What a report states as its origin: the attempt, and each input's digest."""
        digests = {
            name: artifact.digest + (f", chosen by hand: {self.chosen[name]}" if name in self.chosen else "")
            for name, artifact in self._context.inputs.items()
        }
        before = {name: f"chosen by hand: {source}" for name, source in self.chosen.items() if name not in digests}
        return {"made by": self._context.made_by, **digests, **before}

    def commit(
        self,
        *,
        metrics: Mapping[str, Any],
        minimum: Mapping[str, float] | None = None,
        maximum: Mapping[str, float] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Publish every output and record the metrics. The step has published nothing before.

        Args:
            metrics: Numbers, strings, booleans, or None for an undefined value, by name; NaN is recorded as None. A
                summary shows the first two.
            minimum: The quality gate: metric name to the least value that passes; 0 or less is no gate. A step that
                misses it fails, yet its outputs are stored, since the report on a bad model is of interest.
            maximum: The same with the greatest value that passes. An undefined metric passes.
            notes: Sentences that a user must know and no metric tells; shown below the step's line.

        Raises:
            UsageError: A metric is of another type, or a gate names no metric.
            StepError: An output is empty, or the step has committed already.
            IntegrityError: The step changed its inputs.
            GateError: A metric is below its minimum or above its maximum.
        """
        recorded = {name: _plain(name, value) for name, value in metrics.items()}
        missed = _missed_gates(recorded, minimum or {}, maximum or {})
        empty = [name for name in self.outputs if not any(self.outputs[name].iterdir())]
        if empty:
            raise StepError(
                f"the step wrote nothing to {', '.join(empty)}",
                where=self.name,
                expected="at least one file in every declared output",
                remedy=f"write into step.outputs['{empty[0]}']",
            )
        self.inputs.check()
        if self._context.by_hand:
            log.info("opened by hand: the outputs stay in %s", self.work / "outputs")
            if CONTEXT not in os.environ:  # otherwise this is a copy of an earlier run's notebook
                log.info("publish with: python step.dev.py %s", self.name)
        else:
            self._publish(recorded, [str(note) for note in notes])
        if missed:
            raise GateError(
                f"the quality gate is not passed: {', '.join(found for found, _ in missed)}",
                where=self.name,
                expected=", ".join(wanted for _, wanted in missed),
                remedy="read the report and correct what it shows, or set another limit in the config",
            )

    def _publish(self, metrics: dict[str, Any], notes: list[str]) -> None:
        committed = self.work / COMMITTED
        if committed.exists():
            raise StepError("the step has committed already", where=self.name, expected="step.commit(...) once")
        stored = {name: self._store.put(name, self.outputs[name], self._context.made_by) for name in self.outputs}
        for name, artifact in stored.items():
            log.info("wrote %s %s, %d files, %.1f MB", name, artifact.digest[:12], artifact.files, artifact.size / 1e6)
        outputs = {name: asdict(artifact) for name, artifact in stored.items()}
        write_atomically(committed, json.dumps({"outputs": outputs, "metrics": metrics, "notes": notes}))


def _plain(name: str, value: Any) -> bool | int | float | str | None:
    """A metric as JSON: numpy's numbers as Python's, NaN and infinity as None."""
    plain = value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value
    if isinstance(plain, float) and not math.isfinite(plain):
        return None
    if plain is None or isinstance(plain, bool | int | float | str):
        return plain
    raise UsageError(
        f"the metric '{name}' is a {type(value).__name__}",
        where="step.commit(metrics=...)",
        expected="a number, a string, a boolean, or None",
        remedy="write larger values into an output",
    )


def _missed_gates(
    metrics: Mapping[str, Any], minimum: Mapping[str, float], maximum: Mapping[str, float]
) -> list[tuple[str, str]]:
    """The gates that are not passed: the found value and the expected one, as text."""
    minimum = {name: least for name, least in minimum.items() if least > 0}
    for name in (*minimum, *maximum):
        if name not in metrics:
            raise UsageError(f"the gate is for '{name}', which is no metric", expected=", ".join(metrics))
    low = [
        (f"{name} is {_text(metrics[name])}, below {least:g}", f"{name} of at least {least:g}")
        for name, least in minimum.items()
        if not is_within(metrics[name], minimum=least)
    ]
    high = [
        (f"{name} is {_text(metrics[name])}, above {most:g}", f"{name} of at most {most:g}")
        for name, most in maximum.items()
        if not is_within(metrics[name], maximum=most)
    ]
    return low + high


def _text(value: Any) -> str:
    return "not defined" if value is None else f"{float(value):.4g}"


def _stats(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Size, time and identity of each file, which change when it is written."""
    files = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (found.st_size, found.st_mtime_ns, found.st_ino) for path, found in files
    }
