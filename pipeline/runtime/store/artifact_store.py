"""Folders in and out of a store: content-addressed, write-once, the marker last; see the package's docstring."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from pipeline.errors import DataError, IntegrityError, MissingError, StoreError, UsageError
from pipeline.files import sha256_of
from pipeline.runtime.store.file_store import LocalFiles, storage_errors
from pipeline.runtime.store.object_cache import ObjectCache

if TYPE_CHECKING:
    from pipeline.runtime.store.remote_files import RemoteFiles

NAME = re.compile(r"[A-Za-z0-9_-]+")
DIGEST = re.compile(r"[0-9a-f]{64}")
OBJECTS = "objects"  # the cache of a remote store's objects, in a project's `.cache`
YOUNG = 12 * 3600.0  # seconds; half of what a collection spares, which leaves room for skewed clocks and slow runs
DOWNLOADS = 2  # attempts, since a file may be damaged on its way
AHEAD = 300.0  # seconds that a file's time may lie in the future; beyond that the clocks are not trusted


@dataclass(frozen=True)
class StoredFile:
    """One file of an artifact: POSIX path below the artifact's folder, bytes, SHA-256."""

    path: str
    size: int
    sha256: str

    @property
    def key(self) -> str:
        """Key of the file's bytes in a store."""
        return f"objects/{self.sha256[:2]}/{self.sha256}"


@dataclass(frozen=True)
class Artifact:
    """A stored folder."""

    name: str  # of the entity, such as `coco_train_dataset`
    url: str  # of its index; ends in the digest
    digest: str  # SHA-256 of the index, and so of every path and byte of the folder
    size: int  # bytes of all files
    files: int  # number of files
    made_by: str = ""  # `run/step/attempt`

    @property
    def key(self) -> str:
        """Key of its index, which marks it as whole."""
        return f"artifacts/{self.name}/{self.digest}"


