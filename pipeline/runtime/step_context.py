"""The context of a step at work: written by the runner, or made for a notebook that is opened by hand.

The runner writes it to a file named by the environment variable `PIPELINE_STEP`. In Jupyter there is no such file, and
the notebook gets the newest dev run's inputs; what it writes stays in a folder of its own. Running the step publishes
it, so that a record never rests on cells that were run in another order.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.errors import MissingError
from pipeline.runtime.inputs import chosen_before, count_uses, require_agreement
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact, Store

CONTEXT = "PIPELINE_STEP"
DEV_STORE = ".cache/dev_store"  # names the store of the newest dev run, for notebooks opened by hand
COMMITTED = "committed.json"  # what the notebook published, in the attempt's folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepContext:
    """What a notebook knows of its step.

    Attributes:
        step: Name of the step.
        made_by: `run/step/attempt`, recorded with each output.
        store: URL of the store.
        work: The attempt's own folder.
        cache: A folder that outlives the attempt.
        inputs: Pinned artifacts by entity name.
        resume: A folder that outlives a killed attempt at the same work.
        logs: A folder that outlives the attempt, for files that are watched while it runs and are no output.
        by_hand: Whether a person runs the cells, so that nothing is published.
        mode: `dev` or `prod`.
        chosen: Inputs named by hand, those of earlier steps as `STEP: ENTITY`, each with its run, artifact or URL.
        uses: For each input, the number of different other inputs it was used with, see `inputs.count_uses`.
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

    @classmethod
    def opened_by_hand(cls, name: str, reads: Sequence[str]) -> StepContext:
        """The context with the newest dev run's inputs, and a folder that is emptied at each call.

        The working directory becomes the project's folder, since parameters name files relative to it.

        Raises:
            MissingError: No dev run has made an input yet, or this is no project.
            StepError: The inputs do not agree.
        """
        root = project_root()
        os.chdir(root)
        note = root / DEV_STORE
        place = note.read_text(encoding="utf-8") if note.is_file() else ".store/default/dev"
        store = Store(place if "://" in place else f"{root.as_uri()}/{place}")
        runs = Runs(store)
        newest = runs.newest(having=reads[-1]) if reads else None
        found = {entity: newest.output(entity) if newest else None for entity in reads}
        inputs = {entity: artifact for entity, artifact in found.items() if artifact}
        for entity in reads:
            if entity not in inputs:
                raise MissingError(
                    f"{name} needs {entity}, and no dev run has made it yet",
                    where=store.url,
                    remedy="run the steps before it: python step.dev.py",
                )
        if newest:
            log.info("opened by hand, with the inputs of run %s", newest.run)
            require_agreement(runs, newest, name, inputs)
        cache = root / ".cache"
        work = cache / "by_hand" / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        return cls(
            step=name,
            made_by=f"by-hand/{name}/0",
            store=store.url,
            work=str(work),
            cache=str(cache),
            inputs=inputs,
            resume=str(work / "resume"),
            logs=str(cache / "logs" / "by_hand" / name),
            by_hand=True,
            chosen=chosen_before(runs, newest, inputs) if newest else {},
            uses=count_uses(runs, name, inputs),
        )


def project_root() -> Path:
    """The folder with `step.dev.py` at or above the working directory."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "step.dev.py").is_file():
            return folder
    raise MissingError("the project's folder was not found", where=here, expected="a folder with step.dev.py")
