"""What comes from the outside world, laid out as artifacts: images, their annotations, pretrained weights."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.data.annotation_source import (
    first_of,
    read_annotations,
    read_reserved,
    refuse_digest,
    with_names_as_on_disk,
)
from pipeline.data.coco import write_coco
from pipeline.data.sample import make_sample, parse_sample_url
from pipeline.data.sources.download import Download, download
from pipeline.data.sources.image_folder import IMAGE_SUFFIXES, copy_images, image_names, unpack_images
from pipeline.errors import DataError, UsageError

logger = logging.getLogger(__name__)

ANNOTATIONS = "annotations.json"
TEST_LIST = "test_images.txt"
_CHECKPOINT_STARTS = (b"PK\x03\x04", b"\x80")  # torch.save since 1.6: a zip; before: a pickle


@dataclass(frozen=True)
class LoadedImages:
    """How many image files lie in the folder, their bytes together, and what they came from."""

    count: int
    bytes: int
    url: str
    sha256: str  # of the archive; empty for a folder or the sample


@dataclass(frozen=True)
class LoadedAnnotations:
    """The data set in figures, and what was found of its images on disk."""

    images: int
    annotations: int
    classes: tuple[str, ...]
    missing_images: int  # named but absent, and dropped with their annotations
    unannotated_images: int  # files that the annotations do not name; they stay unused
    test_images: int  # names reserved for the test set
    url: str
    sha256: str  # of the file the URL names; empty for the sample


@dataclass(frozen=True)
class LoadedWeights:
    """A checkpoint file, or `path` None where none was asked for."""

    path: Path | None
    url: str
    sha256: str
    size: int


def load_images(url: str, folder: Path, *, cache: Path, sha256: str = "") -> LoadedImages:
    """Put image files into a folder, under the names annotations know them by.

    Folders at the top that hold nothing but one other folder, such as `val2017/` in COCO's archives, are taken away.

    Args:
        url: `sample://…`, a folder, or a zip archive at a path, `file://` or `http(s)://` URL.
        folder: Where the files go. A file of the user's is copied, never linked.
        cache: Where downloads are kept.
        sha256: What the archive's digest must be; empty to accept any.

    Raises:
        UsageError: The URL is of an unknown kind.
        MissingError: There is nothing at the URL.
        DataError: The archive is broken or unsafe, its digest is another, or there is no image in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if url.startswith("sample:"):
        refuse_digest(url, sha256)
        make_sample(folder, **asdict(parse_sample_url(url)))
        found = Download(folder, url, "", 0)
    else:
        found = download(url, cache, sha256=sha256)
        if found.path.is_dir():
            copy_images(found.path, folder)
        else:
            unpack_images(found.path, folder)
    names = image_names(folder)
    if not names:
        raise DataError("There are no images", where=found.url, expected=f"files {', '.join(sorted(IMAGE_SUFFIXES))}")
    size = sum((folder / name).stat().st_size for name in names)
    return LoadedImages(len(names), size, found.url, found.sha256)


def load_annotations(
    url: str,
    folder: Path,
    *,
    images_folder: Path,
    cache: Path,
    member: str = "annotations/instances_val2017.json",
    sha256: str = "",
    missing_images: str = "refuse",
    test_list_url: str = "",
) -> LoadedAnnotations:
    """Write `annotations.json`, every image of which is there, and the optional list of reserved test images.

    Args:
        url: `sample://…`, a COCO instances file, or a zip archive that has one.
        folder: Where the files go.
        images_folder: Where `load_images` put the images.
        cache: Where downloads are kept.
        member: Which file of an archive holds the annotations.
        sha256: What the digest of the file at `url` must be; empty to accept any.
        missing_images: What to do about images named but absent: `refuse`, or `drop` them with their annotations.
        test_list_url: A text file with the file names, one a line, that are to be the test set; empty for none.

    Raises:
        UsageError: An argument has no such value.
        MissingError: There is nothing at a URL, or no such member in the archive.
        DataError: The annotations are broken, or images they or the test list name are absent.
    """
    if missing_images not in {"refuse", "drop"}:
        raise UsageError(f"missing_images cannot be '{missing_images}'", expected="refuse or drop")
    folder.mkdir(parents=True, exist_ok=True)
    dataset, found = read_annotations(url, cache, member, sha256)
    files = image_names(images_folder)
    dataset = with_names_as_on_disk(dataset, files)
    known = {image.file_name for image in dataset.images}
    absent = sorted(known - files)
    if absent and (missing_images == "refuse" or len(absent) == len(known)):
        raise _absent(absent, len(known), found.url)
    kept = dataset.subset(image for image in dataset.images if image.file_name in files)
    write_coco(kept, folder / ANNOTATIONS)
    reserved = read_reserved(test_list_url, cache, known, files) if test_list_url else []
    if reserved:
        (folder / TEST_LIST).write_text("".join(f"{name}\n" for name in reserved), encoding="utf-8")
    unused = len(files - known)
    return LoadedAnnotations(
        len(kept.images),
        len(kept.annotations),
        kept.classes,
        len(absent),
        unused,
        len(reserved),
        found.url,
        found.sha256,
    )


def read_test_list(folder: Path) -> tuple[str, ...]:
    """The image names that `load_annotations` found reserved for the test set; empty where there are none."""
    path = folder / TEST_LIST
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()


def load_weights(url: str, folder: Path, *, cache: Path, sha256: str = "") -> LoadedWeights:
    """Write `source.json`, and `weights.pth` where a URL is given.

    Args:
        url: A PyTorch checkpoint at a path, `file://` or `http(s)://` URL; empty to start without.
        folder: Where the files go.
        cache: Where downloads are kept.
        sha256: What the checkpoint's digest must be; empty to accept any.

    Raises:
        UsageError: A digest is given without a URL.
        MissingError: There is nothing at the URL.
        DataError: What is there is no checkpoint, or not the one with that digest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = LoadedWeights(None, "", "", 0)
    if url:
        found = download(url, cache, sha256=sha256)
        _check_checkpoint(found)
        path = Path(shutil.copyfile(found.path, folder / "weights.pth"))
        weights = LoadedWeights(path, found.url, found.sha256, found.size)
    elif sha256:
        raise UsageError("A SHA-256 was given without a URL", where=sha256, remedy="give the weights' URL too")
    source = {"url": weights.url, "sha256": weights.sha256, "size": weights.size}
    (folder / "source.json").write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
    return weights


def _absent(absent: list[str], known: int, shown: str) -> DataError:
    return DataError(
        f"{len(absent)} of the {known} images that the annotations name are absent: {first_of(absent)}",
        where=shown,
        expected="every one of them among the images",
        remedy="check that images and annotations belong together, or set missing_images to drop",
    )


def _check_checkpoint(found: Download) -> None:
    start = b""
    if found.path.is_file():
        with found.path.open("rb") as file:
            start = file.read(4)
    if not start.startswith(_CHECKPOINT_STARTS):
        raise DataError("The weights are not a PyTorch checkpoint", where=found.url, expected="a file torch.save wrote")
