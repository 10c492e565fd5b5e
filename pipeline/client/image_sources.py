"""What a person names as images: files, folders, patterns, archives and videos, as one stream of named images.

The names are found and checked before anything starts; contents are read one after the other as they are needed. An
image's name is its path below the folder that holds everything named, so it is unique and says where it lies. A member
of an archive lies below the archive's name, and a frame below the video's.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.data.archives.unpacking import archive_kind, looks_like_archive, unpack
from pipeline.data.image_conversion import UnreadableError, convert, detect_format
from pipeline.data.image_names import safe_name
from pipeline.data.images import file_names, is_image_name
from pipeline.data.sources.folder_listing import CLIP_SUFFIXES
from pipeline.data.sources.video import Sampling, extract_frames
from pipeline.errors import DataError, PipelineError, UsageError, did_you_mean

Kind = Literal["image", "clip", "archive"]

EVERY_FRAME = Sampling(per_second=0)
_SUFFIX_BY_FORMAT = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}


@dataclass(frozen=True)
class FoundFile:
    """A file that holds images."""

    path: Path
    name: str  # below the folder that holds everything named
    kind: Kind


@dataclass(frozen=True)
class FoundFiles:
    """The files that were named, each once, in order, and how many in the folders hold no image."""

    files: tuple[FoundFile, ...]
    others: int = 0

    @property
    def images(self) -> int | None:
        """The number of images, or None where only reading tells it."""
        return None if any(file.kind != "image" for file in self.files) else len(self.files)


@dataclass(frozen=True)
class NamedImage:
    """An image, or why there is none of that name."""

    name: str
    content: Path | bytes = b""
    clip: str = ""  # the name of the video whose frame it is
    seconds: float = 0.0  # since the video's first frame
    problem: str = ""

    def read(self, most_bytes: int) -> bytes:
        """The file as the service takes it: formats that it does not know are converted, as where images are imported.

        Raises:
            DataError: There is no image, it cannot be read, or has more than `most_bytes`.
        """
        if self.problem:
            raise DataError(self.problem)
        if isinstance(self.content, bytes):
            return self.content
        try:
            if not self.content.is_file():
                raise DataError("it is missing, or no plain file")
            found = detect_format(self.content, named_as_image=is_image_name(self.name))
            if found.problem:
                raise DataError(found.problem)
            if found.name and found.name not in _SUFFIX_BY_FORMAT:
                return convert(self.content).data
            if (size := self.content.stat().st_size) > most_bytes:
                raise DataError(f"its {size / 2**20:.0f} MiB are more than the service takes, {most_bytes >> 20}")
            data = self.content.read_bytes()
        except UnreadableError as error:
            raise DataError(str(error)) from error
        except OSError as error:
            raise DataError(f"it cannot be read: {error.strerror}") from error
        if not data:
            raise DataError("the file is empty")
        return data


def find_files(sources: Sequence[str]) -> FoundFiles:
    """Find the files that sources name: files, folders with all below them, and patterns such as `photos/*.jpg`.

    Raises:
        UsageError: A source names nothing, or nothing that can hold an image.
    """
    found: dict[Path, Kind] = {}
    roots: list[Path] = []
    others = 0
    for source in sources:
        paths, root = _paths_of(source)
        roots.append(root)
        before = len(found)
        for path in paths:
            kind = _kind(path, is_named=path == _absolute(source))
            others += kind is None
            if kind:
                found.setdefault(path, kind)
        if len(found) == before and not any(path in found for path in paths):
            raise UsageError("there is no image in it", where=source, expected="images, archives or videos")
    top = os.path.commonpath(roots)
    files = [FoundFile(path, safe_name(path.relative_to(top).as_posix()), kind) for path, kind in found.items()]
    return FoundFiles(tuple(files), others)


def read_images(files: Iterable[FoundFile], scratch: Path) -> Generator[NamedImage, None, None]:
    """Each image of the files, in order. Archives are unpacked below `scratch`, where their images stay.

    A broken archive or video is an image with a problem, after the frames that could be read.
    """
    for number, file in enumerate(files):
        if file.kind == "archive":
            yield from _members(file, scratch / str(number))
        else:
            yield from _images(file)


def _images(file: FoundFile) -> Iterator[NamedImage]:
    if file.kind == "image":
        yield NamedImage(file.name, file.path)
        return
    try:
        for frame, data, fields in extract_frames(file.path, file.name, EVERY_FRAME):
            yield NamedImage(frame, data, file.name, fields["time"])
    except PipelineError as error:
        yield NamedImage(file.name, problem=error.problem)


def _members(archive: FoundFile, folder: Path) -> Iterator[NamedImage]:
    try:
        unpack(archive.path, folder)
    except PipelineError as error:
        yield NamedImage(archive.name, problem=error.problem)
        return
    count = 0
    for name in file_names(folder):
        if kind := _kind(folder / name, is_named=False):
            member = FoundFile(folder / name, safe_name(f"{archive.name}/{name}"), kind)
            count += 1
            if kind == "archive":
                yield NamedImage(member.name, problem="it is an archive within an archive: unpack it first")
            else:
                yield from _images(member)
    if not count:
        yield NamedImage(archive.name, problem="there is no image in the archive")


def _paths_of(source: str) -> tuple[list[Path], Path]:
    """The files that a source names, and the folder below which their names are."""
    path = _absolute(source)  # not resolved: a link has a name of its own
    if path.is_dir():
        return [path / name for name in file_names(path)], path
    if path.exists():
        return [path], path.parent
    if not glob.has_magic(source):
        raise UsageError(
            "there is no such file or folder",
            where=source,
            expected="images, folders, archives, videos, or a pattern in quotes such as 'photos/*.jpg'",
            remedy=_nearest(path),
        )
    root = Path.cwd()
    for part in Path(source).parts:
        if glob.has_magic(part):
            break
        root = _absolute(root / part)
    matches = [_absolute(match) for match in sorted(glob.glob(source, recursive=True))]  # noqa: PTH207 - of any root
    files = list(dict.fromkeys(file for match in matches for file in _files_of(match)))
    if not files:
        raise UsageError("the pattern matches no file", where=source, remedy=f"see what there is: ls {root}")
    return files, root


def _absolute(path: str | Path) -> Path:
    return Path(os.path.normpath(Path.cwd() / path))


def _files_of(path: Path) -> list[Path]:
    return [path / name for name in file_names(path)] if path.is_dir() else [path]


def _nearest(path: Path) -> str:
    try:
        names = [each.name for each in path.parent.iterdir()]
    except OSError:
        return f"there is no folder {path.parent}"
    return did_you_mean(path.name, names, otherwise="check the name", cutoff=0.6)


def _kind(path: Path, *, is_named: bool) -> Kind | None:
    """What a file holds; one that was named itself is taken for an image if nothing else is known of it."""
    name = path.name
    if is_image_name(name):
        return "image"
    if path.suffix.lower() in CLIP_SUFFIXES:
        return "clip"
    try:
        if not path.is_file():
            return "image" if is_named else None  # and reading it says what is wrong
        if looks_like_archive(name) or (is_named and archive_kind(path)):
            return "archive"
        found = detect_format(path, named_as_image=False)
    except OSError:
        return "image" if is_named else None
    return "image" if found.name or found.problem or is_named else None
