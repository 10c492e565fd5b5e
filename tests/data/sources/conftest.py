"""A server with an API, and a function that loads from it; no secret is left anywhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import api_server

from pipeline.data.coco import read_coco
from pipeline.data.loading import load_source

SECRET = "planted-secret-4711"
VARIABLES = {"LABELS_TOKEN": f" {SECRET}\n"} | dict.fromkeys(("KEY", "LABEL_STUDIO_API_KEY", "CVAT_TOKEN"), SECRET)


@pytest.fixture
def api_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """The server; `load` loads from its `prefix` and `path`, and `fails` expects an error without a secret."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.delenv("CVAT_ACCESS_TOKEN", raising=False)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    with api_server() as server:

        def load(path: str = "", run: str = "1", timeout: float = 2, **settings: Any) -> tuple[Any, ...]:
            images, markup = tmp_path / run / "images", tmp_path / run / "markup"
            url, own = f"{server.prefix}+{server.root}{path or server.path}", {"requests_per_second": "0"} | settings
            loaded = load_source(url, images, markup, cache=tmp_path / "cache", api=own, backoff=0.01, timeout=timeout)
            assert "planted" not in f"{loaded}"
            return loaded, images, read_coco(markup / "annotations.json") if server.prefix != "cvat" else markup

        def fails(error: type[Exception], match: str, *arguments: Any, **settings: Any) -> str:
            with pytest.raises(error, match=match) as caught:
                load(*arguments, **settings)
            each: BaseException | None = caught.value
            while each is not None:
                assert "planted" not in f"{each!s} {each!r}"
                each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
            return str(caught.value)

        server.load, server.fails, server.prefix, server.path = load, fails, "api", "/items"  # type: ignore[attr-defined]
        yield server
    assert "planted" not in caplog.text
    for path in tmp_path.rglob("*"):
        assert "planted" not in path.name
        assert path.is_dir() or b"planted" not in path.read_bytes()
