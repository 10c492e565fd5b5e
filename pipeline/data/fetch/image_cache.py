"""Images of an API on this machine: a run that broke off goes on where it stood, a new one asks what has changed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pipeline.data.fetch.download import file_digest
from pipeline.data.fetch.http_client import ApiClient
from pipeline.data.fetch.partial import Validators

_LARGEST = 1 << 29  # bytes; a picture of 10,000 x 10,000 px in TIFF is 300 MB
_LOCK = "lock"
_SIGNATURE = frozenset({"signature", "expires", "awsaccesskeyid", "googleaccessid", "policy", "key-pair-id", "token"})
_AZURE = frozenset({"sig", "se", "st", "sp", "sv", "sr", "spr", "ske", "skt", "sks", "skv", "skoid", "sktid"})


class ImageCache:
    """A folder of files, each with what the server said of its version and the number of the run it came in.

    What came in the present run is taken as it is, without asking: a run that breaks off and is repeated is still the
    same one. After `finish` the next run is a new one, and files of earlier ones are asked for again: the server
    answers that a file is unchanged, or sends it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        state = _read(folder / "state.json")
        number = state.get("run")
        self._run = number if isinstance(number, int) else 1
        if state.get("finished") is True:
            self._run += 1
        self._used = {"state.json", _LOCK}
        self._write("state.json", {"run": self._run, "finished": False})

    def finish(self) -> None:
        """Say that all has come; what nobody asked for in this run goes."""
        for path in sorted(self._folder.iterdir()):
            if path.name.removesuffix(".json") not in self._used and path.name not in self._used:
                path.unlink()
        self._write("state.json", {"run": self._run, "finished": True})

    def path(self, key: str) -> Path:
        """Where the file of a key is, or is to be."""
        return self._folder / key

    def keep(self, data: bytes) -> str:
        """Write bytes that came in another way; returns their key."""
        key = hashlib.sha256(data).hexdigest()
        self._used.add(key)
        if not self.path(key).is_file() or file_digest(self.path(key)) != key:
            draft = self._folder / f"{key}.part"
            draft.write_bytes(data)
            draft.replace(self.path(key))
        return key

    def fetch(self, client: ApiClient, url: str, key: str) -> None:
        """Have the file of a URL here, under its key.

        Raises:
            UsageError: The endpoint wants another token.
            RefusedError: The server refuses for another reason.
            DataError: It keeps failing.
        """
        self._used.add(key)
        record = _read(self._folder / f"{key}.json")
        whole = self.path(key).is_file() and file_digest(self.path(key)) == record.get("sha256")
        if whole and record.get("run") == self._run:
            return
        unless = Validators(str(record.get("etag", "")), str(record.get("modified", ""))) if whole else Validators()
        found = client.save(url, self.path(key), unless=unless, max_bytes=_LARGEST) or unless
        record = {"run": self._run, "etag": found.etag, "modified": found.last_modified}
        self._write(f"{key}.json", record | {"sha256": file_digest(self.path(key))})

    def _write(self, name: str, record: dict[str, Any]) -> None:
        draft = self._folder / f"{name}.{uuid.uuid4().hex[:8]}.part"
        draft.write_text(json.dumps(record))
        draft.replace(self._folder / name)


@contextmanager
def image_cache(folder: Path) -> Iterator[ImageCache]:
    """The cache in a folder, for one run at a time; another at the same time has one that is not kept."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as own:
                yield ImageCache(Path(own))
            return
        yield ImageCache(folder)


def key_of(url: str) -> str:
    """A name for a URL that gives no secret away, the same however often its signature is made anew."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    names = {name.lower() for name, _ in pairs}
    volatile = _SIGNATURE | _AZURE if "sig" in names else _SIGNATURE
    kept = [(name, value) for name, value in pairs if not _is_signature(name.lower(), volatile)]
    return hashlib.sha256(urlunsplit(parts._replace(query=urlencode(kept), fragment="")).encode()).hexdigest()


def _is_signature(name: str, volatile: frozenset[str]) -> bool:
    return name in volatile or name.startswith(("x-amz-", "x-goog-"))


def _read(path: Path) -> dict[str, Any]:
    """A record, or nothing where there is none that can be read."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
