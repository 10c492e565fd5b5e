"""A training that is killed goes on at its last finished epoch, and ends where an undisturbed one does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

EPOCHS = 6


def digests(project: Any, run: str = "latest") -> dict[str, str]:
    """Entity to digest."""
    steps = project.manifest(run)["steps"].values()
    return {entity: artifact["digest"] for step in steps for entity, artifact in step["outputs"].items()}


def checkpoints(project: Any) -> set[tuple[int, int]]:
    """Identity and time of what is kept to go on from; each epoch puts another in its place."""
    found = (path.stat() for path in project.root.glob(".cache/resume/model_train.*/checkpoint.pth"))
    return {(each.st_ino, each.st_mtime_ns) for each in found}


def killed_at_epoch(project: Any, epochs: int, *arguments: str) -> None:
    """Start the training as a user does, and kill it and its kernel once so many more epochs are kept."""
    process = subprocess.Popen(
        [sys.executable, "step.dev.py", "model_train", *arguments],
        cwd=project.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before, kept = checkpoints(project), set()
    end = time.monotonic() + 240
    while len(kept) < epochs:
        assert time.monotonic() < end, "it did not come to that epoch"
        assert process.poll() is None, "it ended before it could be killed"
        kept |= checkpoints(project) - before
        time.sleep(0.02)
    for victim in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        victim.kill()
    process.wait()


@pytest.mark.slow
def test_the_five_steps_end_where_an_undisturbed_run_ends(
    tmp_path: Path, new_project: Callable[[Path], Any], tiny: list[str]
) -> None:
    arguments = [*tiny, "--set", f"model_train.epochs={EPOCHS}"]
    undisturbed = new_project(tmp_path / "undisturbed")
    for step in ("data_load", "data_prep"):
        done = undisturbed.step(step, *arguments)
        assert done.returncode == 0, done.stderr
    shutil.copytree(undisturbed.root, tmp_path / "disturbed")
    disturbed = type(undisturbed)(tmp_path / "disturbed")
    assert undisturbed.step("model_train", *arguments).returncode == 0
    killed_at_epoch(disturbed, 2, *arguments)
    assert json.loads(disturbed.look("status", "--json").stdout)["steps"][2]["state"] == "killed"
    killed_at_epoch(disturbed, 1, *arguments)
    done = disturbed.step("model_train", *arguments)
    assert done.returncode == 0, done.stderr
    assert "continuing after epoch" in disturbed.look("log", "model_train").stdout
    assert digests(disturbed) == digests(undisturbed)
    assert list((disturbed.root / ".cache" / "resume").iterdir()) == []
    train = disturbed.manifest()["steps"]["model_train"]
    assert [attempt["status"] for attempt in train["earlier_attempts"]] == ["killed", "killed"]
