"""Annotations from outside: read from a file, an archive or the sample, under the names the images have here."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from pipeline.data.coco import CocoDataset, read_coco
from pipeline.data.sample import parse_sample_url, sample_dataset
from pipeline.data.sources.archives import extract
from pipeline.data.sources.download import Download, download
from pipeline.errors import DataError, UsageError

logger = logging.getLogger(__name__)

_ZIP_START = b"PK\x03\x04"


def read_annotations(url: str, cache: Path, member: str, sha256: str) -> tuple[CocoDataset, Download]:
    """Read the annotations a URL leads to, and say what was at the URL."""
    if url.startswith("sample:"):
        refuse_digest(url, sha256)
        return sample_dataset(parse_sample_url(url)), Download(Path(), url, "", 0)
    found = download(url, cache, sha256=sha256)
    if found.path.is_dir():
        raise UsageError(
            "The annotations are a folder", where=found.url, expected="a COCO JSON file, or a zip with one"
        )
    with found.path.open("rb") as file:
        zipped = file.read(4) == _ZIP_START
    if not zipped and found.path.suffix.lower() != ".zip":
        return read_coco(found.path), found
    with tempfile.TemporaryDirectory() as draft:
        extracted = Path(draft) / PurePosixPath(member).name
        extract(found.path, member, extracted)
        return read_coco(extracted), found


def with_names_as_on_disk(dataset: CocoDataset, files: set[str]) -> CocoDataset:
    """Take folders all file names begin with away, as many as keep the files from being found."""
    names = [PurePosixPath(image.file_name).parts for image in dataset.images]
    common = 0  # folders that all names begin with
    while names and all(len(name) > common + 1 and name[:common] == names[0][:common] for name in names):
        if len({name[common] for name in names}) > 1:
            break
        common += 1
    for depth in range(common + 1):
        shorter = ["/".join(name[depth:]) for name in names]
        if not files.isdisjoint(shorter):
            if depth:
                logger.info("the annotations' file names begin with %s/: left out", "/".join(names[0][:depth]))
            images = (replace(image, file_name=name) for image, name in zip(dataset.images, shorter, strict=True))
            return replace(dataset, images=tuple(images))
    return dataset


def read_reserved(url: str, cache: Path, known: set[str], files: set[str]) -> list[str]:
    """The file names of a test list, checked; those of dropped images are left out."""
    found = download(url, cache)
    try:
        lines = found.path.read_text(encoding="utf-8").splitlines()
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise DataError("The test list is not a text file", where=found.url, expected="a file name a line") from error
    names = sorted({line.strip() for line in lines} - {""})
    unknown = [name for name in names if name not in known]
    if unknown:
        near = get_close_matches(unknown[0], known, 1)
        raise DataError(
            f"The test list names {len(unknown)} images that the annotations do not: {first_of(unknown)}",
            where=found.url,
            expected="file names as in the annotations, one a line" + (f", such as {near[0]}" if near else ""),
        )
    if not names:
        raise DataError("The test list is empty", where=found.url, remedy="leave the list's URL empty to have none")
    return [name for name in names if name in files]


def first_of(names: list[str]) -> str:
    """The first few of many names, for a message."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def refuse_digest(url: str, sha256: str) -> None:
    """Refuse a SHA-256 given for the sample."""
    if sha256:
        raise UsageError("The sample is drawn here: it has no SHA-256", where=url, remedy="leave the SHA-256 out")
