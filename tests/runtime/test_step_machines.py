"""The inputs of a step on the other machines that it is spread over."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from folders import contents_of, fill

from pipeline.errors import StepError
from pipeline.runtime import process
from pipeline.runtime.machines import Machine
from pipeline.runtime.step_machines import StepMachines
from pipeline.runtime.store.artifact_store import Store

FILES = {"annotations.json": b"{}", "images/1.png": b"1"}
HOLDER = """
import sys
from pathlib import Path
from pipeline.runtime.process import work_folder_at
with work_folder_at(Path(sys.argv[1])) as folder:
    (folder / "left").touch()
    print("held", flush=True)
    input()
"""


@pytest.fixture
def machines(tmp_path: Path) -> StepMachines:
    """Two machines, as the first of them describes them to the other; the attempt's folder is `job.train.1`."""
    store = Store(str(tmp_path / "store"))
    artifact = store.put("data", fill(tmp_path / "made", FILES), "run/step/1")
    folder = tmp_path / "job.train.1"
    of = StepMachines.of(Machine(cpus=4, nodes=2), store.url, folder, {folder / "inputs" / "data": artifact})
    return pickle.loads(pickle.dumps(of))  # type: ignore[no-any-return]


def elsewhere(machines: StepMachines) -> StepMachines:
    """The same, seen from a machine that is not the first."""
    return replace(machines, _first=("another machine", ""))


def test_the_first_machine_has_them(machines: StepMachines, tmp_path: Path) -> None:
    assert (machines.count, machines.cpus) == (2, 4)
    with machines.inputs():
        assert not (tmp_path / "job.train.1").exists()


def test_another_machine_has_them_by_the_same_paths_for_as_long_as_they_are_used(
    machines: StepMachines, tmp_path: Path
) -> None:
    with elsewhere(machines).inputs():
        assert contents_of(tmp_path / "job.train.1" / "inputs" / "data") == FILES
    assert not (tmp_path / "job.train.1").exists()


def test_what_a_killed_process_left_there_is_replaced(machines: StepMachines, tmp_path: Path) -> None:
    folder = tmp_path / "job.train.1"
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    assert child.stdout.readline() == "held\n"
    child.kill()
    child.communicate()
    assert (folder / "left").exists()
    with elsewhere(machines).inputs():
        assert not (folder / "left").exists()
        assert contents_of(folder / "inputs" / "data") == FILES


def test_a_folder_in_use_is_not_taken(machines: StepMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "ENDING", 0.3)
    with (
        process.work_folder_at(tmp_path / "job.train.1"),
        pytest.raises(StepError, match="another process works in"),
        elsewhere(machines).inputs(),
    ):
        pass


def test_a_machine_with_other_folders_says_what_to_set(machines: StepMachines, tmp_path: Path) -> None:
    moved = replace(elsewhere(machines), _folder=tmp_path / "none" / "job.train.1")
    with pytest.raises(StepError, match=r"has no folder[\s\S]*set TMPDIR"), moved.inputs():
        pass
