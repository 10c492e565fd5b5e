"""The one door to the outside: the local path of a file or folder at any path or URL, downloaded where it is remote."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from pipeline.data.fetch.credentials import Access, expand, hidden_in, redact
from pipeline.data.fetch.fsspec_places import Place, version_of
from pipeline.data.fetch.http_client import HttpClient
from pipeline.data.fetch.partial_file import CachedFile, wrong_digest
from pipeline.errors import MissingError, UsageError, did_you_mean
from pipeline.files import sha256_of


@dataclass(frozen=True)
class Fetched:
    """A file or folder on this machine: `url` is without secrets; for a folder `sha256` is empty and `size` 0."""

    path: Path
    url: str
    sha256: str
    size: int


def fetch(url: str, folder: Path, *, sha256: str = "", timeout: float = 30.0, backoff: float = 0.5) -> Fetched:
    """Make a file or folder available as a local path.

    A path or `file://` URL is used in place. Anything else is kept in `folder`: a file by itself, a folder as a mirror
    that each call brings up to date. A later call uses a file again only when it is verified: by `sha256`, or by the
    server's answer that it has not changed.

    `${NAME}` in the URL is replaced by the value of an environment variable. For `timeout` and `backoff` see
    `HttpClient`.

    Raises:
        UsageError: The URL, the digest's form or the local path cannot be used, or a package is missing.
        MissingError: There is nothing at the path or URL, or it cannot be reached.
        DataError: The file has another digest.
    """
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        problem = f"'{sha256}' is no SHA-256"
        raise UsageError(problem, expected="64 hexadecimal digits", remedy="correct it, or leave it empty")
    given, shown, url, wanted = url, redact(url), expand(url), sha256.lower()
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError:
        scheme = ""
    if not url.strip() or (not scheme and "://" in url):
        raise UsageError("this is no URL or path", where=shown, remedy="correct it")
    if scheme == "file" or "://" not in url:
        return _local(url, shown, wanted)
    key = hashlib.sha256(url.encode()).hexdigest()  # tells URLs apart without giving their secrets away
    last = unquote(shown).rstrip("/").rpartition("/")[2]
    name = f"{key[:12]}-{re.sub(r'[^A-Za-z0-9_.-]', '_', last)[-100:] or 'file'}"
    cached = CachedFile(folder / name, key)
    if cached.has(wanted):
        digest = wanted
    elif scheme in {"http", "https"}:
        with closing(HttpClient(Access(url, hidden=hidden_in(given)), timeout=timeout, backoff=backoff)) as client:
            digest = cached.fill(
                lambda part, unless: client.download(url, part, unless=unless, shown=shown), wanted, shown
            )
    else:
        place = Place(url, shown, timeout, backoff)
        info = place.info()
        if info["type"] == "directory":
            _refuse_digest(wanted, shown)
            place.mirror(cached.path)
            return Fetched(cached.path, shown, "", 0)
        current = version_of(info)
        digest = cached.fill(
            lambda part, unless: None if unless.same_version(current) else place.fetch_file(part), wanted, shown
        )
    return Fetched(cached.path, shown, digest, cached.path.stat().st_size)


def _local(url: str, shown: str, wanted: str) -> Fetched:
    path = Path(os.path.expanduser(url))  # noqa: PTH111, Path raises for unknown users
    if "://" in url:
        parts = urlsplit(url)
        if parts.netloc not in {"", "localhost"} or not parts.path:
            problem = "a file URL names another machine, or no file"
            raise UsageError(problem, where=shown, expected="file:///path/to/file", remedy="correct the URL")
        path = Path(url2pathname(parts.path))
    try:
        if not path.exists():
            beside = sorted(each.name for each in path.parent.iterdir()) if path.parent.is_dir() else []
            remedy = did_you_mean(path.name, beside, otherwise="check the path", cutoff=0.6)
            raise MissingError("there is no such file or folder", where=shown, remedy=remedy)
        if path.is_dir():
            _refuse_digest(wanted, shown)
            return Fetched(path, shown, "", 0)
        if not path.is_file():  # a device or a pipe, which may never end
            raise UsageError("this is no plain file", where=shown, remedy="name a file or a folder")
        found, size = sha256_of(path), path.stat().st_size
    except MissingError:
        raise
    except OSError as error:
        problem = f"the file cannot be read: {error.strerror}"
        raise UsageError(problem, where=shown, remedy="check its path and permissions") from None
    if wanted and found != wanted:
        raise wrong_digest(shown, wanted, found, "the file was left as it is: is it the right one?")
    return Fetched(path, shown, found, size)


def _refuse_digest(wanted: str, shown: str) -> None:
    if wanted:
        raise UsageError("a SHA-256 was given for a folder", where=shown, remedy="leave it out, or name a file")
