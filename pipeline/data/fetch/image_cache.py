"""An API's images on this machine: a run that broke off continues, and a new one asks which images have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pipeline.data.fetch.http_client import HttpClient
from pipeline.data.fetch.partial_file import CachedFile, lock
from pipeline.files import sha256_of

_LARGEST = 1 << 29  # bytes; an image of 10,000 x 10,000 px in TIFF has 300 MB
_LOCK, _FETCHED = "lock", "fetched.txt"
_SIGNATURE = frozenset({"signature", "expires", "awsaccesskeyid", "googleaccessid", "policy", "key-pair-id", "token"})
_AZURE = frozenset({"sig", "se", "st", "sp", "sv", "sr", "spr", "ske", "skt", "sks", "skv", "skoid", "sktid"})


class ImageCache:
    """A folder of image files, and a list of the keys that the present run has fetched.

    Files of the present run are used without asking the server; a run that breaks off and is repeated is the same one.
    After `finish` the next run is a new one, and asks the server whether files of earlier runs have changed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._list = folder, folder / _FETCHED
        self._fetched = set(self._list.read_text().split()) if self._list.is_file() else set()
        self._used: set[str] = set()

    def finish(self) -> None:
        """End the run, and remove the files that were not used in it."""
        for path in self._folder.iterdir():
            if path.name.removesuffix(".json") not in self._used and path.name != _LOCK:
                path.unlink()

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
        """Make the file of a URL available under its key; raises as `HttpClient.download`."""
        self._used.add(key)
        file = CachedFile(self.path(key), key)
        if key in self._fetched and file.version():
            return
        file.fill(lambda part, unless: client.download(url, part, unless=unless, max_bytes=_LARGEST, quiet=True))
        with self._list.open("a") as fetched:
            fetched.write(f"{key}\n")


@contextmanager
def image_cache(folder: Path) -> Iterator[ImageCache]:
    """The cache in a folder, for one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / _LOCK):
        yield ImageCache(folder)


def key_of(url: str) -> str:
    """A name for a URL that shows no secret, and stays the same when its signature is renewed."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    names = {name.lower() for name, _ in pairs}
    volatile = _SIGNATURE | _AZURE if "sig" in names else _SIGNATURE
    volatile |= {each for each in names if each.startswith(("x-amz-", "x-goog-"))}
    kept = [(name, value) for name, value in pairs if name.lower() not in volatile]
    return hashlib.sha256(urlunsplit(parts._replace(query=urlencode(kept), fragment="")).encode()).hexdigest()
