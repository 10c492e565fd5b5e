"""The project's files agree with each other."""

from __future__ import annotations

import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, str]:
    requirements = [Requirement(line) for line in (ROOT / name).read_text().splitlines() if line.strip()]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in requirements}


@pytest.mark.parametrize(
    ("section", "locks"),
    [
        pytest.param("dependencies", ["requirements.lock"], id="what runs"),
        pytest.param("test", ["requirements.lock"], id="what tests"),
        pytest.param("lab", ["requirements.lock", "requirements.lab.lock"], id="JupyterLab"),
        pytest.param("ray", ["requirements.lock", "requirements.ray.lock"], id="Ray"),
    ],
)
def test_the_lock_satisfies_the_project(section: str, locks: list[str]) -> None:
    project = PROJECT["project"]
    wanted = project["dependencies"] if section == "dependencies" else project["optional-dependencies"][section]
    versions = {name: version for lock in locks for name, version in locked(lock).items()}
    for requirement in map(Requirement, wanted):
        if requirement.name == "torch":
            assert f"torch{requirement.specifier}" in (ROOT / "Makefile").read_text()
            continue
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_no_lock_names_a_cuda_package_or_the_opencv_that_needs_a_display() -> None:
    names = {name for lock in ROOT.glob("requirements*.lock") for name in locked(lock.name)}
    assert not [name for name in names if name.startswith(("nvidia-c", "nvidia-n", "cuda", "triton"))]
    assert "opencv-python" not in names


def test_every_locked_package_and_every_licence_of_weights_is_in_the_table_of_licences() -> None:
    page = (ROOT / "docs/licences.md").read_text()
    rows = [line.split(" | ")[1].rstrip(" |") for line in page.splitlines() if line.startswith("| ")]
    listed = {canonicalize_name(name) for row in rows for name in row.split(", ")}
    installed = {canonicalize_name(each.name) for each in distributions()}
    installed -= {*locked("requirements.ray.lock")}  # the page tells these in a sentence
    assert {*locked("requirements.lock")} & installed <= listed
    weights = yaml.safe_load((ROOT / "pipeline/data/published_weights.yaml").read_text())
    assert {each["licence"] for each in weights} == {"Apache-2.0"}, "say so in docs/licences.md"
