"""A step in a notebook: its inputs as local folders, its outputs as folders to fill, and one commit.

The runner writes the step's context to a file named by the environment variable `PIPELINE_STEP`. In Jupyter there is no
such file, and the notebook gets the newest dev run's inputs; what it writes stays in a folder of its own. Running the
step publishes it, so that a record never rests on cells that were run in another order.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import GateError, MissingError, StepError, UsageError
from pipeline.files import sha256_of, write_atomically
from pipeline.runtime.earlier import find_earlier
from pipeline.runtime.folders import Folders
from pipeline.runtime.inputs import chosen_before, count_uses, require_agreement
from pipeline.runtime.machines import Machine
from pipeline.runtime.manifest import EARLIER
from pipeline.runtime.runs import Runs
from pipeline.runtime.step_machines import StepMachines
from pipeline.runtime.store.artifact_store import OBJECTS, Artifact, Store

CONTEXT = "PIPELINE_STEP"
DEV_STORE = ".cache/dev_store"  # names the store of the newest dev run, for notebooks opened by hand
COMMITTED = "committed.json"  # what the notebook published, in the attempt's folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepContext:
    """What the runner tells a notebook; see `Step` for the attributes of the same name.

    Attributes:
        step: Name of the step.
        made_by: `run/step/attempt`, recorded with each output.
        store: URL of the store.
        inputs: Pinned artifacts by entity name.
        by_hand: Whether a person runs the cells, so that nothing is published.
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
    code_version: str = ""
    code_time: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    config_option: str = ""
    machine: Machine = field(default_factory=Machine)

    def write(self, path: Path) -> None:
        """Write it for the kernel to read."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> StepContext:
        """Read what `write` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        values["inputs"] = {name: Artifact(**artifact) for name, artifact in values["inputs"].items()}
        return cls(**{**values, "machine": Machine(**values["machine"])})


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
        code_version: The commit of the code, with `-dirty` where the tree differs from it. Empty outside of git, and
            where a person runs the cells, who may have changed them.
        code_time: The time of that commit, or outside of git of the run that made the newest input: ISO 8601 in UTC,
            the same in every run of the commit. Empty where a person runs the cells.
        parameters: The values of all its parameters by name, as they are recorded: without secrets, for which
            `${NAME}` stands. Empty where a person runs the cells, who may have changed them.
        defaults: What the notebook declares, by the same names.
        config_option: What a command line needs to find this run and its artifacts: ` --config FILE`, or an empty text
            for the default config, and where a person runs the cells.
        machines: Those of a cluster that the step is spread over, where the config asks for several; None for one.
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
        self.code_version = context.code_version
        self.code_time = context.code_time
        self.parameters = dict(context.parameters)
        self.defaults = dict(context.defaults)
        self.config_option = context.config_option
        self._context = context
        self._store = Store(context.store, self.cache / OBJECTS)
        outputs = {name: self.work / "outputs" / name for name in writes}
        for folder in (*outputs.values(), self.cache, self.resume):
            folder.mkdir(parents=True, exist_ok=True)
        inputs = {name: self.work / "inputs" / name for name in (*reads, *context.inputs)}
        self.inputs = Folders("inputs", inputs, context.inputs, self._store)
        self.outputs = Folders("outputs", outputs, {}, self._store)
        self.machines: StepMachines | None = None
        if context.machine.nodes > 1:
            artifacts = {inputs[name]: artifact for name, artifact in context.inputs.items()}
            self.machines = StepMachines.of(context.machine, context.store, self.cache, artifacts)

    @classmethod
    def open(cls, name: str, *, reads: Sequence[str], writes: Sequence[str], earlier: Sequence[str] = ()) -> Step:
        """Begin a step. The notebook's `interface` cell holds this call with literals, which are read without running.

        Args:
            name: The step's name, the notebook's file name without its suffix.
            reads: Entities it needs.
            writes: Entities it makes.
            earlier: Of those that it reads, the entities that it compares with another version: that of the newest
                earlier run in which every step succeeded. Where there is one, `earlier` gives it, and
                `inputs` has it as `earlier_ENTITY`.

        Raises:
            MissingError: Opened by hand, and no dev run has made an input yet.
        """
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
        path = os.environ.get(CONTEXT)
        context = (
            StepContext.read(Path(path)) if path else _newest_context(project_root(Path.cwd()), name, reads, earlier)
        )
        if context.by_hand:
            os.chdir(project_root(Path.cwd()))  # parameters name files relative to the project, as they do headless
            for folder in ("inputs", "outputs", "resume"):  # its cells may have run before
                shutil.rmtree(Path(context.work) / folder, ignore_errors=True)
        return cls(context, reads, writes)

    def earlier(self, entity: str) -> Path | None:
        """The folder of an entity's version in the earlier run, or None where there is none; see `open`."""
        name = EARLIER + entity
        return self.inputs[name] if name in [*self.inputs] else None

    @property
    def run_option(self) -> str:
        """How a command line names this run: ` --run RUN`, or an empty text where a person runs the cells."""
        return "" if self._context.by_hand else f" --run {self._context.made_by.partition('/')[0]}"

    @property
    def provenance(self) -> dict[str, str]:
        """What a report states as its origin: the attempt, the commit of its code, and each input's digest."""
        stated = {"made by": self._context.made_by, "commit": self.code_version, **self.input_digests}
        for name, source in self.chosen.items():
            by_hand = f"chosen by hand: {source}"
            stated[name] = f"{stated[name]}, {by_hand}" if name in stated else by_hand
        return stated

    @property
    def input_digests(self) -> dict[str, str]:
        """The digest of each input, by entity name."""
        return {name: artifact.digest for name, artifact in self._context.inputs.items()}

    def commit(
        self,
        *,
        metrics: Mapping[str, Any],
        limits: Mapping[str, bool | None] | None = None,
        notes: Sequence[str] = (),
        judged: str = "",
        evidence: Sequence[str] = (),
    ) -> None:
        """Publish every output and record the metrics. The step has published nothing before.

        Args:
            metrics: Numbers, strings, booleans, or None for an undefined value, by name; NaN is recorded as None. A
                summary shows the first two.
            limits: The quality gate: each limit in words, with the figure that was reached, and whether it is met; None
                where that is unknown. A step that misses one fails, yet its outputs are stored, since the report on a
                bad model is of interest.
            notes: Sentences that a user must know and no metric tells; shown below the step's line.
            judged: The input that the metrics judge, if they do. An export states the outcome of the gate about it.
            evidence: Files of the outputs, as `ENTITY/PATH`, that the metrics can be computed from again. They are the
                same whenever the same input is judged in the same way, so they hold no times.

        Raises:
            UsageError: A metric is of another type, `judged` is no input, or `evidence` no file of an output.
            StepError: An output is empty, or the step has committed already.
            IntegrityError: The step changed its inputs.
            GateError: A limit is missed.
        """
        recorded = {name: _plain(name, value) for name, value in metrics.items()}
        if judged and judged not in self.input_digests:
            raise UsageError(f"'{judged}' is judged, which is no input", expected=", ".join(self.inputs))
        for name, folder in self.outputs.items():
            if not any(folder.iterdir()):
                raise StepError(
                    f"the step wrote nothing to {name}",
                    where=self.name,
                    expected="at least one file in every declared output",
                    remedy=f"write into step.outputs['{name}']",
                )
        digests = {path: sha256_of(self._output_file(path)) for path in evidence}
        self.inputs.check()
        if self._context.by_hand:
            log.info("opened by hand: the outputs stay in %s", self.work / "outputs")
            if CONTEXT not in os.environ:  # otherwise this is a copy of an earlier run's notebook
                log.info("publish with: python step.dev.py %s", self.name)
        else:
            gate = {"limits": dict(limits or {}), "judged": judged, "evidence": digests}
            self._publish({"metrics": recorded, "notes": [str(note) for note in notes], **gate})
        if missed := [limit for limit, is_met in (limits or {}).items() if is_met is False]:
            raise GateError(
                f"the quality gate is not passed: {'; '.join(missed)}",
                where=self.name,
                remedy="read the report and correct what it shows, or set another limit in the config",
            )

    def _output_file(self, named: str) -> Path:
        entity, _, path = named.partition("/")
        file = self.outputs[entity] / path
        if not file.is_file():
            raise UsageError(f"'{named}' is no file of an output", where=self.name, expected="ENTITY/PATH of a file")
        return file

    def _publish(self, found: dict[str, Any]) -> None:
        committed = self.work / COMMITTED
        if committed.exists():
            raise StepError("the step has committed already", where=self.name, expected="step.commit(...) once")
        stored = {name: self._store.put(name, self.outputs[name], self._context.made_by) for name in self.outputs}
        for name, artifact in stored.items():
            log.info("wrote %s %s, %d files, %.1f MB", name, artifact.digest[:12], artifact.files, artifact.size / 1e6)
        content = {"outputs": {name: asdict(each) for name, each in stored.items()}, **found}
        write_atomically(committed, json.dumps(content))