class Store:
    """A place for artifacts and records: a local path, or a URL such as `s3://bucket/prefix` or `memory://name`.

    `cache` is a folder of this machine that keeps objects of a remote place, for any number of stores and processes.
    """

    def __init__(self, url: str, cache: Path | None = None) -> None:
        self.files = _open_files(url)  # whole files by key, for records
        self.url = self.files.url
        self._cache = ObjectCache(cache) if cache and not isinstance(self.files, LocalFiles) else None

    def put(self, name: str, folder: Path, made_by: str = "") -> Artifact:
        """Store a folder. It becomes an artifact only when all of it is safe; empty folders in it are not kept."""
        if not NAME.fullmatch(name):
            raise UsageError(f"'{name}' cannot name an artifact", expected="letters, digits, _ and -")
        files = self.files_of(folder, name)
        distinct = {file.sha256: file for file in files}.values()
        were_old = self.files.each(lambda file: self._put_object(file, folder), distinct, f"storing {name}")
        if cache := self._cache:
            copied = self.files.each(
                lambda file: cache.add(file.sha256, folder / file.path, link=False), distinct, "keeping"
            )
            if any(copied):
                cache.trim()
        self.files.flush(["objects", *sorted({file.key.rpartition("/")[0] for file in distinct})])
        index, digest = write_index(files), digest_of(files)
        artifact = Artifact(name, "", digest, sum(file.size for file in files), len(files), made_by)
        self._put_index(artifact.key, digest, index)
        for file, was_old in zip(distinct, were_old, strict=True):
            if was_old:  # a collection may have removed it just before it was renewed; now the index protects it
                self._put_object(file, folder)
        return self.located(artifact)

    def files_of(self, folder: Path, name: str) -> list[StoredFile]:
        """The files of a folder, as the index of an artifact of that name would list them."""
        names = sorted(regular_files(folder))
        if not names:
            raise DataError("an empty folder cannot be stored", where=folder, expected="at least one file")
        return self.files.each(lambda path: _hashed(path, folder), names, f"hashing {name}")

    def located(self, artifact: Artifact) -> Artifact:
        """The artifact with its present URL: a store may have been moved or copied since."""
        return Artifact(**{**vars(artifact), "url": f"{self.url}/{artifact.key}"})

    def get(self, artifact: Artifact, folder: Path, *, link: bool = False, only: Collection[str] | None = None) -> Path:
        """Copy an artifact to a folder, which is replaced if it exists; every byte is checked against the index first.

        With `link`, files of a local store are hard-linked where possible, and are read-only except to root. With
        `only`, just the files of these paths are copied, as far as the artifact has them.
        """
        files = [file for file in self.index(artifact) if only is None or file.path in only]
        draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        try:
            with storage_errors("write an artifact's files", str(folder)):
                for parent in sorted({draft, *((draft / file.path).parent for file in files)}):
                    parent.mkdir(parents=True, exist_ok=True)
                are_new = self.files.each(
                    lambda file: self._get_object(file, draft / file.path, artifact, link=link),
                    files,
                    f"reading {artifact.name}",
                )
                if self._cache and any(are_new):
                    self._cache.trim()
                if folder.exists():
                    shutil.rmtree(folder)
                draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return folder

    def has(self, artifact: Artifact) -> bool:
        """Whether the artifact's index is whole and in this store, wherever the store was when it was recorded."""
        try:
            return hashlib.sha256(self.files.read(artifact.key)).hexdigest() == artifact.digest
        except FileNotFoundError:
            return False

    def keep_alive(self, artifact: Artifact) -> bool:
        """Protect an artifact that is about to be referred to from collection; False if it is not in the store."""
        if not self.has(artifact):
            return False
        if self._is_young(artifact.key):
            return True
        try:
            if not self.files.renew(artifact.key):
                self.files.replace(artifact.key, self.files.read(artifact.key))
            # a collection may have been about to remove its objects
            return all(self.files.each(lambda file: self.files.exists(file.key), self.index(artifact), "checking"))
        except FileNotFoundError:
            return False

    def index(self, artifact: Artifact) -> list[StoredFile]:
        """The files of an artifact; MissingError if it is not in this store, IntegrityError if it is damaged."""
        where = self.files.location(artifact.key)
        try:
            content = self.files.read(artifact.key)
        except FileNotFoundError:
            raise MissingError(
                f"the artifact {artifact.name} {artifact.digest[:12]} is not in the store",
                where=where,
                remedy="run the step that makes it again with --force, or use the store it was made in",
            ) from None
        if hashlib.sha256(content).hexdigest() != artifact.digest:
            raise _damaged("the index", artifact, where)
        return read_index(content, where)

    def check(self, artifact: Artifact, passed: set[str] | None = None) -> list[str]:
        """The damaged or missing files, or what is wrong with the index; every byte is checked.

        Damaged files are set aside, so that the next `put` stores them again. `passed` has the digests of objects that
        were found right before; those found right now are added.
        """
        try:
            files = self.index(artifact)
        except (MissingError, IntegrityError) as error:
            return [error.problem]
        known = set() if passed is None else passed
        distinct = {file.sha256: file for file in files if file.sha256 not in known}
        right = self.files.each(self._object_is_right, distinct.values(), f"checking {artifact.name}")
        known |= {sha256 for sha256, is_right in zip(distinct, right, strict=True) if is_right}
        return [file.path for file in files if file.sha256 not in known]

    def read(self, sha256: str) -> bytes:
        """The bytes of a file of any artifact, by their digest; IntegrityError if they are damaged or missing."""
        file = StoredFile("", 0, sha256)
        with suppress(FileNotFoundError):
            content = self.files.read(file.key)
            if hashlib.sha256(content).hexdigest() == sha256:
                return content
        where = self.files.location(file.key)
        raise IntegrityError("a stored file is damaged or missing", where=where, remedy="python -m pipeline verify")

    def keep(self, key: str, source: Path) -> str:
        """Copy a local file beside the records, and return its location."""
        self.files.replace(key, source.read_bytes())
        return self.files.location(key)

    def _put_object(self, file: StoredFile, folder: Path) -> bool:
        """Store a file's bytes unless they are there; a cut object is replaced. Whether an old one was there."""
        found = self.files.info(file.key)
        was_old = found is not None and not _is_recent(found.modified)
        if found is None or found.size != file.size or (was_old and not self.files.renew(file.key)):
            self.files.upload(file.key, folder / file.path, file.sha256)
        return was_old

    def _put_index(self, key: str, digest: str, index: bytes) -> None:
        try:
            is_whole = self.files.read(key) == index
        except FileNotFoundError:
            is_whole = self.files.create(key, index)
        if not is_whole:
            self.files.set_aside(key, digest)
            if not self.files.create(key, index):
                where = self.files.location(key)
                raise StoreError("a damaged index cannot be replaced", where=where, remedy="remove it")
        elif not self._is_young(key) and not self.files.renew(key):
            self.files.replace(key, index)

    def _get_object(self, file: StoredFile, target: Path, artifact: Artifact, *, link: bool) -> bool:
        """Lay out a file, and check it. Whether the cache has it since."""
        if self._cache and self._cache.take(file.sha256, target, link=link):
            return False
        where = self.files.location(file.key)
        for _ in range(DOWNLOADS):
            try:
                self.files.download(file.key, target, link=link)
            except FileNotFoundError as error:
                raise _damaged(file.path, artifact, f"{where} is gone") from error
            if target.stat().st_size == file.size and sha256_of(target) == file.sha256:
                return self._cache is not None and self._cache.add(file.sha256, target, link=link)
            target.unlink()
            if not self._object_is_right(file):
                raise _damaged(file.path, artifact, where)
        raise StoreError(
            f"{file.path} of {artifact.name} does not arrive as it is stored",
            where=where,
            remedy="check the connection between this machine and the store, and run the same command again",
        )

    def _object_is_right(self, file: StoredFile) -> bool:
        try:
            if self.files.sha256(file.key) == file.sha256:
                return True
        except FileNotFoundError:
            return False
        self.files.set_aside(file.key, file.sha256)
        return False

    def _is_young(self, key: str) -> bool:
        found = self.files.info(key)
        return found is not None and _is_recent(found.modified)


