"""Sources with a secret through the real notebooks, from the outside world to three sets; it is left nowhere."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import postgres
import pytest
from api_server import api_server
from pictures import picture

SECRET = "planted-5ecret-0f-the-test"
STEPS = ("data_load", "data_prep")


@dataclass
class Given:
    """What a source wants to be told."""

    parameters: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def pictures() -> dict[str, bytes]:
    """Twelve pictures that have nothing in common, as PNG files by name."""
    return {f"p{number:02d}.png": picture(size=(64, 48), seed=number) for number in range(12)}


def run(project: Any, given: Given, *steps: str, monkeypatch: pytest.MonkeyPatch) -> list[subprocess.CompletedProcess]:
    for name, value in given.environment.items():
        monkeypatch.setenv(name, value)
    sets = [part for name, value in given.parameters.items() for part in ("--set", f"data_load.{name}={value}")]
    return [project.step(step, *(sets if step == "data_load" else [])) for step in steps]


def leaks(project: Any, done: list[subprocess.CompletedProcess], secret: str) -> list[str]:
    """Where a secret is, plain, encoded or packed: in what was printed, and in every file of the project."""
    from urllib.parse import quote

    forms = [form.encode() for form in {secret, quote(secret, safe="")}]
    found = ["printed" for each in done if any(form.decode() in each.stdout + each.stderr for form in forms)]
    files = [path for path in project.root.rglob("*") if path.is_file()]
    holding = [path for path in files if any(form in path.read_bytes() for form in forms)]
    return found + [str(path.relative_to(project.root)) for path in holding]


def folder_in_tar(pictures: dict[str, bytes], folder: Path, url_of: Callable[[str, bytes], str]) -> Given:
    """YOLO's layout in a tar.gz, at a URL with a token."""
    for name, data in pictures.items():
        for kind, content in (("images", data), ("labels", b"0 0.5 0.5 0.4 0.4\n")):
            target = (folder / "set" / kind / "all" / name).with_suffix(".png" if kind == "images" else ".txt")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    (folder / "set/data.yaml").write_text("names: [cat]\ntrain: images/all\n")
    with tarfile.open(folder / "set.tar.gz", "w:gz") as archive:
        archive.add(folder / "set", "set")
    url = url_of("set.tar.gz", (folder / "set.tar.gz").read_bytes())
    return Given({"source_url": url + "?token=${SET_TOKEN}"}, {"SET_TOKEN": SECRET})


@pytest.fixture(params=["API", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("archive", "database"))])
def given(request: pytest.FixtureRequest, pictures: dict[str, bytes], tmp_path: Path) -> Given:
    """A source of each kind that takes its secret in another way."""
    raw = tmp_path / "raw"
    raw.mkdir()
    if request.param == "database":
        if postgres.missing():
            pytest.skip(postgres.missing())
        server = request.getfixturevalue("gallery")
        server.run("create table pictures (name text, image bytea, x int, y int, width int, height int, label text)")
        for name, data in pictures.items():
            server.run("insert into pictures values (%s, %s, 5, 6, 20, 30, 'cat')", name, data)
        settings = {"source_url": server.url(), "query": "select * from pictures"}
        return Given(settings, {"GALLERY_PASSWORD": postgres.PASSWORD})
    server = request.getfixturevalue("api")
    for name, data in pictures.items():
        server.file(f"/files/{name}", data)
    if request.param == "archive":
        return folder_in_tar(pictures, raw, lambda name, data: server.file(f"/{name}", data))
    server.token = f"Bearer {SECRET}"
    boxes = [{"bbox": [5, 6, 20, 30], "label": "cat"}]
    items = [{"image": f"/files/{name}", "boxes": boxes} for name in pictures]
    url = server.pages("/items", items, 5, "url")
    settings = "{items: data.results, next: next, boxes: boxes, token_env: GALLERY_TOKEN}"
    return Given({"source_url": f"api+{url}", "api": settings}, {"GALLERY_TOKEN": SECRET})


@pytest.fixture
def api() -> Iterator[Any]:
    with api_server() as server:
        yield server


@pytest.fixture
def gallery() -> Iterator[Any]:
    with postgres.postgres() as server:
        yield server


def test_a_source_becomes_three_sets_and_leaves_no_secret(
    given: Given, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(project, given, *STEPS, monkeypatch=monkeypatch)
    assert [each.returncode for each in done] == [0, 0], "".join(each.stderr for each in done)
    metrics = project.manifest()["steps"]["data_prep"]["metrics"]
    assert sum(metrics[f"{name}_images"] for name in ("train", "eval", "test")) == 12
    assert min(metrics[f"{name}_images"] for name in ("train", "eval", "test")) > 0
    assert project.manifest()["steps"]["data_load"]["parameters"]["source_url"] == given.parameters["source_url"]
    for secret in given.environment.values():
        assert leaks(project, done, secret) == []
    done = run(project, given, "data_load", monkeypatch=monkeypatch)
    assert "reused" in done[0].stderr


def test_a_refused_secret_is_not_told(project: Any, monkeypatch: pytest.MonkeyPatch, api: Any) -> None:
    """Not in the error, the log, the record, or the notebook as it ran; the step goes on once the secret is right."""
    api.file("/files/a.png", picture(seed=1))
    url = api.json("/items", [{"image": "/files/a.png", "boxes": [{"bbox": [1, 2, 3, 4], "label": "cat"}]}])
    api.token = f"Bearer {SECRET}"
    wrong = "wrong-" + SECRET[::-1]
    settings = "{boxes: boxes, token_env: GALLERY_TOKEN, requests_per_second: '0'}"
    given = Given({"source_url": f"api+{url}", "api": settings}, {"GALLERY_TOKEN": wrong})
    done = run(project, given, "data_load", monkeypatch=monkeypatch)
    assert done[0].returncode == 1
    assert "GALLERY_TOKEN" in done[0].stderr
    assert leaks(project, done, wrong) == []
    assert project.artifacts() == []
    monkeypatch.setenv("GALLERY_TOKEN", SECRET)
    again = [project.step("data_load", "--run", project.manifest()["run"])]
    assert again[0].returncode == 0, again[0].stderr
    assert leaks(project, again, SECRET) == []
    assert "printed" in leaks(project, done, "GALLERY_TOKEN"), "the search finds what is there"


def test_the_environment_is_not_recorded(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the step, a secret among the variables stays there."""
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    sets = ("--set", "data_load.source_url=sample://shapes?images=8&size=64")
    done = [project.step("data_load", *sets), project.look("show"), project.look("export")]
    assert [each.returncode for each in done] == [0, 0, 0]
    assert leaks(project, done, SECRET) == []
