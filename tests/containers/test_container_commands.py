"""`python -m pipeline containerize`: a run or a Bento, with and without an engine that answers."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from folders import contents_of

from pipeline.containers import engines
from pipeline.containers.packed_bento import PackedBento

pytestmark = pytest.mark.usefixtures("in_process")


AFTER = [
    ("parameters", "y: int = 1  # of no use"),
    ("interface", 'step = Step.open("fourth", reads=["bento_service"], writes=["report"])'),
]


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A client without its daemon is the only engine; a test may put a script in its place."""
    (tmp_path / "bin").mkdir()
    path = tmp_path / "bin" / "docker"
    path.write_text("#!/bin/sh\necho 'no daemon' >&2\nexit 1\n")
    path.chmod(0o755)
    monkeypatch.setattr(engines, "ENGINES", ("docker", "podman"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def packing(toy: Any, bento: PackedBento) -> Any:
    """A project whose last step packs a Bento."""
    _, imports, *_ = toy.cells_of("third")
    work = f'import shutil\nshutil.copytree("{bento.folder}", step.outputs["bento_service"], dirs_exist_ok=True)'
    opened = 'step = Step.open("third", reads=["words"], writes=["bento_service"])'
    cells = [("md", "# Pack"), imports, ("parameters", "x: int = 1  # of no use"), ("interface", opened)]
    cells += [("md", "Pack."), ("", work), ("md", "Publish."), ("", "x\nstep.commit(metrics={})")]
    toy.notebook("third", cells)
    (toy.root / "configs" / "demo.yaml").write_text("name: toy\n")
    return toy


def test_the_service_of_a_run_becomes_a_build_context(packing: Any, bento: PackedBento) -> None:
    assert packing.step("first").code == 0
    packing.look("containerize").fails("no dev run with a bento_service", "python step.dev.py")
    assert packing.step("second").code == 0
    assert packing.step("third").code == 0
    run, folder = packing.manifest()["run"], Path("out/dev/toy/container")
    done = packing.look("containerize", run[-6:], "--json")
    assert (done.code, done.log) == (0, "")
    content = json.loads(done.out)
    assert (content["run"], content["context"], content["is_built"]) == (run, str(folder), False)
    assert content["note"] is None
    assert contents_of(packing.root / folder / "bento") == contents_of(bento.folder)
    assert f'LABEL detection-pipeline.run="{run}"' in (packing.root / folder / "Dockerfile").read_text()
    packing.notebook("fourth", [*packing.cells_of("second")[:2], *AFTER])
    assert f"note     run {run}: fourth has not run" in packing.look("containerize").out


def test_without_an_engine_it_prints_what_to_type(toy: Any, bento: PackedBento, tmp_path: Path) -> None:
    done = toy.look("containerize", str(bento.folder), "--tag", "detector:1")
    assert (done.code, done.log) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert lines["image"] == "none: docker does not answer: no daemon"
    assert shlex.split(lines["build"]) == ["docker", "build", "--tag", "detector:1", "container"]
    assert lines["run"].startswith("docker run ")
    assert lines["run"].endswith(" detector:1")
    assert (tmp_path / "container" / "Dockerfile").is_file()


def test_with_an_engine_it_builds_the_image(toy: Any, bento: PackedBento, tmp_path: Path, programs: Path) -> None:
    programs.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    done = toy.look("containerize", str(bento.folder), "--context", "here")
    assert f"image    {bento.tag}, built by docker\n" in done.out
    assert (tmp_path / "called").read_text() == f"info\nbuild --tag {bento.tag} here\n"
    programs.write_text('#!/bin/sh\n[ "$1" = info ]\n')
    toy.look("containerize", str(bento.folder)).fails(
        "docker could not build the image", f"--tag {bento.tag} container"
    )


def test_a_named_engine_that_does_not_answer_is_an_error(toy: Any, bento: PackedBento, tmp_path: Path) -> None:
    done = toy.look("containerize", str(bento.folder), "--engine", "podman")
    done.fails("podman is not installed", "where it answers: podman build --format docker")
    assert (tmp_path / "container" / "Dockerfile").is_file(), "for where it answers"
    toy.look("containerize", str(bento.folder), "--engine", "dokcer").fails("did you mean 'docker'?", code=2)


def test_what_is_no_bento_is_refused(toy: Any, bento: PackedBento, tmp_path: Path) -> None:
    toy.look("containerize", "no/such/folder").fails("there is no such folder", "no/such/folder", code=2)
    toy.look("containerize", str(tmp_path)).fails("this folder holds no packed service", code=2)
    toy.look("containerize").fails("there is no dev run yet", "python step.dev.py")
    toy.look("containerize", str(bento.folder), "--tag", "Big").fails("no name of an image", code=2)
    assert not (tmp_path / "container").exists()


def test_listing_commands_imports_nothing_of_it() -> None:
    program = (
        "import sys, pipeline.commands.container_commands; sys.exit('jinja2' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