def _open_files(url: str) -> LocalFiles | RemoteFiles:
    scheme, sign, rest = url.partition("://")
    if not sign:
        return LocalFiles(Path(url))
    if scheme in ("file", "local"):  # fsspec's own local files cannot create a file exclusively
        return LocalFiles(Path(unquote(rest.removeprefix("localhost"))))
    from pipeline.runtime.store.remote_files import RemoteFiles  # late: it imports fsspec

    return RemoteFiles(url)


def write_index(files: list[StoredFile]) -> bytes:
    """Canonical bytes: the same folder gives the same index anywhere, and so the same digest."""
    entries = [vars(file) for file in files]
    return (json.dumps({"files": entries}, indent=0, ensure_ascii=False, sort_keys=True) + "\n").encode()


def digest_of(files: list[StoredFile]) -> str:
    """The digest of an artifact with these files."""
    return hashlib.sha256(write_index(files)).hexdigest()


def read_index(content: bytes, where: str) -> list[StoredFile]:
    """Read an index, which may be forged: a right digest is no proof."""
    try:
        files = [StoredFile(**entry) for entry in json.loads(content)["files"]]
        paths = {PurePosixPath(file.path) for file in files}
        plain = all(_is_safe(file.path) and DIGEST.fullmatch(file.sha256) and file.size >= 0 for file in files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"an index cannot be read: {error}", where=where) from error
    folders = {parent for path in paths for parent in path.parents}
    if not files or not plain or len(paths) != len(files) or paths & folders:
        raise IntegrityError("an index names no path, one outside its artifact, or one twice", where=where)
    return files


def _is_safe(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and "/".join(parts) == path and ".." not in parts and "\0" not in path and parts[0] != "/"


def regular_files(folder: Path) -> Iterator[str]:
    """The files at any depth of a folder that is to be stored, as POSIX paths below it."""
    if not folder.is_dir():
        raise MissingError("there is no folder to store", where=folder)
    with os.scandir(folder) as entries:  # it reports the kind of most entries without a stat of each
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from (f"{entry.name}/{name}" for name in regular_files(Path(entry.path)))
            elif entry.is_file(follow_symlinks=False):
                yield entry.name
            else:
                raise DataError(
                    "an artifact holds plain files and folders only",
                    where=entry.path,
                    expected="no links, no special files",
                    remedy="write the file itself into the output folder",
                )


def _is_recent(modified: float) -> bool:
    return -AHEAD < time.time() - modified < YOUNG


def _hashed(path: str, folder: Path) -> StoredFile:
    source = folder / path
    return StoredFile(path, source.stat().st_size, sha256_of(source))


def _damaged(what: str, artifact: Artifact, where: str) -> IntegrityError:
    maker = artifact.made_by.split("/")[1] if artifact.made_by.count("/") == 2 else "the step that makes it"
    return IntegrityError(
        f"stored bytes are not what was recorded: {what} of {artifact.name}",
        where=where,
        expected="the recorded SHA-256",
        remedy=f"run {maker} again with --force",
    )
