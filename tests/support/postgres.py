"""A real PostgreSQL server, from Debian's package: on loopback, with passwords, gone after the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

USER, PASSWORD = "painter", "planted/secret@%7"  # with what means something in URLs
PATIENCE = 60  # seconds until it answers
SETTINGS = {"fsync": "off", "full_page_writes": "off", "unix_socket_directories": "", "listen_addresses": "127.0.0.1"}


@dataclass(frozen=True)
class Postgres:
    """A server that knows one user and the database `postgres`."""

    port: int

    def url(self, login: str = f"{USER}:${{GALLERY_PASSWORD}}@") -> str:
        """Its URL; the password as a placeholder."""
        return f"postgresql://{login}127.0.0.1:{self.port}/postgres"

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement, and commit."""
        login = {"host": "127.0.0.1", "port": self.port, "user": USER, "password": PASSWORD, "dbname": "postgres"}
        with psycopg.connect(**login) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []


def missing() -> str:
    """Why there can be no server here; empty where there can."""
    if not _programs():
        return "PostgreSQL is not installed: apt-get install postgresql"
    return (
        ""
        if os.getuid() or _other_user()
        else "PostgreSQL does not run as root, and there is no user postgres or nobody"
    )


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server while the block runs."""
    programs = _programs()
    assert programs, missing()
    who = (
        {} if os.getuid() else {"user": _other_user(), "group": pwd.getpwnam(_other_user()).pw_gid, "extra_groups": []}
    )
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # not below pytest's, which are for one user alone
    if who:
        shutil.chown(folder, str(who["user"]))
    try:
        with _running(programs, folder, who) as port:
            yield Postgres(port)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _running(programs: Path, folder: Path, who: dict[str, Any]) -> Iterator[int]:
    (folder / "password").write_text(PASSWORD)
    make = [
        programs / "initdb",
        "-D",
        folder / "data",
        "-U",
        USER,
        "--auth=scram-sha-256",
        f"--pwfile={folder}/password",
    ]
    made = subprocess.run(
        [*make, "--encoding=UTF8", "--locale=C", "--no-sync"], cwd=folder, capture_output=True, text=True, **who
    )
    assert made.returncode == 0, made.stderr
    port = _free_port()
    settings = [text for name, value in SETTINGS.items() for text in ("-c", f"{name}={value}")]
    command = [programs / "postgres", "-D", folder / "data", "-p", str(port), *settings]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, **who)
    try:
        _wait(Postgres(port), server, folder / "log")
        yield port
    finally:
        server.send_signal(signal.SIGINT)  # a fast shutdown
        server.wait(PATIENCE)


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    elsewhere = shutil.which("initdb")
    return found[-1].parent if found else Path(elsewhere).parent if elsewhere else None


def _other_user() -> str:
    known = {each.pw_name for each in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), "")


def _wait(server: Postgres, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            server.run("SELECT 1")
        except psycopg.OperationalError:
            assert time.monotonic() < end, log.read_text()[-2000:]
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])
