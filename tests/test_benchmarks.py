"""The benchmarks run and print what they promise; whether targets are met, a test on a busy machine cannot say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / script), "--repetitions", "1", "--folder", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == [], "everything is removed afterwards"
    return done.stdout


def figures(script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run(script, folder, *arguments, "--json"))
    assert all(row["met"] == (row["value"] <= row["limit"]) for row in content["targets"])
    assert all(taken > 0 for times in content["times_s"].values() for taken in times)
    return content


def test_the_runner_is_held_against_bare_papermill(tmp_path: Path) -> None:
    content = figures("bench_runner.py", tmp_path)
    assert [(row["name"], row["limit"]) for row in content["targets"]] == [
        ("overhead a step above bare papermill", 0.1),
        ("no-op run of all five", 0.5),
    ]
    assert set(content["times_s"]) == {"bare", "ours", "no_op", "python", "import_cli"}
    overhead = content["times_s"]["ours"][0] - content["times_s"]["bare"][0]
    assert content["figures"]["overhead_a_step_s"] == pytest.approx(overhead / 5)


def test_the_store_is_held_against_the_systems_own_tools(tmp_path: Path) -> None:
    small = ("--files", "40", "--megabytes", "2")
    content = figures("bench_store.py", tmp_path, *small)
    assert [(row["name"], row["limit"]) for row in content["targets"]] == [
        ("put to sha256sum + cp -r", 2.0),
        ("put again to the first put", 0.2),
        ("get, linked, to sha256sum", 1.5),
    ]
    assert content["figures"]["files"] == 40
    assert content["figures"]["megabytes"] == pytest.approx(2, rel=0.25)
    text = run("bench_store.py", tmp_path, *small)
    for promised in ("get, copied", "sync", "hashlib", "17 s to put, 12.4 s to get and 3 s to start", "of at most 1.5"):
        assert promised in text
