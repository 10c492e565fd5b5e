"""A project of its own for each test: the real notebooks and command lines, in an empty folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from api_server import api_server
from git_checkout import commit_all

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Project:
    """A folder that looks like a fresh checkout."""

    root: Path

    def step(self, *arguments: str, mode: str = "dev") -> subprocess.CompletedProcess[str]:
        """`python step.MODE.py ...`."""
        return self._python(f"step.{mode}.py", *arguments)

    def look(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m pipeline ...`."""
        return self._python("-m", "pipeline", *arguments)

    def manifest(self, *arguments: str) -> dict[str, Any]:
        """What `show --json` prints."""
        done = self.look("show", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        content: dict[str, Any] = json.loads(done.stdout)
        return content

    def artifacts(self, mode: str = "dev") -> list[str]:
        """`entity/version` of everything that reads as an artifact."""
        folder = self.root / ".store" / "default" / mode / "artifacts"
        return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.name[0] != ".")

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *arguments], cwd=self.root, capture_output=True, text=True, check=False)


def make_project(folder: Path) -> Project:
    folder.mkdir()
    for name in ("steps", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name in ("step.dev.py", "step.prod.py", "pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    return Project(folder)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One of the test's own."""
    return make_project(tmp_path / "checkout")


@pytest.fixture
def new_project() -> Callable[[Path], Project]:
    """Makes one in a folder that is not there yet."""
    return make_project


# smaller than any user's, and every step still does all it does
TINY = {
    "data_load.source_url": "sample://shapes?images=24&size=64&seed=3",
    "model_train.image_size": 64,
    "model_train.epochs": 1,
    "model_eval.min_map50": 0.0,
    "model_eval.allow_no_detections": "true",
}


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """The arguments that make a run small."""
    return [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Project:
    """A git checkout in which the five steps have run on a tiny sample."""
    project = make_project(tmp_path_factory.mktemp("project") / "checkout")
    commit_all(project.root)
    done = project.step(*tiny)
    assert done.returncode == 0, done.stderr
    (project.root / ".cache" / "printed.txt").write_text(done.stdout)
    return project


@pytest.fixture(scope="session")
def real_data_url(real_data: Path) -> Iterator[str]:
    """Real photographs and weights over loopback HTTP, as the users' URLs give them."""
    with api_server() as server:
        for path in filter(Path.is_file, real_data.iterdir()):
            server.file(f"/{path.name}", path.read_bytes())
        yield server.root
