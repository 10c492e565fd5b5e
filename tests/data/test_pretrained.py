from __future__ import annotations

import hashlib
import json

import pytest

from pipeline.data.pretrained import load_weights
from pipeline.data.published_weights import coco_weights
from pipeline.errors import DataError, UsageError


def test_none(tmp_path):
    assert load_weights("", tmp_path / "out", cache=tmp_path).path is None
    assert json.loads((tmp_path / "out/source.json").read_text()) == {"url": "", "sha256": "", "size": 0}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["source.json"]


def test_over_http(server, tmp_path, real_data, monkeypatch):
    data = (real_data / "yolox_nano_coco.pth").read_bytes()
    monkeypatch.setenv("WEIGHTS_PASSWORD", "hunter2")
    url = server.serve("a.pth", data).replace("http://", "http://me:${WEIGHTS_PASSWORD}@")
    loaded = load_weights(url, tmp_path / "out", cache=tmp_path / "cache")
    assert loaded.path.read_bytes() == data
    source = json.loads((tmp_path / "out/source.json").read_text())
    assert source == {"url": f"{server.root}/a.pth", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    assert server.requests[0]["Authorization"].startswith("Basic ")


@pytest.mark.parametrize("content", [b"", b"<html>", b"version https://git-lfs"])
def test_no_checkpoint(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(DataError, match="not a PyTorch checkpoint"):
        load_weights(str(tmp_path / "a.pth"), tmp_path / "out", cache=tmp_path)


def test_digest_without_url(tmp_path):
    with pytest.raises(UsageError, match="without a URL"):
        load_weights("", tmp_path / "out", cache=tmp_path, sha256="0" * 64)


def test_coco_stands_for_the_published_weights_of_the_variant(tmp_path, real_data):
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
def test_coco_needs_a_variant(tmp_path, variant):
    with pytest.raises(UsageError, match="variant"):
        load_weights("coco", tmp_path / "out", cache=tmp_path, variant=variant)
