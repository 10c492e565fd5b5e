from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cases import cases

from pipeline.data import pretrained
from pipeline.data.pretrained import (
    WeightsOrigin,
    coco_weights,
    load_weights,
    published_weights,
    read_weights_origin,
)
from pipeline.errors import DataError, UsageError

HOSTS = {
    "mmdet": r"https://download\.openmmlab\.com/mmdetection/v[23]\.0/(yolox|rtmdet)/",
    "Megvii": r"https://github\.com/Megvii-BaseDetection/YOLOX/releases/download/0\.1\.1rc0/",
}
CHECKPOINT = b"PK\x03\x04 weights"
DIGEST = hashlib.sha256(CHECKPOINT).hexdigest()


def test_none(tmp_path: Path) -> None:
    loaded = load_weights("", tmp_path / "out", cache=tmp_path)
    assert json.loads((tmp_path / "out/source.json").read_text()) == loaded == {"url": "", "sha256": "", "size": 0}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["source.json"]


def test_over_http(server: Any, tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (real_data / "yolox_nano_coco.pth").read_bytes()
    monkeypatch.setenv("WEIGHTS_PASSWORD", "hunter2")
    url = server.file("/a.pth", data).replace("http://", "http://me:${WEIGHTS_PASSWORD}@")
    loaded = load_weights(url, tmp_path / "out", cache=tmp_path / "cache")
    assert (tmp_path / "out/weights.pth").read_bytes() == data
    assert json.loads((tmp_path / "out/source.json").read_text()) == loaded
    assert loaded == {"url": f"{server.root}/a.pth", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    assert server.requests[0].headers["Authorization"].startswith("Basic ")


def test_weights_are_the_same_artifact_on_every_machine(tmp_path: Path) -> None:
    """As for two users with the same file, each in a folder of their own."""
    written = []
    for user, prefix in (("anna", ""), ("ben/deep", "file://")):
        file = tmp_path / user / "own.pth"
        file.parent.mkdir(parents=True)
        file.write_bytes(CHECKPOINT)
        loaded = load_weights(f"{prefix}{file}", tmp_path / user / "out", cache=tmp_path / "cache")
        assert loaded == {"url": "own.pth", "sha256": DIGEST, "size": len(CHECKPOINT)}
        written.append({path.name: path.read_bytes() for path in (tmp_path / user / "out").iterdir()})
    assert written[0] == written[1]


@pytest.mark.parametrize("content", [b"", b"<html>", b"version https://git-lfs"])
def test_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(DataError, match="not a PyTorch checkpoint"):
        load_weights(str(tmp_path / "a.pth"), tmp_path / "out", cache=tmp_path)


@cases(
    "url, options, says",
    {
        "a digest alone": ("", {"sha256": "0" * 64}, "without a URL"),
        "no detector": ("coco", {}, r"none of ''[\s\S]*yolox-l, yolox-m, yolox-nano[\s\S]*give the detector"),
        "detector misspelt": (
            "coco",
            {"detector": "yolox-tinny"},
            r"none of 'yolox-tinny'[\s\S]*did you mean 'yolox-tiny'",
        ),
        "without its family": ("coco", {"detector": "nano"}, r"none of 'nano'[\s\S]*did you mean 'yolox-nano'"),
        "coco misspelt": ("cocoo", {"detector": "yolox-s"}, r"no weights 'cocoo'[\s\S]*did you mean 'coco'"),
        "coco in capitals": ("COCO", {"detector": "yolox-s"}, r"no weights 'COCO'[\s\S]*did you mean 'coco'"),
    },
)
def test_wrong_names(tmp_path: Path, url: str, options: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_weights(url, tmp_path / "out", cache=tmp_path, **options)


def test_the_table() -> None:
    for entry in published_weights():
        assert re.fullmatch(
            rf"{HOSTS[entry.source]}.*{entry.detector.replace('-', '_')}[\w-]*(-[0-9a-f]{{8}})?\.pth", entry.url
        )
        assert re.fullmatch("[0-9a-f]{8}" if entry.source == "mmdet" else "", entry.sha256_start)
        assert entry.licence == "Apache-2.0"
    by_accuracy = [entry.detector for entry in sorted(published_weights(), key=lambda entry: entry.mAP)]
    rtmdet = [name for name in by_accuracy if name.startswith("rtmdet-")]
    assert rtmdet == [f"rtmdet-{variant}" for variant in ("tiny", "s", "m", "l", "x")]
    for source, variants in {"mmdet": ["tiny", "s", "l", "x"], "Megvii": ["nano", "tiny", "s", "m", "l", "x"]}.items():
        entries = [each for each in published_weights() if each.source == source and each.detector.startswith("yolox-")]
        by_accuracy = [entry.detector for entry in sorted(entries, key=lambda entry: entry.mAP)]
        assert by_accuracy == [f"yolox-{variant}" for variant in variants]
        alone = variants if source == "mmdet" else ["nano", "m"]
        assert {coco_weights(f"yolox-{each}").source for each in alone} == {source}, "mmdet's where there are some"


@pytest.fixture
def publish(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A table with one entry, at a server on this machine."""

    def write(content: bytes, name: str, source: str = "mmdet") -> str:
        url: str = server.file(f"/{name}", content)
        entry = {"detector": "yolox-tiny", "source": source, "url": url, "licence": "MIT", "mAP": 0.3}
        (tmp_path / "table.yaml").write_text(yaml.safe_dump([entry]))
        monkeypatch.setattr(pretrained, "_TABLE", tmp_path / "table.yaml")
        published_weights.cache_clear()
        return url

    yield write
    published_weights.cache_clear()


@pytest.mark.parametrize(
    ("name", "source"), [(f"tiny-{DIGEST[:8]}.pth", "mmdet"), ("tiny-00000000.pth", "Megvii")], ids=["mmdet", "Megvii"]
)
def test_coco_stands_for_the_published_weights(publish: Any, tmp_path: Path, name: str, source: str) -> None:
    url = publish(CHECKPOINT, name, source)
    loaded = load_weights("coco", tmp_path / "out", cache=tmp_path / "cache", detector="yolox-tiny")
    assert (loaded["url"], loaded["sha256"]) == (url, DIGEST)
    assert json.loads((tmp_path / "out/source.json").read_text())["url"] == url
    assert read_weights_origin(tmp_path / "out") == WeightsOrigin(url, DIGEST, "MIT")


@pytest.mark.parametrize("typed", ["coco", ""], ids=["coco", "their URL"])
def test_other_bytes_than_the_published_are_refused_and_not_kept(
    publish: Any, server: Any, tmp_path: Path, typed: str
) -> None:
    name = f"tiny-{DIGEST[:8]}.pth"
    url = publish(CHECKPOINT + b"!", name)
    with pytest.raises(DataError, match=rf"not that of the published weights[\s\S]*SHA-256 {DIGEST[:8]}, and on"):
        load_weights(typed or url, tmp_path / "out", cache=tmp_path / "cache", detector="yolox-tiny")
    assert not (tmp_path / "out/weights.pth").exists()
    server.file(f"/{name}", CHECKPOINT)
    assert (
        load_weights(typed or url, tmp_path / "out", cache=tmp_path / "cache", detector="yolox-tiny")["sha256"]
        == DIGEST
    )


def test_the_origin_of_weights_is_known(tmp_path: Path) -> None:
    load_weights("", tmp_path, cache=tmp_path)
    assert read_weights_origin(tmp_path) is None
    for url, licence in ((coco_weights("yolox-nano").url, "Apache-2.0"), ("https://example.org/own.pth", "")):
        (tmp_path / "source.json").write_text(json.dumps({"url": url, "sha256": "ab", "size": 1}))
        assert read_weights_origin(tmp_path) == WeightsOrigin(url, "ab", licence)
