"""Broken sources through the real notebook: one clear error names the item, nothing is published, the run continues."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_server import ApiServer, Reply, api_server
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with api_server() as server:
        yield server


@dataclass
class Broken:
    """Parameters of a broken source, texts of its error, and what repairs it."""

    parameters: dict[str, str]
    says: tuple[str, ...]
    mend: Callable[[], None]
    mended: dict[str, str] = field(default_factory=dict)


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def coco(names: list[str]) -> bytes:
    content = {
        "images": [{"id": i, "file_name": name, "width": 80, "height": 60} for i, name in enumerate(names, 1)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 6, 20, 30], "area": 600, "iscrowd": 0}
            for i in range(1, len(names) + 1)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return json.dumps(content).encode()


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def good() -> dict[str, bytes]:
    names = [f"{number}.png" for number in range(40)]
    return {**{name: picture(i) for i, name in enumerate(names)}, "all.json": coco(names)}


def cut_download(folder: Path, server: ApiServer) -> Broken:
    data = zipped(good())
    whole = {"ETag": '"1"', "Accept-Ranges": "bytes"}
    asked: list[str] = []
    broken = [True]

    def answer(request: Any) -> Reply:
        start = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        asked.append(request.headers.get("Range", ""))
        headers = {**whole, "Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        sent = 50_000 if broken[0] else -1
        return Reply(206 if start else 200, data[start:], headers, sent=sent)

    def mend() -> None:
        assert any(asked[1:]), "each attempt continues the download"
        asked.clear()
        broken[0] = False

    url = server.route("/set.zip", answer)
    return Broken({"source_url": url}, ("set.zip", "run it again: it continues"), mend)


def zip_bomb(folder: Path, server: ApiServer) -> Broken:
    """10 GB of zeros, declared as such."""
    with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in good().items():
            archive.writestr(name, data)
        with archive.open("bomb.png", "w", force_zip64=True) as file:
            for _ in range(640):
                file.write(bytes(1 << 24))
    mend = lambda: (folder / "set.zip").write_bytes(zipped(good()))  # noqa: E731
    return Broken({"source_url": str(folder / "set.zip")}, ("set.zip", "bomb.png"), mend)


def image_bomb(folder: Path, server: ApiServer) -> Broken:
    """50,000 x 50,000 pixels of one bit, which are 300 kB as a file."""
    packer, rows = zlib.compressobj(9), bytes(1 + 50_000 // 8)
    pixels = b"".join([packer.compress(rows) for _ in range(50_000)]) + packer.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    members = {**good(), "huge.png": data}
    members["all.json"] = coco([name for name in members if name.endswith(".png")])
    (folder / "set.zip").write_bytes(zipped(members))
    wrong = {"source_url": str(folder / "set.zip")}
    return Broken(wrong, ("huge.png", "megapixels", "missing_images"), lambda: None, {"missing_images": "drop"})


def failing_api(folder: Path, server: ApiServer) -> Broken:
    """500 twice, then 401."""
    server.token = "Bearer right"
    url = server.json("/items", [{"image": "/files/a.png", "boxes": [{"bbox": [1, 2, 3, 4], "label": "cat"}]}])
    server.file("/files/a.png", picture(1))
    server.planned = [Reply(500), Reply(500)]

    def mend() -> None:
        assert [request.path for request in server.requests] == ["/items"] * 3, "a refusal is not tried again"
        server.token = "Bearer wrong"

    settings = "{boxes: boxes, token_env: GALLERY_TOKEN}"
    return Broken({"source_url": f"api+{url}", "api": settings}, ("/items", "401", "GALLERY_TOKEN"), mend)


@pytest.mark.parametrize("make", [cut_download, image_bomb, zip_bomb, failing_api])
def test_it_ends_in_one_clear_error_and_is_resumed(
    make: Any, project: Any, tmp_path: Path, api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALLERY_TOKEN", "wrong")
    folder = tmp_path / "source"
    folder.mkdir()
    broken = make(folder, api)
    sets = [part for name, value in broken.parameters.items() for part in ("--set", f"data_load.{name}={value}")]
    done = project.step("data_load", *sets)
    assert done.returncode == 1
    message = done.stderr[done.stderr.index("error: ") :]
    assert all(text in message for text in broken.says), message
    assert message.count("error: ") == 1
    assert len(message.splitlines()) <= 12, message
    assert "Traceback" not in done.stderr
    assert project.artifacts() == []
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 100_000_000
    run = project.manifest()["run"]
    broken.mend()
    sets = [part for name, value in broken.mended.items() for part in ("--set", f"data_load.{name}={value}")]
    done = project.step("data_load", "--run", run, *sets)
    assert done.returncode == 0, done.stderr
    assert project.manifest()["run"] == run
    assert len(project.artifacts()) == 3
