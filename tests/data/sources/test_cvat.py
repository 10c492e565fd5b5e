from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_server import Reply, json_reply
from cases import cases
from pictures import picture

from pipeline.errors import DataError, MissingError, UsageError

TOKEN = "planted-secret-4711"  # what the fixture sets CVAT_TOKEN to
DOWNLOAD = "/api/projects/7/dataset/download"
XML = b'<annotations><version>1.1</version><image id="0" name="a.png" width="8" height="4"/></annotations>'


def archive(noise: Any = 0) -> Any:
    """What CVAT exports, with so many bytes more."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("annotations.xml", XML)
        file.writestr("images/default/a.png", picture())
        file.writestr("images/default/b.png", picture(seed=1))
        file.writestr("noise.bin", np.random.default_rng(0).bytes(noise))
    return out.getvalue()


@pytest.fixture
def cvat(api_place: Any) -> Any:
    """A server that looks like CVAT's: its states come one after the other."""
    server = api_place
    server.prefix, server.path, server.token = "cvat", "/projects/7", f"Token {TOKEN}"
    server.states, server.archive = [{"status": "queued"}, {"status": "started"}], archive()
    server.last = {"status": "finished", "result_url": f"{server.root}{DOWNLOAD}?rq_id=x"}
    server.json("/api/projects/7/dataset/export", {"rq_id": "action=export&id=7"}, 202)
    watch = "/api/requests/action%3Dexport%26id%3D7"
    server.route(watch, lambda _: json_reply(server.states.pop(0) if server.states else server.last))
    server.route(DOWNLOAD, lambda _: Reply(200, server.archive))
    return server


def test_whole(cvat: Any, tmp_path: Path) -> None:
    loaded, images, markup = cvat.load("/projects/7?org=team")
    first = cvat.requests[0]
    options = {"format": "CVAT for images 1.1", "save_images": "true", "location": "local", "org": "team"}
    assert (first.method, first.query) == ("POST", options)
    assert len(cvat.requests) == 5
    assert (loaded.kind, loaded.url, loaded.images) == ("api", f"cvat+{cvat.root}/projects/7", 2)
    assert (markup / "annotations.xml").read_bytes() == XML
    assert sorted(path.name for path in images.rglob("*.png")) == ["a.png", "b.png"]
    assert not list((tmp_path / "cache").rglob("*.zip"))


def test_task_below_a_path(cvat: Any) -> None:
    cvat.route("/cvat/api/tasks/3/dataset/export", lambda _: json_reply({"rq_id": "r"}, 202))
    cvat.json("/cvat/api/requests/r", {"status": "finished", "result_url": DOWNLOAD})
    assert cvat.load("/cvat/tasks/3/jobs/5")[0].images == 2


@cases(
    "variables, settings, header",
    {
        "older token": ({"CVAT_TOKEN": TOKEN}, {}, f"Token {TOKEN}"),
        "personal token": ({"CVAT_TOKEN": "x", "CVAT_ACCESS_TOKEN": TOKEN}, {}, f"Bearer {TOKEN}"),
        "set": ({"MINE": TOKEN}, {"token_env": "MINE", "token_scheme": "Token"}, f"Token {TOKEN}"),
    },
)
def test_tokens(cvat: Any, monkeypatch: pytest.MonkeyPatch, variables: Any, settings: Any, header: str) -> None:
    monkeypatch.delenv("CVAT_TOKEN")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cvat.token = header
    cvat.load(**settings)
    assert {each.headers["Authorization"] for each in cvat.requests} == {header}


@cases(
    "change, error, match",
    {
        "failed": ({"last": {"status": "failed", "message": TOKEN}}, DataError, "could not make"),
        "no result": ({"last": {"status": "finished"}}, DataError, "does not say where"),
        "broken archive": ({"archive": archive()[:-30]}, DataError, "zip"),
        "neither project nor task": ({"path": "/jobs/3"}, UsageError, "no project or task"),
        "no token": ({"unset": "CVAT_TOKEN"}, UsageError, "CVAT_ACCESS_TOKEN is not set"),
        "never done": ({"last": {"status": "started"}}, DataError, r"not done after 0.001 minutes"),
        "wrong token": ({"token": "other"}, UsageError, r"401[\s\S]*CVAT_TOKEN"),
        "no such project": ({"routes": {}}, MissingError, r"404[\s\S]*dataset/export"),
        "no request": ({"planned": [json_reply({}, 202)]}, DataError, "an rq_id"),
    },
)
def test_errors(cvat: Any, monkeypatch: pytest.MonkeyPatch, change: Any, error: type[Exception], match: str) -> None:
    for name, value in change.items():
        setattr(cvat, name, value)
    if "unset" in change:
        monkeypatch.delenv(change["unset"])
    cvat.fails(error, match, wait_minutes="0.001" if "not done" in match else "1")


@pytest.mark.parametrize("later", [300_000, 300_001], ids=["the same", "another export"])
def test_continues_where_it_broke_off(cvat: Any, tmp_path: Path, later: int) -> None:
    cvat.file(DOWNLOAD, archive(300_000))
    cvat.cuts = [20_000] * 9
    cvat.fails(MissingError, "it continues where it broke off")
    asked = len(cvat.seen(DOWNLOAD))
    assert asked == 5
    cvat.cuts = []
    cvat.file(DOWNLOAD, archive(later))
    assert cvat.load()[0].images == 2
    first = cvat.seen(DOWNLOAD)[asked]
    assert first.headers["Authorization"] == f"Token {TOKEN}"
    assert first.headers["Range"] == f"bytes={5 * (1 << 14)}-"  # of what came, a started chunk is lost
    assert len(cvat.seen(DOWNLOAD)) == asked + 1
    assert not list((tmp_path / "cache").rglob("export*"))
