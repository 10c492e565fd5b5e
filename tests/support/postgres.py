"""A real PostgreSQL server, from Debian's package: on loopback, with passwords, gone after the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from ports import free_ports

USER, PASSWORD = "painter", "planted/secret@%7"  # with what means something in URLs
PATIENCE = 60  # seconds until it answers
SETTINGS = {"fsync": "off", "full_page_writes": "off", "unix_socket_directories": "''", "listen_addresses": "127.0.0.1"}


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
    as_root = not os.getuid() and not _other_user()
    return "PostgreSQL does not run as root, and there is no user postgres or nobody" if as_root else ""


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server while the block runs."""
    programs = _programs()
    assert programs, missing()
    user = _other_user()
    who = {} if os.getuid() else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # not below pytest's, which are for one user alone
    (folder / "password").write_text(PASSWORD)
    if who:
        shutil.chown(folder, user)

    def control(*arguments: object) -> None:
        command = [programs / "pg_ctl", "-D", folder / "data", "-w", "-t", PATIENCE, *arguments]
        output = (folder / "output").open("ab")
        done = subprocess.run([*map(str, command)], cwd=folder, stdout=output, stderr=subprocess.STDOUT, **who)
        assert done.returncode == 0, (folder / "output").read_text()[-2000:]

    port = free_ports()[0]
    login = f"-U {USER} --auth=scram-sha-256 --pwfile={folder}/password --encoding=UTF8 --locale=C --no-sync"
    try:
        control("-o", login, "initdb")
        control("-o", f"-p {port} " + " ".join(f"-c {name}={value}" for name, value in SETTINGS.items()), "start")
        yield Postgres(port)
        control("-m", "fast", "stop")
    finally:
        shutil.rmtree(folder)


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    elsewhere = shutil.which("pg_ctl")
    return found[-1].parent if found else Path(elsewhere).parent if elsewhere else None


def _other_user() -> str:
    known = {each.pw_name for each in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), "")
