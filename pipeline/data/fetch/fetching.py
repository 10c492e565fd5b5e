"""The one door to the outside: the local path of a file or folder at any path or URL, downloaded where it is remote."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from pipeline.data.fetch.credentials import expand, redact
from pipeline.data.fetch.fsspec_files import fetch_file
from pipeline.data.fetch.fsspec_places import Place, place_errors, version_of
from pipeline.data.fetch.http_access import Access, hidden_in
from pipeline.data.fetch.http_client import HttpClient
from pipeline.data.fetch.mirror import mirror
from pipeline.data.fetch.partial_file import PartialFile, Validators, byte_bar
from pipeline.errors import DataError, MissingError, PipelineError, UsageError, did_you_mean
from pipeline.files import sha256_of, write_atomically

_LONGEST_SHOWN = 200  # letters of a path that is too long


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

    Args:
        url: A path, or a URL: `file://`, `http://`, `https://`, or of another kind that fsspec knows. `${NAME}` in it
            is replaced by the value of an environment variable.
        folder: The cache of downloads, finished and partial.
        sha256: The digest that the file must have, 64 hexadecimal digits; empty to accept any.
        timeout: Seconds to wait for a connection, and for each piece of the answer.
        backoff: Seconds before the second attempt, about doubled for each further one.

    Raises:
        UsageError: The URL is empty, its kind or the digest's form is wrong, a package or an environment variable is
            missing, or the local path is no plain file or cannot be read.
        MissingError: There is nothing at the path or URL, or it cannot be reached.
        DataError: The file has another digest, or the download stays cut.
    """
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        problem = f"'{sha256}' is no SHA-256"
        raise UsageError(problem, expected="64 hexadecimal digits", remedy="correct it, or leave it empty")
    wanted = sha256.lower()
    given, shown, url = url, redact(url), expand(url)
    if not url.strip():
        raise UsageError("the URL is empty", where=shown, expected="a path or a URL", remedy="name one")
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError:
        raise UsageError("this is no URL", where=shown, expected="a path or a URL", remedy="correct it") from None
    if scheme == "file":
        return _local(_file_url_path(url, shown), shown, wanted)
    is_web = scheme in {"http", "https"}
    if not is_web and "://" not in url:
        return _local(Path(os.path.expanduser(url)), shown, wanted)  # noqa: PTH111, Path raises for unknown users
    key = hashlib.sha256(url.encode()).hexdigest()  # tells URLs apart without giving their secrets away
    last = unquote(shown).rstrip("/").rpartition("/")[2]
    name = f"{key[:12]}-{re.sub(r'[^A-Za-z0-9_.-]', '_', last)[-100:] or 'file'}"
    cached = _Cached(folder / name, shown, key, wanted)
    if is_web:
        return cached.verified() or _from_http(given, url, cached, timeout, backoff)
    place = Place(url, shown, timeout, backoff)
    return cached.verified() or _from_place(place, cached)


