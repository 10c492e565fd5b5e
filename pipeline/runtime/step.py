"""What a notebook holds: its declared inputs as local folders, its outputs as folders to fill, and one commit.

Headless, the runner has pinned the inputs and says so in a file named by `PIPELINE_STEP`. Opened by hand in Jupyter
there is no such file, and the same notebook gets the newest dev run's inputs; what it writes stays in its own folder
and is published by running the step, so that a record never rests on cells run in some other order.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import GateError, IntegrityError, MissingError, StepError, UsageError
from pipeline.runtime.inputs import chosen_before, count_uses, require_agreement
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact, Store
from pipeline.runtime.store.file_store import sha256_of

CONTEXT = "PIPELINE_STEP"
DEV_STORE = ".cache/dev_store"  # names the store of the newest dev run, for notebooks opened by hand
COMMITTED = "committed.json"  # in the attempt's folder: what the notebook published
ROUNDING = 1e-9  # a mean of many quotients that is 0.5 on paper may be 0.49999999999999994

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepContext:
    """What the runner tells a notebook; JSON in a file.

    Attributes:
        step: Whose turn it is.
        made_by: `run/step/attempt`, recorded with each output.
        store: URL of the store.
        work: The attempt's own folder.
        cache: A folder that outlives the attempt.
        inputs: Pinned artifacts by entity name.
        resume: A folder that outlives a killed attempt at the very same work.
        logs: A folder that outlives the attempt, for what is to be watched while it runs and is no output.
        by_hand: Whether a person runs the cells, so that nothing is published.
        mode: `dev` or `prod`.
        chosen: Inputs that were named by hand, those of earlier steps as `STEP: ENTITY`: to a run, artifact or URL.
        uses: Of each input, with how many different other inputs this step has met it, see `inputs.count_uses`.
    """

    step: str
    made_by: str
    store: str
    work: str
    cache: str
    inputs: dict[str, Artifact]
    resume: str
    logs: str
    by_hand: bool = False
    mode: str = "dev"
    chosen: dict[str, str] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it for the kernel to read."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> StepContext:
        """Read what `write` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        values["inputs"] = {name: Artifact(**artifact) for name, artifact in values["inputs"].items()}
        return cls(**values)


