"""Folders in and out of any fsspec URL: content-addressed, write-once, the marker last.

    <root>/objects/ab/ab34…        the bytes of one file, named by their SHA-256, kept once however many artifacts hold them
    <root>/artifacts/NAME/VERSION  the index of one artifact: path, size and SHA-256 of each of its files; written last,
                                   so its presence is what makes an artifact
    <root>/runs/…                  records, see `manifest`

VERSION is the SHA-256 of the index, and an artifact's URL is the URL of its index.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import DataError, IntegrityError, MissingError

CHUNK = 1 << 20


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
    """A place for artifacts and records at a local path or an fsspec URL.

    Args:
        url: A local path, or a URL such as `s3://bucket/prefix` or `memory://name`.
    """

    def __init__(self, url: str) -> None:
        self._local = "://" not in url or url.startswith("file://")
        if self._local:
            self.url = Path(url.removeprefix("file://")).resolve().as_uri()
            self._root = str(Path(url.removeprefix("file://")).resolve())
            self._fs: Any = None
        else:
            import fsspec  # imported late: a local store, the usual one, does without

            self.url = url.rstrip("/")
            self._fs, self._root = fsspec.core.url_to_fs(self.url)

    # --- artifacts ---------------------------------------------------------------------------------------------------

    def put(self, name: str, folder: Path, made_by: str = "") -> Artifact:
        """Store a folder; nothing of it can be read as an artifact before all of it is safe.

        Raises:
            MissingError: The folder is not there.
            DataError: It is empty, or holds a link or a special file.
        """
        paths = sorted(_regular_files(folder), key=lambda path: path.relative_to(folder).as_posix())
        if not paths:
            raise DataError("an empty folder cannot be stored", where=folder, expected="at least one file")
        with ThreadPoolExecutor() as pool:
            hashes = list(pool.map(_sha256, paths))
            files = [
                StoredFile(path.relative_to(folder).as_posix(), path.stat().st_size, digest)
                for path, digest in zip(paths, hashes, strict=True)
            ]
            new = {digest: path for path, digest in zip(paths, hashes, strict=True)}
            list(pool.map(lambda item: self._put_object(*item), new.items()))
        index = _index(files)
        digest = hashlib.sha256(index).hexdigest()
        self.write_once(f"artifacts/{name}/{digest}", index)
        return Artifact(
            name, f"{self.url}/artifacts/{name}/{digest}", digest, sum(f.size for f in files), len(files), made_by
        )

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
        partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda file: self._get_object(file, partial, artifact), files))
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder

    def has(self, artifact: Artifact) -> bool:
        """Whether the artifact's marker is there."""
        return artifact.url.startswith(f"{self.url}/") and self.exists(artifact.url.removeprefix(f"{self.url}/"))

    def _read_index(self, artifact: Artifact) -> list[StoredFile]:
        if not self.has(artifact):
            raise MissingError(
                f"the artifact {artifact.name} {artifact.digest[:12]} is not in the store",
                where=artifact.url,
                remedy="run the step that makes it again with --force, or use the store it was made in",
            )
        content = self.read(artifact.url.removeprefix(f"{self.url}/"))
        if hashlib.sha256(content).hexdigest() != artifact.digest:
            raise _damaged("the index", artifact.name, artifact.url)
        return [StoredFile(**entry) for entry in json.loads(content)["files"]]

    def _put_object(self, digest: str, source: Path) -> None:
        key = f"objects/{digest[:2]}/{digest}"
        if self.exists(key):
            return
        if not self._local:
            self._fs.put_file(str(source), f"{self._root}/{key}")
            return
        target = Path(self._root, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{secrets.token_hex(8)}")
        try:
            if _copy(source, partial) != digest:
                raise IntegrityError("the file changed while it was being stored", where=source)
            partial.chmod(0o444)
            partial.replace(target)  # same name, same bytes: whoever comes second changes nothing
        finally:
            partial.unlink(missing_ok=True)

    def _get_object(self, file: StoredFile, folder: Path, artifact: Artifact) -> None:
        target = folder / _safe(file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        key = f"objects/{file.sha256[:2]}/{file.sha256}"
        try:
            if self._local:
                _link_or_copy(Path(self._root, key), target)
            else:
                self._fs.get_file(f"{self._root}/{key}", str(target))
        except FileNotFoundError as error:
            raise _damaged(file.path, artifact.name, f"{self.url}/{key} is gone") from error
        if target.stat().st_size != file.size or _sha256(target) != file.sha256:
            self._set_aside(key)
            raise _damaged(file.path, artifact.name, f"{self.url}/{key}")

    def _set_aside(self, key: str) -> None:
        """Take a damaged object's name away, so that the next `put` of the right bytes is not skipped."""
        if self._local:
            Path(self._root, key).replace(Path(self._root, f"{key}.damaged"))
        else:
            self._fs.mv(f"{self._root}/{key}", f"{self._root}/{key}.damaged")

    # --- small files, each written once ------------------------------------------------------------------------------

    def write_once(self, key: str, content: bytes) -> bool:
        """Create a small file whole, or leave the one that is there; True when this call made it."""
        if not self._local:
            try:
                self._fs.pipe_file(f"{self._root}/{key}", content, mode="create")
            except FileExistsError:
                return False
            return True
        return self._place(key, content, exclusive=True)

    def replace(self, key: str, content: bytes) -> None:
        """Write a small file whole, over the one that is there; only for what is rendered from records."""
        if self._local:
            self._place(key, content, exclusive=False)
        else:
            self._fs.pipe_file(f"{self._root}/{key}", content)

    def read(self, key: str) -> bytes:
        """A small file's bytes; FileNotFoundError where there is none."""
        if self._local:
            return Path(self._root, key).read_bytes()
        content: bytes = self._fs.cat_file(f"{self._root}/{key}")
        return content

    def exists(self, key: str) -> bool:
        """Whether a file is there."""
        return Path(self._root, key).is_file() if self._local else bool(self._fs.isfile(f"{self._root}/{key}"))

    def list(self, key: str) -> list[str]:
        """Names directly below a folder, sorted; empty where there is no folder."""
        try:
            if self._local:
                return sorted(entry.name for entry in Path(self._root, key).iterdir() if entry.name[0] != ".")
            found = self._fs.ls(f"{self._root}/{key}", detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(PurePosixPath(name).name for name in found)

    def keep(self, key: str, source: Path) -> str:
        """Copy a local file beside the records, and return where it is: a local path where the store is local."""
        if self._local:
            self._place(key, source.read_bytes(), exclusive=False)
            return str(Path(self._root, key))
        self._fs.put_file(str(source), f"{self._root}/{key}")
        return f"{self.url}/{key}"

    def _place(self, key: str, content: bytes, *, exclusive: bool) -> bool:
        """Write, flush, then give the name: a reader sees all of the file or none of it."""
        target = Path(self._root, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{secrets.token_hex(8)}")
        try:
            with partial.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            if not exclusive:
                partial.replace(target)
                return True
            try:
                os.link(partial, target)
            except FileExistsError:
                return False
            return True
        finally:
            partial.unlink(missing_ok=True)


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
        if path.is_file():
            yield path


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy(source: Path, target: Path) -> str:
    """Copy and flush a file; the digest is of what was written."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _safe(path: str) -> PurePosixPath:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise IntegrityError("an index names a path outside its artifact", where=path)
    return parts


def _damaged(what: str, name: str, where: str) -> IntegrityError:
    return IntegrityError(
        f"stored bytes are not what was recorded: {what} of {name}",
        where=where,
        expected="the recorded SHA-256",
        remedy="run the step that makes it again with --force",
    )
