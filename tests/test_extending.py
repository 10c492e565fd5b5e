"""The recipes of docs/extending.md work as they are written, each in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(python|diff) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def notebook_of(source: str) -> nbformat.NotebookNode:
    """A notebook from cells that begin with `# %%` and perhaps a tag."""
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for kind, cell in re.findall(r"^# %%(?: \[(\w+)\])?\n(.*?)(?=^# %%|\Z)", source, re.MULTILINE | re.DOTALL):
        if kind == "markdown":
            notebook.cells.append(nbformat.v4.new_markdown_cell(re.sub("^# ?", "", cell.strip(), flags=re.MULTILINE)))
        else:
            notebook.cells.append(nbformat.v4.new_code_cell(cell.strip(), metadata={"tags": [kind]} if kind else {}))
    return notebook


def apply(section: str, project: Path) -> None:
    """Make the changes of one section of the page."""
    page = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(page.split(f"\n## {section}\n")[1].split("\n## ")[0])
    assert blocks
    for kind, name, content in blocks:
        path = project / name
        if kind == "diff":
            before = "".join(line[1:] for line in content.splitlines(keepends=True) if line[0] in " -")
            after = "".join(line[1:] for line in content.splitlines(keepends=True) if line[0] in " +")
            text = path.read_text(encoding="utf-8")
            assert text.count(before) == 1, f"{name} has not exactly once:\n{before}"
            path.write_text(text.replace(before, after), encoding="utf-8")
        elif path.suffix == ".ipynb":
            nbformat.write(notebook_of(content), path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what a user extends."""
    for name in ("pipeline", "steps", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "step.dev.py", tmp_path)
    return tmp_path


def run(project: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((40, 60, 3), 90, np.uint8))


LOAD = """
import sys
from pathlib import Path
from pipeline.data.loading import load_annotations, load_source
images, annotations = Path("out/images"), Path("out/annotations")
source = load_source(sys.argv[1], images, annotations, cache=Path("out/cache"))
loaded = load_annotations(source, Path("out/coco"), images=images, annotations=annotations, cache=Path("out/cache"))
print(Path("out/coco").joinpath("annotations.json").read_text())
"""


def test_an_annotation_format(project: Path) -> None:
    apply("An annotation format", project)
    image(project / "mine/a.png")
    (project / "mine/boxes.txt").write_text("image label x y width height\na.png car 5 6 20 10\n")
    assert '"bbox":[5.0,6.0,20.0,10.0]' in run(project, "-c", LOAD, str(project / "mine")).replace(" ", "")
    shutil.rmtree(project / "out")
    (project / "mine/boxes.txt").write_text("image label x y width height\na.png car 5 6\n")
    with pytest.raises(AssertionError, match=r"boxes.txt:2"):
        run(project, "-c", LOAD, str(project / "mine"))


def test_a_source(project: Path) -> None:
    apply("A source", project)
    image(project / "mine/a.png")
    record = {"image": "a.png", "boxes": [{"label": "car", "box": [5, 6, 20, 10]}]}
    (project / "mine/images.jsonl").write_text(json.dumps(record))
    url = f"jsonl:{project / 'mine/images.jsonl'}"
    assert '"bbox":[5.0,6.0,20.0,10.0]' in run(project, "-c", LOAD, url).replace(" ", "")


def test_a_detector_family(project: Path) -> None:
    apply("A detector family", project)
    program = "from pipeline.detection.families import find_family; print(find_family({!r}).name)"
    assert "YOLOX-small" in run(project, "-c", program.format("yolox-small-tiny"))
    with pytest.raises(AssertionError, match="no detector 'yolox-small-x'"):
        run(project, "-c", program.format("yolox-small-x"))


def test_a_step(project: Path) -> None:
    apply("A step", project)
    assert "image_stats" in run(project, "step.dev.py", "--help")
    few = "data_load.source_url=sample://shapes?images=12&size=64&seed=7"
    run(project, "step.dev.py", "data_load", "--set", few, "--config", "configs/demo.yaml")
    assert "darkest" in run(project, "step.dev.py", "image_stats", "--set", "image_stats.count=2")
