"""Files and folders at fsspec URLs: a file is fetched whole, a folder kept as a copy that is brought up to date."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pipeline.data.fetch.partial_file import PartialFile, TransientError, Validators, byte_bar, lock, retried, writing
from pipeline.data.image_names import leads_out, safe_name
from pipeline.errors import DataError, MissingError, PipelineError, UsageError, did_you_mean

T = TypeVar("T")

_SSH = frozenset({"sftp", "ssh"})  # with fsspec, any server would get the password
_S3 = frozenset({"s3", "s3a"})
_WRAPPERS = frozenset(
    {"asynclocal", "async_wrapper", "asyncwrapper", "blockcache", "cached", "data", "dir", "filecache", "generic"}
    | {"libarchive", "local", "reference", "root", "simplecache", "tar", "zip"}
)  # file systems around others, and on this machine: both would avoid the checks made here
_ETAGS = ("ETag", "etag", "md5Hash", "crc32c", "content_md5", "checksum", "sha256")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
_DENIALS = frozenset(
    {"AuthenticationException", "ClientAuthenticationError", "CredentialRetrievalError", "DefaultCredentialsError"}
    | {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "RefreshError", "TokenRetrievalError"}
)
_WORKERS = 8  # a fetch mostly waits for an answer
_CHUNK = 1 << 20  # bytes
_BLOCK = 1 << 22  # bytes that a file system reads ahead; up to this a file comes in one piece


class Place:
    """A file or folder at an fsspec URL. Credentials come from the URL, the environment, or fsspec's configuration.

    `shown` is the URL without secrets, for messages; the timeout, in seconds, holds on S3 only.
    """

    def __init__(self, url: str, shown: str, timeout: float, backoff: float) -> None:
        self._url, self._shown, self._timeout, self._backoff = url, shown, timeout, backoff
        self._kind = _kind(url.partition("://")[0].lower(), shown)
        self._path = str(self._kind._strip_protocol(url)).rstrip("/")

    def info(self) -> dict[str, Any]:
        """What fsspec says of the file or folder: its `type`, and its version in keys that differ by place."""
        return dict(self._attempt(lambda system: system.info(self._path)))

    def fetch_file(self, part: PartialFile) -> Validators:
        """Fill a partial file, from its beginning."""

        def fetch(system: Any) -> Validators:
            version = version_of(system.info(self._path))
            part.reset(version)
            with byte_bar(part.target.name, version.size) as bar:
                for chunk in _content(system, self._path, version):
                    part.write(chunk)
                    bar.update(len(chunk))
            return version

        return self._attempt(fetch)

    def mirror(self, folder: Path) -> None:
        """Make a folder here hold exactly the files of the folder there.

        Files that are here in the same version are not fetched again; others are removed. A call that breaks off loses
        nothing of what it fetched. Files have their safe names; a name that could lead out of the folder is a
        `DataError`.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock(folder.with_name(folder.name + ".lock")):
            entries = self._list_files()
            missing = {name: entry for name, entry in entries.items() if not _is_current(folder / name, entry[1])}
            _remove_others(folder, entries.keys() - missing.keys())
            total = sum(max(version.size, 0) for _, version in missing.values())
            # After a failure, `map` cancels what has not begun.
            with byte_bar(self._shown.rpartition("/")[2], total) as bar, ThreadPoolExecutor(_WORKERS) as pool:
                for size in pool.map(lambda name: self._fetch_into(folder, name, *missing[name]), sorted(missing)):
                    bar.update(size)

    def _fetch_into(self, folder: Path, name: str, path: str, version: Validators) -> int:
        target = folder / name
        draft, mark = target.with_name(f".{target.name}.part"), _mark(version)

        def fetch(system: Any) -> int:
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                file = draft.open("wb")
            with file:
                for chunk in _content(system, path, version):
                    with writing(target):
                        file.write(chunk)
            os.utime(draft, ns=(mark, mark))
            return draft.replace(target).stat().st_size

        return self._attempt(fetch, f"{self._shown.rstrip('/')}/{name}")

    def _list_files(self) -> dict[str, tuple[str, Validators]]:
        entries: dict[str, tuple[str, Validators]] = {}
        for path, info in self._attempt(lambda system: _find(system, self._path)).items():
            name = path[len(self._path) :].lstrip("/")
            if not name or name.endswith("/"):  # some object stores keep a file that stands for the folder
                continue
            if leads_out(name) or str(PurePosixPath(name)) != name or safe_name(name) in entries:
                problem = f"the folder has a file whose name cannot be used here: {name!r}"
                raise DataError(problem, where=self._shown, remedy="rename it there")
            entries[safe_name(name)] = path, version_of(info)
        return entries

    def _attempt(self, action: Callable[[Any], T], shown: str = "") -> T:
        """Call `action` with the file system, with retries; `shown` is the file that is asked for."""
        shown = shown or self._shown

        def once() -> T:
            with _place_errors(shown):
                return action(self._system)

        return retried(once, shown=shown, backoff=self._backoff)

    @cached_property
    def _system(self) -> Any:
        from fsspec.config import conf

        for noisy in ("botocore", "aiobotocore", "s3fs", "fsspec"):
            logging.getLogger(noisy).setLevel(logging.WARNING)  # at lower levels they log credentials and headers
        # No instance is shared, and no listing remembered: a place's contents, and who may see them, can change.
        options = self._kind._get_kwargs_from_urls(self._url)
        options |= {"skip_instance_cache": True, "use_listings_cache": False}
        is_s3 = not _S3.isdisjoint(self._kind.protocol)
        if is_s3 and not any("config_kwargs" in conf.get(each, {}) for each in _S3):
            options["config_kwargs"] = {"retries": {"total_max_attempts": 1}, "connect_timeout": self._timeout}
        system = self._kind(**options)
        if hasattr(system, "retries"):
            system.retries = 1  # retries are made here, so that they are logged
        return system


