"""An API's images on this machine: a run that broke off continues, and a new one asks which images have changed."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pipeline.data.fetch.http_client import HttpClient
from pipeline.data.fetch.partial_file import PartialFile, Validators, try_lock
from pipeline.files import sha256_of, write_atomically

_LARGEST = 1 << 29  # bytes; an image of 10,000 x 10,000 px in TIFF has 300 MB
_LOCK, _STATE = "lock", "state.json"
_SIGNATURE = frozenset({"signature", "expires", "awsaccesskeyid", "googleaccessid", "policy", "key-pair-id", "token"})
_AZURE = frozenset({"sig", "se", "st", "sp", "sv", "sr", "spr", "ske", "skt", "sks", "skv", "skoid", "sktid"})


class ImageCache:
    """A folder of image files, each with its version and the number of the run that fetched it.

    Files of the present run are used without asking the server; a run that breaks off and is repeated is the same one.
    After `finish` the next run is a new one, and asks the server whether files of earlier runs have changed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        state = _read(folder / _STATE)
        number = state.get("run")
        self._run = number if isinstance(number, int) else 1
        if state.get("finished") is True:
            self._run += 1
        self._used = {_STATE, _LOCK}
        self._write(_STATE, {"run": self._run, "finished": False})

    def finish(self) -> None:
        """End the run, and remove the files that were not used in it."""
        for path in sorted(self._folder.iterdir()):
            if path.name.removesuffix(".json") not in self._used and path.name not in self._used:
                path.unlink()
        self._write(_STATE, {"run": self._run, "finished": True})

    def path(self, key: str) -> Path:
        """The path of a key's file."""
        return self._folder / key

    def keep(self, data: bytes) -> str:
        """Write an image that came without a URL; returns its key."""
        key = hashlib.sha256(data).hexdigest()
        self._used.add(key)
        if not self.path(key).is_file() or sha256_of(self.path(key)) != key:
            self.path(key).write_bytes(data)
        return key

    def fetch(self, client: HttpClient, url: str, key: str) -> None:
        """Make the file of a URL available under its key.

        Raises:
            UsageError: The endpoint wants another token.
            HttpStatusError: The server refuses for another reason.
            MissingError: It keeps failing.
            DataError: The file is too large.
        """
        self._used.add(key)
        record = _read(self._folder / f"{key}.json")
        whole = self.path(key).is_file() and sha256_of(self.path(key)) == record.get("sha256")
        if whole and record.get("run") == self._run:
            return
        unless = Validators(str(record.get("etag", "")), str(record.get("modified", ""))) if whole else Validators()
        with PartialFile(self.path(key), key) as part:
            found = client.download(url, part, unless=unless, max_bytes=_LARGEST, quiet=True) or unless
            if found is not unless:
                part.finish()
        record = {"run": self._run, "etag": found.etag, "modified": found.last_modified}
        self._write(f"{key}.json", record | {"sha256": sha256_of(self.path(key))})

    def _write(self, name: str, record: dict[str, Any]) -> None:
        write_atomically(self._folder / name, json.dumps(record))


@contextmanager
def image_cache(folder: Path) -> Iterator[ImageCache]:
    """The cache in a folder, for one run at a time; a second one at the same time gets a cache that is not kept."""
    folder.mkdir(parents=True, exist_ok=True)
    file = try_lock(folder / _LOCK)
    if file is None:
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as own:
            yield ImageCache(Path(own))
        return
    with file:
        yield ImageCache(folder)


def key_of(url: str) -> str:
    """A name for a URL that shows no secret, and stays the same when its signature is renewed."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    names = {name.lower() for name, _ in pairs}
    volatile = _SIGNATURE | _AZURE if "sig" in names else _SIGNATURE
    kept = [
        (name, value)
        for name, value in pairs
        if name.lower() not in volatile and not name.lower().startswith(("x-amz-", "x-goog-"))
    ]
    return hashlib.sha256(urlunsplit(parts._replace(query=urlencode(kept), fragment="")).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """A record; empty where there is none that can be read."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