@dataclass(frozen=True)
class _Cached:
    """A file in the cache: its path, URL, the URL's key, and the digest it must have."""

    path: Path
    shown: str
    key: str
    wanted: str

    def verified(self) -> Fetched | None:
        """The file, where it is here and has the digest that is wanted."""
        is_here = self.wanted and self.path.is_file() and sha256_of(self.path) == self.wanted
        return self._found(self.wanted) if is_here else None

    def version(self) -> Validators:
        """The version of the file that is here; empty where its bytes have changed, or where they must be fetched."""
        try:
            record = json.loads(self._record.read_text())
            if not self.wanted and record["key"] == self.key and record["sha256"] == sha256_of(self.path):
                return Validators(**record["validators"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return Validators()

    def fill(self, download: Callable[[PartialFile], object]) -> Fetched:
        """Run a download, which returns None where the file here is still current, and check the bytes that came."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with PartialFile(self.path, self.key) as part:
            if fetched_meanwhile := self.verified():
                return fetched_meanwhile
            if download(part) is None:
                return self._found(sha256_of(self.path))
            found = sha256_of(part.path)
            if self.wanted and found != self.wanted:
                part.discard()
                remedy = "the download was removed: check the URL and the SHA-256"
                raise _wrong_digest(self.shown, self.wanted, found, remedy)
            part.finish()
            record = {"key": self.key, "sha256": found, "validators": asdict(part.validators)}
            write_atomically(self._record, json.dumps(record))
            return self._found(found)

    def _found(self, sha256: str) -> Fetched:
        return Fetched(self.path, self.shown, sha256, self.path.stat().st_size)

    @property
    def _record(self) -> Path:
        return self.path.with_name(self.path.name + ".json")


def _from_http(given: str, url: str, cached: _Cached, timeout: float, backoff: float) -> Fetched:
    """Fetch a URL; `given` is the same with placeholders, whose values no message shows."""
    with closing(HttpClient(Access(url, hidden=hidden_in(given)), timeout=timeout, backoff=backoff)) as client:
        return cached.fill(lambda part: client.download(url, part, unless=cached.version(), shown=cached.shown))


def _from_place(place: Place, cached: _Cached) -> Fetched:
    info: dict[str, Any] = place.attempt(lambda system: _info(system, place))
    if info["type"] == "directory":
        _refuse_digest(cached.wanted, place.shown)
        mirror(place, cached.path, cached.key)
        return Fetched(cached.path, place.shown, "", 0)

    def download(part: PartialFile) -> Validators | None:
        if cached.version().same_version(version_of(info)):
            return None
        with byte_bar(cached.path.name, info.get("size")) as bar:
            fetch_file(place, place.path, place.shown, part, lambda size: bar.update(size - bar.n))
        return part.validators

    return cached.fill(download)


def _info(system: Any, place: Place) -> dict[str, Any]:
    with place_errors(place.shown):
        return dict(system.info(place.path))


def _local(path: Path, shown: str, wanted: str) -> Fetched:
    try:
        if not path.exists():
            raise _missing(path, shown)
        if path.is_dir():
            _refuse_digest(wanted, shown)
            return Fetched(path, shown, "", 0)
        if not path.is_file():  # a device or a pipe, which may never end
            raise UsageError("this is no plain file", where=shown, remedy="name a file or a folder")
        found, size = sha256_of(path), path.stat().st_size
    except PipelineError:
        raise
    except OSError as error:
        problem, remedy = f"the file cannot be read: {error.strerror}", "check its path, its permissions and its disk"
        kind = MissingError if error.errno == errno.ENAMETOOLONG else UsageError  # no file has so long a name
        raise kind(problem, where=shown[:_LONGEST_SHOWN], remedy=remedy) from None
    if wanted and found != wanted:
        raise _wrong_digest(shown, wanted, found, "the file was left as it is: is it the right one?")
    return Fetched(path, shown, found, size)


def _file_url_path(url: str, shown: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or not parts.path:
        problem = "a file URL names another machine" if parts.path else "a file URL names no file"
        raise UsageError(problem, where=shown, expected="file:///path/to/file", remedy="correct the URL")
    return Path(url2pathname(parts.path))


def _missing(path: Path, shown: str) -> MissingError:
    try:
        beside = sorted(each.name for each in path.parent.iterdir())
    except OSError:
        beside = []
    remedy = did_you_mean(path.name, beside, otherwise="check the path", cutoff=0.6)
    return MissingError("there is no such file or folder", where=shown, remedy=remedy)


def _wrong_digest(shown: str, wanted: str, found: str, remedy: str) -> DataError:
    return DataError(f"the file's SHA-256 is {found}", where=shown, expected=f"SHA-256 {wanted}", remedy=remedy)


def _refuse_digest(wanted: str, shown: str) -> None:
    if wanted:
        raise UsageError("a SHA-256 was given for a folder", where=shown, remedy="leave it out, or name a file")
