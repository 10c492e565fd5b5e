"""Raw data as artifacts: the images of whatever source a URL names, and their annotations as one COCO file."""

from __future__ import annotations

import logging
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image as Picture

from pipeline.data.coco import CocoDataset, Image, write_coco
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.reading import read_markup
from pipeline.data.rules.inspection import ImageFacts
from pipeline.data.rules.pictures import exif_orientation
from pipeline.data.sample import make_sample, parse_sample_url, sample_dataset
from pipeline.data.side_lists import first_of, write_class_map, write_test_list
from pipeline.data.sources.api.loading import is_api, load_api
from pipeline.data.sources.database.loading import is_database, load_database
from pipeline.data.sources.files import load_files
from pipeline.data.sources.image_folder import image_names
from pipeline.data.sources.raw import Raw
from pipeline.data.sources.video.loading import extract_frames, is_video, load_video
from pipeline.data.sources.video.sampling import Sampling
from pipeline.errors import DataError, UsageError

logger = logging.getLogger(__name__)

ANNOTATIONS = "annotations.json"
ORIENTATION = "orientation"  # a field of converted images
_TOLD = 3  # reasons in an error
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


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
    sha256: str  # of the one file the URL names; empty for anything else


def load_source(
    url: str,
    images: Path,
    markup: Path,
    *,
    cache: Path,
    sha256: str = "",
    query: str = "",
    api: Mapping[str, str] = _NO_SETTINGS,
    sampling: Sampling | None = None,
) -> Raw:
    """Take images, and whatever annotations lie with them, from the source that a URL names.

    Args:
        url: `sample://…`; a folder, archive, image or clip at a path or any URL that fsspec knows; a database's URL as
            SQLAlchemy takes it; or an API's, `api+https://…`, `label-studio+https://…`, `cvat+https://…`. `${NAME}` in
            it stands for a variable of the environment.
        images: Where image files go, a new folder.
        markup: Where annotation files go, another.
        cache: Where downloads are kept, so that what broke off is continued.
        sha256: What the digest of a single file must be; empty to accept any.
        query: Of a database: the SELECT that gives images.
        api: Of an API: see `ApiSettings`.
        sampling: Of videos: which frames.

    Raises:
        UsageError: The URL is of an unknown kind, an option is given that its kind does not have, or a folder is not
            empty.
        MissingError: There is nothing at the URL.
        DataError: What is there is broken, unsafe, another file than `sha256` says, or has no image in it.
    """
    for folder in (images, markup):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            remedy = "name a new folder; in a notebook, run the cells from the interface on again"
            raise UsageError("A folder to load into is not empty", where=folder, remedy=remedy)
    if query and not is_database(url):
        raise UsageError("A query was given, and the source is no database", remedy="leave the query empty")
    if api and not is_api(url):
        raise UsageError("Settings of an API were given, and the source is none", remedy="begin its URL with api+https")
    if sha256 and (url.startswith("sample:") or is_database(url) or is_api(url)):
        raise UsageError("A SHA-256 was given, and the source is not a file", remedy="leave the SHA-256 out")
    raw = _taken(url, images, markup, cache, sha256, query, api, sampling or Sampling())
    if not raw.images:
        raise DataError(f"There are no images\n{raw.left_behind}", where=raw.url, expected="images that Pillow reads")
    return raw


def load_annotations(
    raw: Raw,
    folder: Path,
    *,
    images: Path,
    markup: Path,
    cache: Path,
    url: str = "",
    sha256: str = "",
    format: str = "",  # noqa: A002 - the word for it
    member: str = "",
    missing_images: str = "refuse",
    test_list_url: str = "",
    class_map_url: str = "",
) -> LoadedAnnotations:
    """Write `annotations.json`, every image of which is there, and the optional lists that go with it.

    Args:
        raw: What `load_source` said.
        folder: Where the files go.
        images: Where `load_source` put the images.
        markup: Where it put the annotations that lay with them.
        cache: Where downloads are kept.
        url: A file, folder or archive of annotations; empty for those that lay with the images.
        sha256: What the digest of the file at `url` must be; empty to accept any.
        format: The annotations' format, one of `formats.reading.FORMATS`; empty to find out.
        member: Which file of several holds the annotations; empty for all.
        missing_images: What to do about images named but absent: `refuse`, or `drop` them with their annotations.
        test_list_url: A text file with the file names, one a line, that are to be the test set; empty for none.
        class_map_url: A file that says what classes are to become, as `class_map.read_class_map` reads it; empty for
            none.

    Raises:
        UsageError: An argument has no such value.
        MissingError: There is nothing at a URL, or no such member.
        DataError: The annotations are broken or in no known format, or images they or the test list name are absent.
    """
    if missing_images not in {"refuse", "drop"}:
        raise UsageError(f"missing_images cannot be '{missing_images}'", expected="refuse or drop")
    if sha256 and not url:
        raise UsageError("A SHA-256 was given without a URL", where=sha256, remedy="give the annotations' URL too")
    folder.mkdir(parents=True, exist_ok=True)
    files = image_names(images)
    with tempfile.TemporaryDirectory(dir=folder.parent) as draft:
        given = _given(url, Path(draft), cache, sha256) if url else raw
        place = Path(draft) / "markup" if url else markup
        found = read_markup(place, ImageIndex(images, files, raw.renamed), format=format, member=member)
    dataset = _as_on_disk(found, raw, images)
    known = {image.file_name for image in dataset.images}
    absent = sorted(known - files)
    if absent and (missing_images == "refuse" or len(absent) == len(known)):
        raise _absent(absent, len(known), given.url, raw)
    kept = dataset.subset(image for image in dataset.images if image.file_name in files)
    write_coco(kept, folder / ANNOTATIONS)
    reserved = write_test_list(test_list_url, folder, cache, known, files) if test_list_url else 0
    if class_map_url:
        write_class_map(class_map_url, folder, cache)
    figures = len(kept.images), len(kept.annotations), kept.classes
    return LoadedAnnotations(*figures, len(absent), len(files - known), reserved, given.url, given.sha256)