def version_of(info: dict[str, Any]) -> Validators:
    """A file's version from its fsspec info, where each kind of place has other keys."""
    etag = next((str(info[name]) for name in _ETAGS if info.get(name)), "")
    time = next((str(info[name]) for name in _TIMES if info.get(name)), "")
    size = info.get("size")
    return Validators(etag, time, int(size) if size is not None else -1)


def _content(system: Any, path: str, version: Validators) -> Iterator[bytes]:
    """The bytes of a file, all of them and of one version."""
    came = 0
    if 0 <= version.size <= _BLOCK:
        chunk = bytes(system.cat_file(path))
        came = len(chunk)
        yield chunk
    else:
        before = version_of(system.info(path))  # which may have other keys than a listing
        with system.open(path, "rb", block_size=_BLOCK) as opened:
            while chunk := opened.read(_CHUNK):
                came += len(chunk)
                yield chunk
        if version_of(system.info(path)) != before:
            raise TransientError("the file changed while it was read")
    if version.size not in (came, -1):
        raise TransientError(f"the download was cut: {came} of {version.size} bytes came")


def _find(system: Any, path: str) -> dict[str, dict[str, Any]]:
    """All below a path that is no folder. Object stores list it in one go; elsewhere a folder may be unreadable."""
    from fsspec.asyn import AsyncFileSystem

    is_store = getattr(type(system), "_find", AsyncFileSystem._find) is not AsyncFileSystem._find
    found = system.find(path, detail=True, **({} if is_store else {"on_error": "raise"}))
    return {str(name): info for name, info in found.items() if info.get("type") != "directory"}


def _mark(version: Validators) -> int:
    """The modification time, in ns, of a file of this version, so that no record of versions is needed."""
    return int.from_bytes(hashlib.sha256(repr(version).encode()).digest()[:7], "big")


def _is_current(path: Path, version: Validators) -> bool:
    if not version.same_version(version) or path.is_symlink() or not path.is_file():
        return False
    return path.stat().st_mtime_ns == _mark(version) and version.size in (path.stat().st_size, -1)


def _remove_others(folder: Path, names: set[str]) -> None:
    folder.mkdir(exist_ok=True)
    for root, folders, files in os.walk(folder, topdown=False):
        for path in (Path(root) / name for name in files):
            if path.relative_to(folder).as_posix() not in names:
                path.unlink()
        for path in (Path(root) / name for name in folders):
            if not any(path.iterdir()):
                path.rmdir()


def _kind(scheme: str, shown: str) -> Any:
    import fsspec  # only where a source is remote
    from fsspec.registry import known_implementations, registry

    known = sorted({*known_implementations, *registry} - _WRAPPERS - _SSH)
    if scheme not in known or "::" in shown:
        remedy = did_you_mean(scheme, known, otherwise="check how the URL begins", cutoff=0.6)
        if scheme in _SSH:
            remedy = "mount the folder with sshfs, or copy it with rsync, and name the path"
        expected = "a path, or a URL of kind file, http, https, s3, gs, az, or another that fsspec knows"
        raise UsageError(f"URLs of kind '{scheme}' cannot be read", where=shown, expected=expected, remedy=remedy)
    try:
        return fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError):
        remedy = known_implementations.get(scheme, {}).get("err", "install fsspec's package for it")
        raise UsageError(f"a package for '{scheme}' URLs is missing", where=shown, remedy=remedy) from None


@contextmanager
def _place_errors(shown: str) -> Iterator[None]:
    """Replace errors of a place, whose messages may hold secrets, and do not chain them."""
    try:
        yield
    except (PipelineError, TransientError):
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError("there is no such file or folder", where=shown, remedy="check the URL") from None
    except (ValueError, TypeError, NotImplementedError, ImportError, AttributeError) as error:
        problem = f"the place cannot be read this way ({type(error).__name__})"
        raise UsageError(problem, where=shown, remedy="check the URL and fsspec's configuration") from None
    except Exception as error:  # noqa: BLE001, raised in another form: the libraries have kinds of their own
        if isinstance(error, PermissionError) or any(each.__name__ in _DENIALS for each in type(error).__mro__):
            remedy = "check the credentials in the environment, or in fsspec's configuration"
            raise MissingError(f"access is denied: {_cause(error)}", where=shown, remedy=remedy) from None
        raise TransientError(_cause(error)) from None


def _cause(error: Exception) -> str:
    """The cause in words without secrets, which the library's own may hold."""
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