class Folders(Mapping[str, Path]):
    """Entity name to local folder, laid out when first asked for; an undeclared name is refused."""

    def __init__(self, kind: str, folders: dict[str, Path], artifacts: Mapping[str, Artifact], store: Store) -> None:
        self._kind = kind
        self._folders = folders
        self._artifacts = artifacts
        self._store = store
        self._laid_out: dict[str, dict[str, tuple[int, int, int]]] = {}

    def __getitem__(self, name: str) -> Path:
        if name not in self._folders:
            raise UsageError(
                f"'{name}' is not among the step's {self._kind}",
                where="the notebook's interface cell",
                expected=", ".join(self._folders) or "none are declared",
                remedy="declare it in Step.open(...)",
            )
        folder = self._folders[name]
        if name in self._artifacts and name not in self._laid_out:
            log.info("reading %s %s", name, self._artifacts[name].digest[:12])
            self._store.get(self._artifacts[name], folder, link=True)
            self._laid_out[name] = _seen(folder)
        return folder

    def check(self) -> None:
        """See that what was laid out is still what was given.

        Raises:
            IntegrityError: A file was changed or removed: the result would not be made from what the record says.
        """
        for name, before in self._laid_out.items():
            now = _seen(self._folders[name])
            touched = [path for path in before if now.get(path) != before[path]]
            altered = self._altered(name, touched) if touched else []
            if altered:
                self._store.check(
                    self._artifacts[name]
                )  # the bytes may have been the store's own: it must not lend them
                raise IntegrityError(
                    f"the step changed its input {name}: {', '.join(altered[:3])}{' ...' if len(altered) > 3 else ''}",
                    where=self._folders[name],
                    expected="inputs that are only read",
                    remedy="copy what is to be changed into step.work, then run the step again; if its input is then "
                    "said to be damaged, first run the step that makes it with --force",
                )
            for path in sorted(now.keys() - before.keys())[:3]:
                log.warning("%s: %s was written into an input; it is not kept: write into step.work", name, path)

    def _altered(self, name: str, touched: list[str]) -> list[str]:
        """Of files that were touched those with other bytes: one that is shared with the store gets new times there."""
        given = {file.path: file.sha256 for file in self._store.index(self._artifacts[name])}
        folder = self._folders[name]
        return sorted(path for path in touched if not _is_file_of(folder / path, given[path]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)


class Step:
    """One step at work; see `open`.

    Attributes:
        name: The step's name.
        inputs: Entity name to a local folder with its files; to be read only.
        outputs: Entity name to an empty local folder to fill.
        cache: A folder that outlives attempts, for downloads.
        resume: A folder that outlives an attempt that was killed or failed, and is there again for the next one at the
            very same work: same notebook, parameters, inputs and code. It goes when the step has succeeded.
        logs: A folder of this attempt's own that outlives it; need not exist. What is watched while the step runs goes
            there, such as TensorBoard's files: with their times and host names in an output, no two runs were equal.
        work: A folder of this attempt's own.
        mode: `dev` or `prod`.
        chosen: Inputs that were named by hand, here or, as `STEP: ENTITY`, at an earlier step: to a run, artifact or
            URL.
        uses: Of each input, with how many different other inputs this step has met it over all runs of the store, those
            of this attempt included.
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
        """Begin a step. The notebook's `interface` cell holds this call, with literals, and is read without being run.

        Args:
            name: The step's name, the notebook's file name without its suffix.
            reads: Entities it needs.
            writes: Entities it makes.

        Raises:
            StepError: The runner is at another step.
            MissingError: By hand: no dev run has made an input yet.
        """
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
        path = os.environ.get(CONTEXT)
        if path is None:
            return cls(_by_hand(name, reads), reads, writes)
        context = StepContext.read(Path(path))
        if context.step != name:
            raise StepError(
                f"the notebook opens step '{name}' while '{context.step}' runs",
                where="the notebook's interface cell",
                expected=f"Step.open('{context.step}', ...)",
            )
        if context.by_hand:
            os.chdir(_project_root())  # parameters name files relative to the project, as they do headless
            for folder in ("inputs", "outputs"):  # its cells may have run before
                shutil.rmtree(Path(context.work) / folder, ignore_errors=True)
        return cls(context, reads, writes)

    @property
    def provenance(self) -> dict[str, str]:
        """What a report should say it came from: the attempt, and each input's digest."""
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
        """Publish every output and record the metrics. Until here the step has published nothing.

        Args:
            metrics: Figures by name: numbers, strings, booleans, or None for one that is not defined, as which NaN is
                recorded. The first two are what a summary shows.
            minimum: The quality gate: metric name to the least value that passes; 0 or less is no gate. A step that
                misses it fails, yet its outputs are stored, since a bad model's report is what one wants to read.
            maximum: The same the other way: metric name to the greatest value that passes. A metric that is not defined
                passes: nothing is above it.
            notes: What a user must know and no figure says, a sentence each; shown below the step's line.

        Raises:
            UsageError: A metric is something else, or a gate is for one that is not given.
            StepError: An output is empty, or the step has committed already.
            IntegrityError: The step changed its inputs.
            GateError: A metric is below its minimum or above its maximum.
        """
        recorded = {name: _plain(name, value) for name, value in metrics.items()}
        missed = _missed(recorded, minimum or {}, maximum or {})
        told = tuple(str(note) for note in notes)
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
            if CONTEXT not in os.environ:  # otherwise this is not the notebook that a step runs
                log.info("publish with: python step.dev.py %s", self.name)
        else:
            self._publish(recorded, told)
        if missed:
            raise GateError(
                f"the quality gate is not passed: {', '.join(found for found, _ in missed)}",
                where=self.name,
                expected=", ".join(wanted for _, wanted in missed),
                remedy="read the report and mend what it shows, or set another limit in the config",
            )

    def _publish(self, metrics: Mapping[str, Any], notes: Sequence[str]) -> None:
        committed = self.work / COMMITTED
        if committed.exists():
            raise StepError("the step has committed already", where=self.name, expected="step.commit(...) once")
        stored = {name: self._store.put(name, self.outputs[name], self._context.made_by) for name in self.outputs}
        for name, artifact in stored.items():
            log.info("wrote %s %s, %d files, %.1f MB", name, artifact.digest[:12], artifact.files, artifact.size / 1e6)
        outputs = {name: asdict(artifact) for name, artifact in stored.items()}
        content = {"outputs": outputs, "metrics": dict(metrics), "notes": list(notes)}
        partial = committed.with_suffix(".partial")
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(committed)


def _plain(name: str, value: Any) -> bool | int | float | str | None:
    """A metric as JSON has it: of numpy's numbers Python's, of NaN and infinity None."""
    plain = value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value
    if isinstance(plain, float) and not math.isfinite(plain):
        return None
    if plain is None or isinstance(plain, bool | int | float | str):
        return plain
    raise UsageError(
        f"the metric '{name}' is a {type(value).__name__}",
        where="step.commit(metrics=...)",
        expected="a number, a string, a boolean, or None",
        remedy="write what is larger into an output",
    )


def _missed(
    metrics: Mapping[str, Any], minimum: Mapping[str, float], maximum: Mapping[str, float]
) -> list[tuple[str, str]]:
    """The gates that are not passed: what was found, and what is expected."""
    least_of = {name: least for name, least in minimum.items() if least > 0}
    for name in (*least_of, *maximum):
        if name not in metrics:
            raise UsageError(f"the gate is for '{name}', which is no metric", expected=", ".join(metrics))
    low = [
        (f"{name} is {_short(metrics[name])}, below {least:g}", f"{name} of at least {least:g}")
        for name, least in least_of.items()
        if metrics[name] is None or not float(metrics[name]) >= least - ROUNDING
    ]
    high = [
        (f"{name} is {_short(metrics[name])}, above {most:g}", f"{name} of at most {most:g}")
        for name, most in maximum.items()
        if metrics[name] is not None and not float(metrics[name]) <= most + ROUNDING
    ]
    return low + high


def _short(value: Any) -> str:
    return "not defined" if value is None else f"{float(value):.4g}"


def _by_hand(name: str, reads: Sequence[str]) -> StepContext:
    """The newest dev run's inputs, in a folder that each opening starts afresh."""
    root = _project_root()
    os.chdir(root)  # parameters name files relative to the project, as they do headless
    note = root / DEV_STORE
    place = note.read_text(encoding="utf-8") if note.is_file() else ".store/default/dev"
    store = Store(place if "://" in place else f"{root.as_uri()}/{place}")
    inputs: dict[str, Artifact] = {}
    runs = Runs(store)
    newest = runs.newest(having=reads[-1]) if reads else None
    if newest:
        log.info("opened by hand, with the inputs of run %s", newest.run)
    for entity in reads:
        artifact = newest.output(entity) if newest else None
        if artifact is None:
            raise MissingError(
                f"{name} needs {entity}, and no dev run has made it yet",
                where=store.url,
                remedy="run the steps before it: python step.dev.py",
            )
        inputs[entity] = artifact
    if newest:
        require_agreement(runs, newest, name, inputs)
    work = root / ".cache" / "by_hand" / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    cache = root / ".cache"
    resume, logs = str(work / "resume"), str(cache / "logs" / "by_hand" / name)
    return StepContext(
        step=name,
        made_by=f"by-hand/{name}/0",
        store=store.url,
        work=str(work),
        cache=str(cache),
        inputs=inputs,
        resume=resume,
        logs=logs,
        by_hand=True,
        chosen=chosen_before(runs, newest, inputs) if newest else {},
        uses=count_uses(runs, name, inputs),
    )


def _project_root() -> Path:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "step.dev.py").is_file():
            return folder
    raise MissingError("the project's folder was not found", where=here, expected="a folder with step.dev.py")


def _is_file_of(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _seen(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Each file's size, time and identity: what changes when somebody writes it."""
    files = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (found.st_size, found.st_mtime_ns, found.st_ino) for path, found in files
    }
