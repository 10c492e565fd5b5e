from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.data import published_weights
from pipeline.data.pretrained import load_weights
from pipeline.data.published_weights import coco_weights
from pipeline.errors import DataError, UsageError


def test_none(tmp_path: Path) -> None:
    assert load_weights("", tmp_path / "out", cache=tmp_path).path is None
    assert json.loads((tmp_path / "out/source.json").read_text()) == {"url": "", "sha256": "", "size": 0}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["source.json"]


def test_over_http(server: Any, tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (real_data / "yolox_nano_coco.pth").read_bytes()
    monkeypatch.setenv("WEIGHTS_PASSWORD", "hunter2")
    url = server.serve("a.pth", data).replace("http://", "http://me:${WEIGHTS_PASSWORD}@")
    loaded = load_weights(url, tmp_path / "out", cache=tmp_path / "cache")
    assert loaded.path.read_bytes() == data
    source = json.loads((tmp_path / "out/source.json").read_text())
    assert source == {"url": f"{server.root}/a.pth", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    assert server.requests[0]["Authorization"].startswith("Basic ")


@pytest.mark.parametrize("content", [b"", b"<html>", b"version https://git-lfs"])
def test_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(DataError, match="not a PyTorch checkpoint"):
        load_weights(str(tmp_path / "a.pth"), tmp_path / "out", cache=tmp_path)


def test_digest_without_url(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without a URL"):
        load_weights("", tmp_path / "out", cache=tmp_path, sha256="0" * 64)


def test_coco_stands_for_the_published_weights_of_the_variant(tmp_path: Path, real_data: Path) -> None:
    """A file of the published name lies in the cache, and its digest is given: nothing needs to be fetched."""
    data = (real_data / "yolox_nano_coco.pth").read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    url = coco_weights("nano").url
    cached = tmp_path / "cache" / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-yolox_nano.pth"
    cached.parent.mkdir()
    cached.write_bytes(data)
    loaded = load_weights("coco", tmp_path / "out", cache=tmp_path / "cache", sha256=sha256, variant="nano")
    assert (loaded.url, loaded.path.read_bytes()) == (url, data)
    assert json.loads((tmp_path / "out/source.json").read_text())["url"] == url


@pytest.mark.parametrize("variant", ["", "huge"])
def test_coco_needs_a_variant(tmp_path: Path, variant: str) -> None:
    with pytest.raises(UsageError, match="variant"):
        load_weights("coco", tmp_path / "out", cache=tmp_path, variant=variant)


@pytest.fixture
def publish(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A table with one entry, at a server on this machine."""

    def write(content: Any, name: Any, source: Any = "mmdet", sha256: Any = "") -> Any:
        url = server.serve(name, content)
        entry = {"variant": "tiny", "source": source, "url": url, "sha256": sha256, "licence": "MIT", "mAP": 0.3}
        (tmp_path / "table.yaml").write_text(yaml.safe_dump([entry]))
        monkeypatch.setattr(published_weights, "_TABLE", tmp_path / "table.yaml")
        published_weights.published_weights.cache_clear()
        return url

    yield write
    published_weights.published_weights.cache_clear()


CHECKPOINT = b"PK\x03\x04 weights"
DIGEST = hashlib.sha256(CHECKPOINT).hexdigest()


@pytest.mark.parametrize(
    ("name", "source", "sha256"),
    [
        pytest.param(f"tiny-{DIGEST[:8]}.pth", "mmdet", "", id="the digest of the name"),
        pytest.param("tiny-00000000.pth", "Megvii", "", id="a name that has none"),
        pytest.param("tiny-00000000.pth", "mmdet", DIGEST, id="the digest of the table"),
    ],
)
def test_published_weights_are_what_they_claim(
    publish: Any, tmp_path: Path, name: str, source: str, sha256: Any
) -> None:
    url = publish(CHECKPOINT, name, source, sha256)
    loaded = load_weights("coco", tmp_path / "out", cache=tmp_path / "cache", variant="tiny")
    assert (loaded.url, loaded.sha256) == (url, DIGEST)


@pytest.mark.parametrize("typed", ["coco", ""], ids=["coco", "their URL"])
def test_other_bytes_than_the_published_are_refused_and_not_kept(
    publish: Any, server: Any, tmp_path: Path, typed: str
) -> None:
    name = f"tiny-{DIGEST[:8]}.pth"
    url = publish(CHECKPOINT + b"!", name)
    with pytest.raises(DataError, match=rf"not that of the published weights[\s\S]*SHA-256 {DIGEST[:8]}, and on"):
        load_weights(typed or url, tmp_path / "out", cache=tmp_path / "cache", variant="tiny")
    assert not (tmp_path / "out/weights.pth").exists()
    server.serve(name, CHECKPOINT)
    assert load_weights(typed or url, tmp_path / "out", cache=tmp_path / "cache", variant="tiny").sha256 == DIGEST


def test_the_name_of_mmdets_weights_holds_in_the_real_table_too(tmp_path: Path, real_data: Path) -> None:
    """A file of the published name lies in the cache, and its digest is given: nothing needs to be fetched."""
    url = coco_weights("tiny").url
    cached = tmp_path / "cache" / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{url.rpartition('/')[2]}"
    cached.parent.mkdir()
    cached.write_bytes((real_data / "yolox_nano_coco.pth").read_bytes())
    sha256 = hashlib.sha256(cached.read_bytes()).hexdigest()
    with pytest.raises(DataError, match="SHA-256 b4047906, and on"):
        load_weights("coco", tmp_path / "out", cache=tmp_path / "cache", sha256=sha256, variant="tiny")


@pytest.mark.parametrize("typed", ["cocoo", "Coco", "COCO"])
def test_a_name_that_is_nearly_coco_is_asked_about(tmp_path: Path, typed: str) -> None:
    with pytest.raises(UsageError, match=f"no weights '{typed}'") as caught:
        load_weights(typed, tmp_path / "out", cache=tmp_path / "cache", variant="s")
    assert "did you mean 'coco'?" in str(caught.value)
