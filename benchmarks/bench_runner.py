"""What the runner costs above bare papermill, and how long a run takes in which everything is up to date.

    python benchmarks/bench_runner.py [--repetitions 7] [--folder DIR] [--json]

Five trivial notebooks, one reading what the one before wrote, in a git checkout of their own in a temporary folder:

- bare: one process that calls `papermill.execute_notebook` on each in turn. The steps are opened by hand then, with the
  inputs of an earlier run, so that the very same cells run; nothing is pinned, recorded, stored or rendered as HTML.
- ours: `python step.dev.py --force`.
- no-op: `python step.dev.py` with everything up to date.

Times are of whole processes, the start of Python and all imports included, and taken in turn, so that whatever else the
machine does falls on all of them. The overhead is the median of the differences within a turn, a step.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from report import Target, shown, work_in

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("one", "two", "three", "four", "five")
OVERHEAD, NO_OP = 0.1, 0.5  # seconds
NO_OPS = 3  # a turn
BARE = """
import sys, papermill
for step in sys.argv[1:]:
    papermill.execute_notebook(f"steps/{step}.ipynb", f"bare/{step}.ipynb", progress_bar=False)
"""


def main() -> int:
    """Measure and print; exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=7, help="turns; 7 by default")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made; the system's by default")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    asked = parser.parse_args()
    with work_in(asked.folder, "bench_runner") as folder:
        times = measure(make_project(folder), asked.repetitions)
    differences = [ours - bare for ours, bare in zip(times["ours"], times["bare"], strict=True)]
    figures = {
        "bare_a_step_s": median(times["bare"]) / len(STEPS),
        "ours_a_step_s": median(times["ours"]) / len(STEPS),
        "overhead_a_step_s": median(differences) / len(STEPS),
        "no_op_s": median(times["no_op"]),
    }
    targets = [
        Target("overhead a step above bare papermill", figures["overhead_a_step_s"], OVERHEAD, "s"),
        Target("no-op run of all five", figures["no_op_s"], NO_OP, "s"),
    ]
    return shown(figures, targets, times, as_json=asked.json)


def measure(project: Path, turns: int) -> dict[str, list[float]]:
    """Seconds of each kind of process, turn by turn."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def python(*arguments: str) -> float:
        return seconds([sys.executable, *arguments], project, environment)

    python("step.dev.py")  # gives the bare runs their inputs, and warms every cache
    times: dict[str, list[float]] = {name: [] for name in ("bare", "ours", "no_op", "python", "import_cli")}
    for _ in range(turns):
        times["bare"].append(python("-c", BARE, *STEPS))
        times["ours"].append(python("step.dev.py", "--force"))
        times["no_op"] += [python("step.dev.py") for _ in range(NO_OPS)]
        times["python"].append(python("-c", ""))
        times["import_cli"].append(python("-c", "import pipeline.cli.step_commands"))
    return times


def seconds(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Wall time of a process that has to succeed."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return taken


def make_project(folder: Path) -> Path:
    """A checkout of five notebooks, everything committed."""
    (folder / "steps").mkdir()
    (folder / "bare").mkdir()
    (folder / "configs").mkdir()
    (folder / "configs" / "demo.yaml").write_text("name: trivial\n")
    (folder / ".gitignore").write_text(".store/\n.cache/\nbare/\nout/\n")
    shutil.copy(ROOT / "step.dev.py", folder)
    for number, name in enumerate(STEPS):
        (folder / "steps" / f"{name}.ipynb").write_text(json.dumps(notebook(number)))
    identity = ("-c", "user.name=Bench", "-c", "user.email=bench@example.org", "-c", "commit.gpgSign=false")
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "all")):
        subprocess.run(["git", *identity, *command], cwd=folder, check=True)
    return folder


def notebook(number: int) -> dict[str, Any]:
    """A step that reads what the one before it wrote and writes a file of a few bytes."""
    name, reads = STEPS[number], [f"text_{above}" for above in STEPS[number - 1 : number]]
    words = f'(step.inputs["{reads[0]}"] / "text.txt").read_text()' if reads else '"hello"'
    sources = [
        ([], "from pipeline.runtime.step import Step"),
        (["parameters"], 'word: str = "word"  # what is added'),
        (["interface"], f'step = Step.open("{name}", reads={reads}, writes=["text_{name}"])'),
        ([], f'(step.outputs["text_{name}"] / "text.txt").write_text({words} + word)'),
        ([], 'step.commit(metrics={"length": len(word)})'),
    ]
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"cell-{n}", "source": source, "metadata": {"tags": tags}}
        | {"outputs": [], "execution_count": None}
        for n, (tags, source) in enumerate(sources)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}


if __name__ == "__main__":
    raise SystemExit(main())
