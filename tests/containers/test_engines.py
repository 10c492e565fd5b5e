"""Programs that build images, stood in for by scripts: which answers, and how it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.containers.engines import build, build_command, check_engine, find_engine
from pipeline.errors import StepError, UsageError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with programs, apart from those of the system that no engine is."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def install(programs: Path, name: str, script: str) -> None:
    (programs / name).write_text(f"#!/bin/sh\n{script}\n")
    (programs / name).chmod(0o755)


def test_a_client_without_its_daemon_is_passed_over(programs: Path) -> None:
    assert find_engine().silence == "none of docker, podman, nerdctl, buildah is installed"
    install(programs, "docker", 'echo "Client: 28"; echo "Cannot connect to the Docker daemon" >&2; exit 1')
    found = find_engine()
    assert (found.name, found.silence) == ("docker", "docker does not answer: Cannot connect to the Docker daemon")
    install(programs, "podman", "exit 0")
    found = find_engine()
    assert (found.name, found.silence) == ("podman", "")


def test_an_image_is_built_where_the_context_is(programs: Path, tmp_path: Path) -> None:
    install(programs, "docker", f'echo "$@" > {tmp_path}/called')
    build("docker", tmp_path / "con text", "detector:1")
    assert (tmp_path / "called").read_text() == f"build --tag detector:1 {tmp_path}/con text\n"
    assert build_command("podman", tmp_path, "x:1") == [
        "podman", "build", "--format", "docker", "--tag", "x:1", str(tmp_path),
    ]  # fmt: skip


def test_a_failed_build_names_the_command_to_repeat(programs: Path, tmp_path: Path) -> None:
    install(programs, "docker", "exit 7")
    with pytest.raises(StepError, match=rf"exit code 7(.|\n)*docker build --tag detector:1 {tmp_path}"):
        build("docker", tmp_path, "detector:1")


def test_an_unknown_engine_is_refused() -> None:
    check_engine("buildah")
    with pytest.raises(UsageError, match="did you mean 'podman'"):
        check_engine("podmann")
