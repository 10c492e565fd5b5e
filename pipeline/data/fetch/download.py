"""Sources as local paths: a cached, resumable download from any fsspec URL, or the path of what is here already."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import uuid
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from tqdm import tqdm

from pipeline.data.fetch.credentials import expand, redact
from pipeline.data.fetch.http_file import Fetch
from pipeline.data.fetch.mirror import mirror
from pipeline.data.fetch.partial import PartialFile, Validators
from pipeline.data.fetch.places import Place, reaching, validators_of
from pipeline.data.fetch.remote_file import fetch_file, persistently
from pipeline.errors import DataError, MissingError, PipelineError, UsageError

__all__ = ["Download", "download", "file_digest", "redact"]

_LONGEST_SHOWN = 200  # letters of a path that is too long
_BAR: dict[str, Any] = {"unit": "B", "unit_scale": True, "mininterval": 0.5, "ascii": True}


@dataclass(frozen=True)
class Download:
    """A source on this machine: `url` without what may be secret; for a folder `sha256` is empty and `size` 0."""

    path: Path
    url: str
    sha256: str
    size: int


def download(
    url: str,
    folder: Path,
    *,
    sha256: str = "",
    name: str = "",
    timeout: float = 30.0,
    backoff: float = 0.5,
) -> Download:
    """Make a source available as a local path.

    A path or `file://` URL, of a file or a folder, is used where it lies. Anything else is kept in `folder`: a file
    by itself, a folder as a mirror that each call brings up to date. A later call uses a file again only when it is
    verified: by `sha256`, or by the place saying that it is unchanged.

    Args:
        url: A path, or a URL: `file://`, `http://`, `https://`, or of another kind that fsspec knows. `${NAME}` in it
            stands for the value of an environment variable.
        folder: Where downloads are kept, finished and partial.
        sha256: What the file's digest must be, 64 hexadecimal digits; empty to accept any.
        name: The file's name in `folder`; empty to derive it from the URL.
        timeout: Seconds to wait for a connection, and for each piece of the answer.
        backoff: Seconds before the second attempt, doubled for each further one.

    Raises:
        UsageError: The URL is empty, its kind or the digest's form is wrong, a package or an environment variable is
            missing, or what is on this machine is no plain file or cannot be read.
        MissingError: There is nothing at the path or URL, or it cannot be reached.
        DataError: What is there is not what was asked for: another digest, or a download that stays cut.
    """
    wanted = _checked_digest(sha256)
    shown, url = redact(url), expand(url)
    if not url.strip():
        raise UsageError("The URL is empty", where=shown, expected="a path, or a URL; . for the current folder")
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError:
        raise UsageError("This is no URL", where=shown, expected="a path, or a URL") from None
    target = Path(folder) / (name or _cache_name(url, shown))
    if scheme in {"http", "https"}:
        return _fetched(url, shown, target, wanted, timeout, backoff)
    if scheme == "file":
        return _local(_file_url_path(url), shown, wanted)
    if "://" in url:
        return _from_place(Place(url, shown, timeout), target, _key(url), wanted, backoff)
    return _local(_home_expanded(url, shown), shown, wanted)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked_digest(sha256: str) -> str:
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise UsageError("The SHA-256 is not one", where=sha256, expected="64 hexadecimal digits, or nothing")
    return sha256.lower()


def _file_url_path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"}:
        raise UsageError("A file URL names another machine", where=redact(url), expected="file:///path/to/file")
    if not parts.path:
        raise UsageError("A file URL names no file", where=redact(url), expected="file:///path/to/file")
    return Path(url2pathname(parts.path))


def _home_expanded(path: str, shown: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        remedy = "write the path out, or ./~name for a file of that name"
        raise UsageError("There is no home folder of that user", where=shown, remedy=remedy) from None


def _local(path: Path, shown: str, wanted: str) -> Download:
    try:
        if not path.exists():
            raise _nothing_there(path, shown)
        if path.is_dir():
            _refuse_digest(wanted, shown)
            return Download(path, shown, "", 0)
        if not path.is_file():  # a device or a pipe, which may never end
            raise UsageError("This is no plain file", where=shown, expected="a file or a folder")
        found, size = file_digest(path), path.stat().st_size
    except PipelineError:
        raise
    except OSError as error:
        raise _unreadable(error, shown) from None
    if wanted and found != wanted:
        raise _digest_error(shown, wanted, found, "the file was left as it is: is it the right one?")
    return Download(path, shown, found, size)


def _nothing_there(path: Path, shown: str) -> MissingError:
    near = get_close_matches(path.name, _neighbours(path), 1)
    hint = f"did you mean {Path(shown).with_name(near[0])}?" if near else "check the path"
    return MissingError("There is no such file or folder", where=shown, remedy=hint)


def _neighbours(path: Path) -> list[str]:
    try:
        return sorted(each.name for each in path.parent.iterdir())
    except OSError:
        return []


def _unreadable(error: OSError, shown: str) -> PipelineError:
    if error.errno == errno.ENAMETOOLONG:
        remedy = "check the path: a part of it is longer than names of files can be"
        return MissingError("There is no such file or folder", where=f"{shown[:_LONGEST_SHOWN]}...", remedy=remedy)
    problem = f"The file cannot be read: {error.strerror or type(error).__name__}"
    return UsageError(problem, where=shown, remedy="check its permissions, and the disk it lies on")


def _digest_error(shown: str, wanted: str, found: str, remedy: str) -> DataError:
    return DataError(f"The file's SHA-256 is {found}", where=shown, expected=f"SHA-256 {wanted}", remedy=remedy)


def _refuse_digest(wanted: str, shown: str) -> None:
    if wanted:
        raise UsageError("A SHA-256 was given for a folder", where=shown, remedy="leave it out, or name a file")


def _from_place(place: Place, path: Path, key: str, wanted: str, backoff: float) -> Download:
    if wanted and path.is_file() and file_digest(path) == wanted:
        return Download(path, place.shown, wanted, path.stat().st_size)
    info = persistently(partial(_info, place), place, place.shown, backoff)
    if info["type"] == "directory":
        _refuse_digest(wanted, place.shown)
        mirror(place, path, key, backoff=backoff)
        return Download(path, place.shown, "", 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    if wanted or not _kept(path, key).same_version(validators_of(info)):
        with (
            PartialFile(path, key) as part,
            tqdm(desc=path.name[:40], total=info.get("size"), **_BAR) as bar,
        ):
            fetch_file(place, place.path, place.shown, part, backoff, lambda size: bar.update(size - bar.n))
            _finish(part, path, place.shown, key, wanted)
    return Download(path, place.shown, file_digest(path), path.stat().st_size)


def _info(place: Place, system: Any) -> dict[str, Any]:
    with reaching(place.shown):
        return dict(system.info(place.path))


def _fetched(url: str, shown: str, path: Path, wanted: str, timeout: float, backoff: float) -> Download:
    path.parent.mkdir(parents=True, exist_ok=True)
    key = _key(url)
    if wanted and path.is_file() and file_digest(path) == wanted:
        return Download(path, shown, wanted, path.stat().st_size)
    kept = _kept(path, key) if not wanted else Validators()
    with PartialFile(path, key) as part:
        if Fetch(url, shown, timeout, backoff).into(part, unless=kept):
            _finish(part, path, shown, key, wanted)
    return Download(path, shown, file_digest(path), path.stat().st_size)


def _finish(part: PartialFile, path: Path, shown: str, key: str, wanted: str) -> None:
    found = file_digest(part.path)
    if wanted and found != wanted:
        part.discard()
        raise _digest_error(shown, wanted, found, "the download was removed: check the URL and the SHA-256")
    part.finish()
    _keep(path, key, found, part.validators)


def _cache_name(url: str, shown: str) -> str:
    last = unquote(shown).rstrip("/").rpartition("/")[2]  # of what may be shown: file names are
    return f"{_key(url)[:12]}-{re.sub(r'[^A-Za-z0-9_.-]', '_', last)[-100:] or 'file'}"


def _key(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()  # tells URLs apart without giving their secrets away


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _keep(path: Path, key: str, sha256: str, validators: Validators) -> None:
    record = {"key": key, "sha256": sha256, "validators": asdict(validators)}
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.json")
    draft.write_text(json.dumps(record))
    draft.replace(_record_path(path))


def _kept(path: Path, key: str) -> Validators:
    """The server's word on the finished download at hand; empty where there is none, or its bytes have changed."""
    try:
        record = json.loads(_record_path(path).read_text())
        if record["key"] == key and record["sha256"] == file_digest(path):
            return Validators(**record["validators"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Validators()
