"""Files at an fsspec URL whose single writes are atomic: object stores, and fsspec's memory."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

from pipeline.errors import StoreError, UsageError
from pipeline.files import retrying, sha256_of
from pipeline.runtime.store.file_store import FileInfo, Transfers, changed_meanwhile, storage_errors

SMALL = 1 << 26  # bytes; a file up to this is sent from memory, so that the hashed bytes are the sent ones
ABILITIES = "abilities.json"  # what the store supports, probed once
TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")  # names of one field in backends
ATTEMPTS = 5
PAGE = 1000  # files listed at once, the most that S3 gives
REFUSED_STATUS = {409, 412}  # HTTP: another write is under way; the condition does not hold

log = logging.getLogger(__name__)
_IN_MEMORY = Lock()


class RemoteFiles(Transfers):
    """Files below a URL such as `s3://bucket/prefix`, with the methods of `LocalFiles`.

    Credentials and endpoints come from the environment. A single write is safe at once, and there are no folders.
    """

    def __init__(self, url: str) -> None:
        import fsspec  # imported late: local disk, the usual place, does without

        for name in ("botocore", "aiobotocore"):  # otherwise they log where they found their credentials
            logging.getLogger(name).setLevel(logging.WARNING)
        self.url = url.rstrip("/")
        self.parallel = 16  # a transfer mostly waits for a response
        try:
            # no listing is cached: another process may have written since
            self._fs: Any
            self._fs, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"the store cannot be reached: {error}",
                where=url,
                expected="a local path, or a URL that fsspec knows",
                remedy="install the package it names, such as s3fs for s3://",
            ) from error
        self._protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        # s3fs would first ask for the size, to read a large file in parts; these are small, or are downloaded
        self._whole = {"max_concurrency": 1} if "s3" in self._protocols else {}

    def create(self, key: str, content: bytes) -> bool:
        # refused as existing, yet not there: another write was under way, and failed
        is_lost = retrying(
            lambda error: isinstance(error, FileNotFoundError), attempts=ATTEMPTS, first_wait=0.2, longest_wait=3
        )
        try:
            return is_lost(self._create, key, content)
        except FileNotFoundError as error:
            raise StoreError(
                "the store refuses a file that is not there", where=self.location(key), remedy="run again"
            ) from error

    def _create(self, key: str, content: bytes) -> bool:
        try:
            if self._is_exclusive or not self.exists(key):
                self._write_new(key, content, exclusive=self._is_exclusive)
                return True
        except FileExistsError:
            pass
        except StoreError:
            with suppress(FileNotFoundError, StoreError):
                if self.read(key) == content:  # only the response was lost
                    return True
            raise
        return self.read(key) == content

    def _write_new(self, key: str, content: bytes, *, exclusive: bool) -> None:
        with storage_errors("write a file", self.location(key)):
            try:
                with _IN_MEMORY if "memory" in self._protocols else nullcontext():  # it checks, then writes
                    self._fs.pipe_file(self._path(key), content, mode="create" if exclusive else "overwrite")
            except OSError as error:
                answer = getattr(error.__cause__, "response", None) or {}  # s3fs recognises only AWS's own message
                if answer.get("ResponseMetadata", {}).get("HTTPStatusCode") in REFUSED_STATUS:
                    raise FileExistsError(key) from error
                raise

    @cached_property
    def _is_exclusive(self) -> bool:
        """Whether the second of two creations is refused. Some S3-compatible stores ignore the condition."""
        try:
            exclusive = bool(json.loads(self.read(ABILITIES))["create_is_exclusive"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            exclusive = self._refuses_second_creation()
            self.replace(ABILITIES, json.dumps({"create_is_exclusive": exclusive}).encode())
        if not exclusive:
            log.warning("single writer only: %s does not honour create-if-absent; run one process at a time", self.url)
        return exclusive

    def _refuses_second_creation(self) -> bool:
        key = f"probes/{secrets.token_hex(8)}"
        try:
            for content in (b"first", b"second"):
                self._write_new(key, content, exclusive=True)
        except FileExistsError:
            return True
        else:
            return False
        finally:
            with suppress(FileNotFoundError, StoreError):
                self.remove(key, float("inf"))

    def replace(self, key: str, content: bytes) -> None:
        with storage_errors("write a file", self.location(key)):
            self._fs.pipe_file(self._path(key), content)

    def read(self, key: str) -> bytes:
        with storage_errors("read a file", self.location(key)):
            content: bytes = self._fs.cat_file(self._path(key), **self._whole)
        return content

    def info(self, key: str) -> FileInfo | None:
        with storage_errors("look at a file", self.location(key)):
            try:
                found = self._head(key)
            except FileNotFoundError:
                return None
            return self._described(key, found) if found["type"] == "file" else None

    def _head(self, key: str) -> dict[str, Any]:
        """What the place says of a file; FileNotFoundError if it is absent."""
        path = self._path(key)
        if "s3" not in self._protocols:
            found: dict[str, Any] = self._fs.info(path)
            return found
        bucket, name, _ = self._fs.split_path(path)
        # s3fs' `info` would list the folder of each file that is not there, to see whether it is a folder
        answer = self._fs.call_s3("head_object", self._fs.kwargs, Bucket=bucket, Key=name)
        return {"type": "file", "size": answer["ContentLength"], "LastModified": answer["LastModified"]}

    def names(self, key: str) -> list[str]:
        with storage_errors("list a folder", self.location(key)):
            try:
                found = self._fs.ls(self._path(key), detail=False, refresh=True)
            except FileNotFoundError:
                return []
        folder = self._fs._strip_protocol(self._path(key))
        # some object stores hold a file of the folder's own name
        paths = {str(path).rstrip("/") for path in found} - {folder}
        return sorted(PurePosixPath(path).name for path in paths)

    def find(self, key: str) -> Iterator[FileInfo]:
        with storage_errors("list a folder", self.location(key)):
            if "s3" in self._protocols:
                yield from self._pages(key)
                return
            try:
                found = self._fs.find(self._path(key), detail=True)
            except FileNotFoundError:
                return
            start = len(self._fs._strip_protocol(self._root).rstrip("/")) + 1
            for path, entry in sorted(found.items()):
                if entry["type"] == "file":
                    yield self._described(path[start:], entry)

    def _pages(self, key: str) -> Iterator[FileInfo]:
        """What s3fs' `find` would hold in memory at once, 2 KB a file, page by page."""
        bucket, root, _ = self._fs.split_path(self._root)
        prefix, page = f"{root}/".lstrip("/"), dict[str, str]()
        while True:
            try:
                answer = self._fs.call_s3(
                    "list_objects_v2", self._fs.kwargs, Bucket=bucket, Prefix=f"{prefix}{key}/", MaxKeys=PAGE, **page
                )
            except FileNotFoundError:
                return
            for entry in answer.get("Contents", ()):
                if not entry["Key"].endswith("/"):  # a mark of a folder
                    yield self._described(entry["Key"].removeprefix(prefix), {**entry, "size": entry["Size"]})
            if not answer.get("IsTruncated"):
                return
            page = {"ContinuationToken": answer["NextContinuationToken"]}

    def upload(self, key: str, source: Path, sha256: str) -> None:
        if source.stat().st_size <= SMALL:
            content = source.read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise changed_meanwhile(source)
            self.replace(key, content)
            return
        with storage_errors("write a file", self.location(key)):
            self._fs.put_file(str(source), self._path(key))
        if sha256_of(source) != sha256:
            self.set_aside(key, sha256)
            raise changed_meanwhile(source)

    def download(self, key: str, target: Path, *, link: bool = False) -> None:  # noqa: ARG002, nothing to link to
        with storage_errors("read a file", self.location(key)):
            self._fs.get_file(self._path(key), str(target))

    def remove(self, key: str, before: float) -> bool:
        found = self.info(key)
        if found is not None:
            if found.modified >= before:
                return False
            with suppress(FileNotFoundError), storage_errors("remove a file", self.location(key)):
                self._fs.rm_file(self._path(key))
        return True

    def set_aside(self, key: str, sha256: str) -> None:
        with suppress(FileNotFoundError, StoreError), storage_errors("move a file", self.location(key)):
            if self.sha256(key) != sha256:  # it may have been written again, or misread before
                self._fs.mv(self._path(key), self._path(f"{key}.damaged"))

    def location(self, key: str) -> str:
        return f"{self.url}/{key}"

    def sha256(self, key: str) -> str:
        return hashlib.sha256(self.read(key)).hexdigest()

    def exists(self, key: str) -> bool:
        return self.info(key) is not None

    def renew(self, key: str) -> bool:  # noqa: ARG002
        return False

    def prune(self, key: str) -> None: ...

    def flush(self, folders: Iterable[str]) -> None: ...

    def _described(self, key: str, found: dict[str, Any]) -> FileInfo:
        time = next((found[name] for name in TIMES if found.get(name)), None)
        if time is None:
            time = self._fs.modified(self._path(key))
        return FileInfo(key, int(found["size"]), time if isinstance(time, int | float) else time.timestamp())

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"
