"""A project of five steps whose every file says what it was made from, so that a test can tell without the records.

load ─► raw, fixed    prep ─► train, test, note    learn ─► model    pack ─► service    judge ─► result
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.runtime.execution import Execution
from pipeline.runtime.manifest import FAILED, SUCCEEDED
from pipeline.runtime.notebook import StepNotebook
from pipeline.runtime.step import CONTEXT

READS = {"load": (), "prep": ("raw",), "learn": ("train", "fixed"), "pack": ("model",), "judge": ("test", "service")}
WRITES = {
    "load": ("raw", "fixed"),
    "prep": ("train", "test", "note"),
    "learn": ("model",),
    "pack": ("service",),
    "judge": ("result",),
}
# Whatever the seed, `fixed` is the same; `words` changes `note` alone.
PARAMETERS = """\
seed: int = 0  # of the result: even or odd
words: str = ""  # changes the note alone"""
WORK = """\
read = {name: json.loads((step.inputs[name] / "made.json").read_text()) for name in step.inputs}
made = {"step": step.name, "seed": seed % 2, "from": read}
for name in step.outputs:
    told = {"fixed": {"step": "", "from": {}}, "note": {**made, "words": words}}.get(name, made)
    (step.outputs[name] / "made.json").write_text(json.dumps(told, sort_keys=True))"""


def make_exam(make_toy: Callable[[Path, tuple[str, ...]], Any], root: Path) -> Any:
    """The project in a new folder."""
    toy = make_toy(root, ())
    for name, reads in READS.items():
        toy.notebook(
            name,
            [
                ("md", f"# {name}"),
                ("", "import json\nfrom pipeline.runtime.step import Step"),
                ("parameters", PARAMETERS),
                ("interface", f"step = Step.open({name!r}, reads={list(reads)}, writes={list(WRITES[name])})"),
                ("", WORK),
                ("", 'step.commit(metrics={"seed": seed}, notes=[words] if words else [])'),
            ],
        )
    (root / "configs" / "demo.yaml").write_text("name: exam\n")
    return toy


def in_process(
    root: Path, step: StepNotebook, parameters: dict[str, Any], executed: Path, context: Path, *, stream: bool
) -> Execution:
    """Run the cells of a notebook in this process: a thousand kernels would take an hour."""
    names: dict[str, Any] = {}
    before = os.environ.get(CONTEXT)
    os.environ[CONTEXT] = str(context)
    try:
        for cell in json.loads(step.content)["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)
                names.update(parameters if "parameters" in cell["metadata"].get("tags", []) else {})
    except Exception as error:  # noqa: BLE001, as a kernel does
        return Execution(FAILED, str(error), type(error).__name__)
    finally:
        if before is None:
            del os.environ[CONTEXT]
        else:
            os.environ[CONTEXT] = before
    return Execution(SUCCEEDED)


def ancestors(made: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each attempt that a file tells it was made by, and those before: the step, and all that made it what it is."""
    if made["step"]:
        yield made["step"], json.dumps([made["seed"], made["from"]], sort_keys=True)
    for one in made["from"].values():
        yield from ancestors(one)


def agree(*files: dict[str, Any]) -> bool:
    """Whether files tell of one attempt at each step; a single one has nothing to agree with."""
    told = {each for made in files for each in ancestors(made)}
    return len(files) < 2 or len(told) == len({step for step, _ in told})
