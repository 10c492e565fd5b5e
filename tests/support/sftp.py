"""A real SFTP server on loopback, made with paramiko: it serves one folder, and breaks connections as a test asks."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko

USER, PASSWORD = "testuser", "test/p@ss"  # which must be encoded in a URL


@dataclass
class Server:
    """A server's settings, and its counts.

    Attributes:
        root: The folder it serves.
        port: Its port on 127.0.0.1.
        key: The host key.
        cuts: Numbers of bytes sent after which a connection breaks, one for each break.
        sent: Bytes of files sent, on all connections.
        connections: How many connections there were.
    """

    root: Path
    key: paramiko.PKey
    port: int = 0
    cuts: list[int] = field(default_factory=list)
    sent: int = 0
    connections: int = 0

    def known_hosts(self, home: Path) -> None:
        """Add this server to the known_hosts file of a home folder."""
        (home / ".ssh").mkdir(parents=True, exist_ok=True)
        line = f"[127.0.0.1]:{self.port} {self.key.get_name()} {self.key.get_base64()}\n"
        (home / ".ssh" / "known_hosts").write_text(line)


@contextmanager
def sftp_server(root: Path) -> Iterator[Server]:
    """Run a server during the block."""
    server = Server(root, paramiko.ECDSAKey.generate())
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    transports: list[paramiko.Transport] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed: the end
                return
            server.connections += 1
            transport = paramiko.Transport(connection)
            transport.add_server_key(server.key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _handler(server, transport))
            transports.append(transport)
            try:
                transport.start_server(event=threading.Event(), server=_Login())
            except (paramiko.SSHException, EOFError, OSError):
                transport.close()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for transport in transports:
            transport.close()


class _Login(paramiko.ServerInterface):  # type: ignore[misc]  # paramiko is untyped
    def check_auth_password(self, username: str, password: str) -> int:
        good = (username, password) == (USER, PASSWORD)
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def get_allowed_auths(self, username: str) -> str:
        return "password"


def _handler(server: Server, transport: paramiko.Transport) -> type[paramiko.SFTPServerInterface]:
    class Files(paramiko.SFTPServerInterface):  # type: ignore[misc]
        def _real(self, path: str) -> Path:
            return server.root / self.canonicalize(path).lstrip("/")

        def list_folder(self, path: str) -> Any:
            try:
                return [self._described(each, each.lstat()) for each in sorted(self._real(path).iterdir())]
            except OSError as error:
                return paramiko.SFTPServer.convert_errno(error.errno)

        def stat(self, path: str) -> Any:
            try:
                return self._described(self._real(path), self._real(path).stat())
            except OSError as error:
                return paramiko.SFTPServer.convert_errno(error.errno)

        def lstat(self, path: str) -> Any:
            try:
                return self._described(self._real(path), self._real(path).lstat())
            except OSError as error:
                return paramiko.SFTPServer.convert_errno(error.errno)

        def open(self, path: str, flags: int, attr: Any) -> Any:
            try:
                file = self._real(path).open("rb")
            except OSError as error:
                return paramiko.SFTPServer.convert_errno(error.errno)
            return _Handle(file)

        @staticmethod
        def _described(path: Path, found: os.stat_result) -> paramiko.SFTPAttributes:
            return paramiko.SFTPAttributes.from_stat(found, path.name)

    class _Handle(paramiko.SFTPHandle):  # type: ignore[misc]
        def __init__(self, file: Any) -> None:
            super().__init__(os.O_RDONLY)
            self._file = file

        def stat(self) -> Any:
            return paramiko.SFTPAttributes.from_stat(os.fstat(self._file.fileno()))

        def read(self, offset: int, length: int) -> Any:
            if server.cuts and server.sent >= server.cuts[0] and transport.is_active():
                server.cuts.pop(0)
                transport.close()
            if not transport.is_active():
                return paramiko.SFTP_FAILURE
            data = os.pread(self._file.fileno(), length, offset)
            server.sent += len(data)
            return data

        def close(self) -> None:
            self._file.close()

    return Files
