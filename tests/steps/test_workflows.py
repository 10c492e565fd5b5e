"""GitHub's workflows: right by their schema, and their own commands run in a clean clone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps_of(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_right_by_its_schema_and_as_shell(path: Path) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for step in steps_of(path):
        if "run" in step:
            subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)


def test_the_comment_and_its_pictures_are_made_in_a_clean_clone(tiny_run: Any, tmp_path: Path) -> None:
    """The steps of the workflow for models, behind the pipeline itself, as a runner would start them; twice."""
    origin = tmp_path / "origin.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(tiny_run.root), str(origin)], check=True)
    scripts = {step.get("name"): step.get("run") for step in steps_of(ROOT / ".github" / "workflows" / "model.yml")}
    for number in ("1", "2"):
        work = tmp_path / number / "checkout"
        subprocess.run(["git", "clone", "-q", str(origin), str(work)], check=True)
        (work / ".store").symlink_to(tiny_run.root / ".store")
        (work / ".venv" / "bin").mkdir(parents=True)
        python = work / ".venv" / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        environment = os.environ | {
            "MODE": "dev", "CONFIG": "configs/demo.yaml", "GITHUB_REPOSITORY": "owner/model", "GITHUB_RUN_ID": number,
            "GITHUB_STEP_SUMMARY": str(work / "summary.md"), "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        for name in ("write the comment", "publish the pictures"):
            command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", scripts[name]]
            done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        comment = (work / "summary.md").read_text()
        assert "### " in comment
        assert "| figure | this model, 95 % interval |" in comment
        assert f"https://github.com/owner/model/raw/model-pictures/{number}/average_precision.png" in comment
    listed = subprocess.run(
        ["git", "-C", str(origin), "ls-tree", "-r", "--name-only", "model-pictures"], capture_output=True, text=True
    ).stdout.split()
    assert listed == [f"{number}/{name}.png" for number in "12" for name in ("average_precision", "precision_recall")]
