"""The REST API against its own document, and its parsers against bytes that nobody would write. Bounded."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.slow

# What a text may be, a schema cannot tell: a file that is no image is a right request with a wrong image.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "422", "503"]
[checks.negative_data_rejection]
expected-statuses = ["4xx", "503"]
"""


def test_the_api_keeps_to_its_document(server: Any, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "--config-file", str(tmp_path / "schemathesis.toml"), "run", server.url + "/docs.json"]
    command += ["--url", server.url, "--checks", "all", "--max-examples", "100", "--seed", "11", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "No issues found" in done.stdout
    assert "Traceback" not in server.log_path.read_text()


FUZZER = """
import sys
import atheris
with atheris.instrument_imports(include=["pipeline", "python_multipart"]):
    from pipeline.errors import DataError
    from pipeline.serving.decoding import decode, read_header
    from pipeline.serving.service_errors import ServiceError
    from pipeline.serving.settings import read_settings
    from pipeline.serving.upload import read_upload

SETTINGS = read_settings(0.3, 0.01, {})
TYPES = ("multipart/form-data; boundary=x", "application/json", "image/png", "multipart/form-data; boundary=")

def upload(data):
    async def body():
        return data[2:]
    headers = {"content-type": TYPES[data[0] % len(TYPES)] if data else ""}
    query = (b"", b"strict=true", data[2:40])[data[1] % 3 if len(data) > 1 else 0]
    work = read_upload(headers, query, body, SETTINGS, lambda wanted: None)
    try:
        work.send(None)
    except (StopIteration, ServiceError):
        pass

def image(data):
    try:
        if read_header(data).pixels < 100_000:
            decode(data)
    except DataError:
        pass

atheris.Setup(sys.argv, {"upload": upload, "image": image}[sys.argv.pop(1)])
atheris.Fuzz()
"""


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not published for this system")
@pytest.mark.parametrize("target", ["upload", "image"])
def test_no_bytes_raise_anything_else(target: str, tmp_path: Path, packed: Any) -> None:
    """Twenty seconds of coverage-guided mutations, from a form and an image file."""
    image = (packed.folder / "src" / "test_image.png").read_bytes()
    part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    corpus = {"form": b"\0\0" + part + image + b"\r\n--x--\r\n", "json": b'\1\0{"images": ["aaaa"]}', "png": image}
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)[:40, :60]
    corpus |= {suffix: cv2.imencode(suffix, pixels)[1].tobytes() for suffix in (".jpg", ".webp", ".bmp", ".png")}
    (tmp_path / "corpus").mkdir()
    for name, content in corpus.items():
        (tmp_path / "corpus" / name).write_bytes(content)
    fuzz = [sys.executable, "-c", FUZZER, target, "-max_total_time=20", "-max_len=4096", "-rss_limit_mb=1500"]
    # Linux gives a new program the peak memory of the process that starts it; a shell's is small
    command = ["sh", "-c", '"$@"; exit $?', "sh", *fuzz, str(tmp_path / "corpus")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "Done" in done.stderr