def project_root(here: Path) -> Path:
    """The project that a folder is in.

    Raises:
        UsageError: It is in none.
    """
    for folder in (here, *here.parents):
        if (folder / "step.dev.py").is_file():
            return folder
    raise UsageError("this is not a project's folder", where=here, expected="a folder with step.dev.py and steps/")


def _newest_context(root: Path, name: str, reads: Sequence[str], earlier: Sequence[str]) -> StepContext:
    """The context of a notebook that is opened by hand: the newest dev run's inputs."""
    note, cache = root / DEV_STORE, root / ".cache"
    place = note.read_text(encoding="utf-8") if note.is_file() else ".store/default/dev"
    store = Store(place if "://" in place else f"{root.as_uri()}/{place}")
    runs = Runs(store)
    newest = runs.newest(having=reads[-1]) if reads else None
    inputs = {entity: artifact for entity in reads if newest and (artifact := newest.output(entity))}
    if missing := [entity for entity in reads if entity not in inputs]:
        problem, remedy = f"{name} needs {missing[0]}, and no dev run has made it yet", "python step.dev.py"
        raise MissingError(problem, where=store.url, remedy=f"run the steps before it: {remedy}")
    if newest:
        log.info("opened by hand, with the inputs of run %s", newest.run)
        require_agreement(runs, newest, name, inputs)
    own = dict(inputs)
    if newest:
        inputs |= find_earlier(runs, newest.pipeline, earlier, inputs, before=newest.run)
    work = cache / "by_hand" / name
    return StepContext(
        step=name,
        made_by=f"by-hand/{name}/0",
        store=store.url,
        work=str(work),
        cache=str(cache),
        inputs=inputs,
        resume=str(work / "resume"),
        logs=str(cache / "logs" / "by_hand" / name),
        by_hand=True,
        chosen=chosen_before(runs, newest, own) if newest else {},
        uses=count_uses(runs, name, own),
    )


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
