"""A source with a secret through the real notebooks, from the outside world to three sets; it is left nowhere."""

from __future__ import annotations

import subprocess
from typing import Any
from urllib.parse import quote

import pytest
from api_server import api_server
from pictures import picture

SECRET = "planted-5ecret-0f-the-test"


def leaks(project: Any, done: list[subprocess.CompletedProcess], secret: str) -> list[str]:
    """Where a secret is, plain, encoded or packed: in what was printed, and in every file of the project."""
    forms = [form.encode() for form in {secret, quote(secret, safe="")}]
    found = ["printed" for each in done if any(form.decode() in each.stdout + each.stderr for form in forms)]
    files = [path for path in project.root.rglob("*") if path.is_file()]
    holding = [path for path in files if any(form in path.read_bytes() for form in forms)]
    return found + [str(path.relative_to(project.root)) for path in holding]


def test_a_source_becomes_three_sets_and_leaves_no_secret(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in an error, the log, the record, or the notebook as it ran; the step goes on once the secret is right."""
    wrong = "wrong-" + SECRET[::-1]
    monkeypatch.setenv("GALLERY_TOKEN", wrong)
    settings = "{items: data.results, next: next, boxes: boxes, token_env: GALLERY_TOKEN}"
    with api_server() as server:
        server.token = f"Bearer {SECRET}"
        boxes, names = [{"bbox": [5, 6, 20, 30], "label": "cat"}], [f"p{number:02d}.png" for number in range(12)]
        for seed, name in enumerate(names):
            server.file(f"/files/{name}", picture(size=(64, 48), seed=seed))
        items = [{"image": f"/files/{name}", "boxes": boxes} for name in names]
        url = f"api+{server.pages('/items', items, 5, 'url')}"
        sets = ("--set", f"data_load.source_url={url}", "--set", f"data_load.api={settings}")
        refused = project.step("data_load", *sets)
        assert refused.returncode == 1
        assert "GALLERY_TOKEN" in refused.stderr
        assert leaks(project, [refused], wrong) == []
        assert "printed" in leaks(project, [refused], "GALLERY_TOKEN"), "the search finds what is there"
        assert project.artifacts() == []
        monkeypatch.setenv("GALLERY_TOKEN", SECRET)
        done = [project.step("data_load", "--run", project.manifest()["run"]), project.step("data_prep")]
        assert [each.returncode for each in done] == [0, 0], "".join(each.stderr for each in done)
        assert leaks(project, done, SECRET) == []
        steps = project.manifest()["steps"]
        counts = [steps["data_prep"]["metrics"][f"{name}_images"] for name in ("train", "eval", "test")]
        assert (sum(counts), min(counts) > 0) == (12, True)
        assert steps["data_load"]["parameters"]["source_url"] == url
        assert "reused" in project.step("data_load", *sets).stderr


def test_the_environment_is_not_recorded(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the step, a secret among the variables stays there."""
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    sets = ("--set", "data_load.source_url=sample://shapes?images=8&size=64")
    done = [project.step("data_load", *sets), project.look("show"), project.look("export")]
    assert [each.returncode for each in done] == [0, 0, 0]
    assert leaks(project, done, SECRET) == []
