"""Folders in and out of any fsspec URL: content-addressed, write-once, the marker last.

    <root>/objects/ab/ab34…        the bytes of one file, named by their SHA-256, kept once however many hold them
    <root>/artifacts/NAME/VERSION  the index of one artifact: path, size and SHA-256 of each of its files; written last,
                                   so its presence is what makes an artifact
    <root>/runs/…                  records, see `manifest`

VERSION is the SHA-256 of the index, and an artifact's URL is the URL of its index.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from pipeline.errors import DataError, IntegrityError, MissingError, UsageError
from pipeline.files import open_files, sha256_of

NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class StoredFile:
    """One file of an artifact: POSIX path below the artifact's folder, bytes, hex SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """A stored folder.

    Attributes:
        name: Entity name, such as `coco_train_dataset`.
        url: Of its index; ends in the digest.
        digest: Hex SHA-256 of the index, and so of every path and byte of the folder.
        size: Bytes of all files.
        files: Number of files.
        made_by: `run/step/attempt` that made it.
    """

    name: str
    url: str
    digest: str
    size: int
    files: int
    made_by: str = ""


class Store:
    """A place for artifacts and records.

    Args:
        url: A local path, or a URL such as `s3://bucket/prefix` or `memory://name`.

    Attributes:
        url: The same as a URL.
        files: Whole files by key, for records.
    """

    def __init__(self, url: str) -> None:
        self.files = open_files(url)
        self.url = self.files.url

    def put(self, name: str, folder: Path, made_by: str = "") -> Artifact:
        """Store a folder; nothing of it can be read as an artifact before all of it is safe.

        Files only: a folder without any in it is not kept. An index that is there but damaged is made anew.

        Raises:
            UsageError: The name is not one word.
            MissingError: The folder is not there.
            DataError: It holds no file, a link, a special file, or a name that is not Unicode.
            IntegrityError: A file changed meanwhile.
        """
        if not NAME.fullmatch(name):
            raise UsageError(f"'{name}' cannot name an artifact", expected="letters, digits, _ and -")
        paths = sorted(_regular_files(folder), key=lambda path: path.relative_to(folder).as_posix())
        if not paths:
            raise DataError("an empty folder cannot be stored", where=folder, expected="at least one file")
        with ThreadPoolExecutor() as pool:
            files = list(pool.map(lambda path: _described(path, folder), paths))
            distinct = {file.sha256: (file, path) for file, path in zip(files, paths, strict=True)}
            list(pool.map(lambda item: self._put_object(*item), distinct.values()))
        self.files.flush(["objects", *sorted({str(PurePosixPath(_object(file)).parent) for file in files})])
        digest = self._put_index(name, _index(files))
        url = f"{self.url}/{_marker(name, digest)}"
        return Artifact(name, url, digest, sum(file.size for file in files), len(files), made_by)

    def get(self, artifact: Artifact, folder: Path) -> Path:
        """Lay out a stored folder, every byte checked against the index before it appears.

        On a local store the files are hard links to read-only objects where the file system allows it.

        Args:
            artifact: What to get.
            folder: The folder to create; replaced when it exists.

        Raises:
            MissingError: There is no such artifact in this store.
            IntegrityError: The index or a file is not what was stored; the file is named.
        """
        files = self._read_index(artifact)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda file: self._get_object(file, partial, artifact), files))
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder

    def has(self, artifact: Artifact) -> bool:
        """Whether the artifact's marker is in this store, wherever the store was when the artifact was recorded."""
        return self.files.exists(_marker(artifact.name, artifact.digest))

    def keep(self, key: str, source: Path) -> str:
        """Copy a local file beside the records, and say where it is."""
        self.files.replace(key, source.read_bytes())
        return self.files.location(key)

    def _put_object(self, file: StoredFile, source: Path) -> None:
        """Keep a file's bytes, unless they are kept already; a cut object is made anew."""
        if self.files.size(_object(file)) != file.size:
            self.files.upload(_object(file), source, file.sha256)

    def _put_index(self, name: str, index: bytes) -> str:
        digest = hashlib.sha256(index).hexdigest()
        key = _marker(name, digest)
        if not self.files.create(key, index) and self.files.read(key) != index:
            self.files.set_aside(key)
            self.files.create(key, index)
        return digest

    def _read_index(self, artifact: Artifact) -> list[StoredFile]:
        if not self.has(artifact):
            raise MissingError(
                f"the artifact {artifact.name} {artifact.digest[:12]} is not in the store",
                where=artifact.url,
                remedy="run the step that makes it again with --force, or use the store it was made in",
            )
        content = self.files.read(_marker(artifact.name, artifact.digest))
        if hashlib.sha256(content).hexdigest() != artifact.digest:
            raise _damaged("the index", artifact, artifact.url)
        return [StoredFile(**entry) for entry in json.loads(content)["files"]]

    def _get_object(self, file: StoredFile, folder: Path, artifact: Artifact) -> None:
        key, target = _object(file), folder / _safe(file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.files.download(key, target)
        except FileNotFoundError as error:
            raise _damaged(file.path, artifact, f"{self.files.location(key)} is gone") from error
        if target.stat().st_size != file.size or sha256_of(target) != file.sha256:
            self.files.set_aside(key)  # so that the next put of the right bytes is not skipped
            raise _damaged(file.path, artifact, self.files.location(key))


def _marker(name: str, digest: str) -> str:
    return f"artifacts/{name}/{digest}"


def _object(file: StoredFile) -> str:
    return f"objects/{file.sha256[:2]}/{file.sha256}"


def _described(path: Path, folder: Path) -> StoredFile:
    return StoredFile(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path))


def _index(files: list[StoredFile]) -> bytes:
    """Canonical bytes: the same folder gives the same index anywhere."""
    entries = [asdict(file) for file in files]
    return (json.dumps({"files": entries}, indent=0, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _regular_files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise MissingError("there is no folder to store", where=folder)
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise DataError(
                "an artifact holds plain files and folders only",
                where=path,
                expected="no links, no special files",
                remedy="write the file itself into the output folder",
            )
        try:
            path.name.encode()
        except UnicodeEncodeError as error:
            raise DataError("a file's name is not Unicode", where=ascii(str(path)), remedy="rename it") from error
        if path.is_file():
            yield path


def _safe(path: str) -> PurePosixPath:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise IntegrityError("an index names a path outside its artifact", where=path)
    return parts


def _damaged(what: str, artifact: Artifact, where: str) -> IntegrityError:
    maker = artifact.made_by.split("/")[1] if artifact.made_by.count("/") == 2 else "the step that makes it"
    return IntegrityError(
        f"stored bytes are not what was recorded: {what} of {artifact.name}",
        where=where,
        expected="the recorded SHA-256",
        remedy=f"run {maker} again with --force",
    )