def _taken(
    url: str,
    images: Path,
    markup: Path,
    cache: Path,
    sha256: str,
    query: str,
    api: Mapping[str, str],
    sampling: Sampling,
) -> Raw:
    """What the one source gives that the URL's kind stands for."""
    if url.startswith("sample:"):
        return _sample(url, images, markup)
    if is_api(url):
        return load_api(url, images, markup, cache=cache, settings=api)
    if is_database(url):
        return load_database(url, images, markup, query=query, cache=cache)
    if is_video(url):
        return load_video(url, images, markup, cache=cache, sha256=sha256, sampling=sampling)

    def frames(clip: Path, folder: Path, name: str) -> Mapping[str, Mapping[str, Any]]:
        return extract_frames(clip, folder, name=name, sampling=sampling).fields

    return load_files(url, images, markup, cache=cache, sha256=sha256, frames=frames)


def _sample(url: str, images: Path, markup: Path) -> Raw:
    recipe = parse_sample_url(url)
    make_sample(images, **asdict(recipe))
    write_coco(sample_dataset(recipe), markup / ANNOTATIONS)
    sizes = [path.stat().st_size for path in images.rglob("*") if path.is_file()]
    return Raw("sample", url, images=len(sizes), bytes=sum(sizes))


def _given(url: str, draft: Path, cache: Path, sha256: str) -> Raw:
    """Annotations that are not where the images are, put into the draft's folder `markup`."""
    for name in ("images", "markup"):
        (draft / name).mkdir()
    if url.startswith("sample:"):
        if sha256:
            raise UsageError("The sample is drawn here: it has no SHA-256", where=url, remedy="leave the SHA-256 out")
        write_coco(sample_dataset(parse_sample_url(url)), draft / "markup" / ANNOTATIONS)
        return Raw("sample", url)
    return load_files(url, draft / "images", draft / "markup", cache=cache, sha256=sha256)


def _as_on_disk(dataset: CocoDataset, raw: Raw, folder: Path) -> CocoDataset:
    """File names as they are in the folder, with what the source says of each image.

    A picture that was converted has been turned upright on the way; boxes drawn on it as it was stored turn with it.
    """
    dataset = replace(dataset, images=tuple(_image_on_disk(image, raw) for image in dataset.images))
    turned = {name: said[ORIENTATION] for name, said in raw.fields.items() if ORIENTATION in said}
    if not turned:
        return dataset
    facts: dict[str, ImageFacts] = defaultdict(ImageFacts)
    for name, orientation in turned.items():
        with Picture.open(folder / name) as picture:
            facts[name] = ImageFacts(*picture.size, orientation)
    return exif_orientation(dataset, facts, "repair")[0]


def _image_on_disk(image: Image, raw: Raw) -> Image:
    name = raw.renamed.get(image.file_name, image.file_name)
    said = {key: value for key, value in raw.fields.get(name, {}).items() if key != ORIENTATION}
    return replace(image, file_name=name, extra={**image.extra, **said})


def _absent(absent: list[str], known: int, shown: str, raw: Raw) -> DataError:
    reasons = {each.item: each.reason for each in raw.skipped}
    left = [f"{name} was left out: {reason}" for name, reason in _reasons(absent, reasons)]
    return DataError(
        "\n".join(
            [f"{len(absent)} of the {known} images that the annotations name are absent: {first_of(absent)}", *left]
        ),
        where=shown,
        expected="every one of them among the images",
        remedy="check that images and annotations belong together, or set missing_images to drop",
    )


def _reasons(absent: list[str], reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """Of the first absent images those that the source had, and why they were not taken."""
    found: list[tuple[str, str]] = []
    for name in absent:
        item = next((item for item in reasons if item == name or item.endswith(f"/{name}")), "")
        if item and len(found) < _TOLD:
            found.append((name, reasons[item]))
    return found
