"""Raw data as artifacts: the images of whatever source a URL names, and their annotations as one COCO file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.data.annotation_checks import absent_images, check_described, check_not_empty
from pipeline.data.coco import write_coco
from pipeline.data.converted_images import as_on_disk
from pipeline.data.error_context import told_of
from pipeline.data.exclusions import exclude, write_exclusions
from pipeline.data.formats.class_names import lay_over, only_describe
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.reading import read_annotations
from pipeline.data.image_names import image_names
from pipeline.data.sample.dataset import make_sample, parse_sample_url, sample_dataset
from pipeline.data.side_files import write_class_map, write_test_list
from pipeline.data.sources.database import is_database, load_database
from pipeline.data.sources.file_source import load_files
from pipeline.data.sources.http_api import is_api, load_api
from pipeline.data.sources.loaded_source import Raw
from pipeline.data.sources.video import extract_frames, is_video, load_video
from pipeline.data.sources.video_sampling import Sampling
from pipeline.data.unannotated import check_treatment, settle_unannotated
from pipeline.errors import DataError, UsageError

logger = logging.getLogger(__name__)

ANNOTATIONS = "annotations.json"
NOT_ANNOTATED = "nobody annotated them"
NOT_USABLE = "nothing drawn on them can be used as a box"
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class LoadedAnnotations:
    """The data set in figures, and what was found of its images on disk."""

    images: int
    annotations: int
    classes: tuple[str, ...]
    missing_images: int  # named but absent, and dropped with their annotations
    unannotated_images: int  # images that nobody annotated: excluded, or taken as background
    unusable_images: int  # images excluded because nothing drawn on them can be used as a box
    test_images: int  # names reserved for the test set
    url: str
    sha256: str  # of the one file the URL names; empty for anything else
    notes: tuple[str, ...] = ()  # what was excluded, and what was taken as background, a sentence each


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
    unannotated: str = "exclude",
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
        unannotated: As for `load_annotations`; to exclude them saves fetching a labelling tool's open tasks.

    Raises:
        UsageError: The URL is of an unknown kind, an option is given that its kind does not have, or a folder is not
            empty.
        MissingError: There is nothing at the URL.
        DataError: What is there is broken, unsafe, another file than `sha256` says, or has no image in it.
    """
    check_treatment(unannotated)
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
    if is_api(url):
        with_unannotated = unannotated == "background"
        raw = load_api(url, images, markup, cache=cache, settings=api, with_unannotated=with_unannotated)
    else:
        raw = _taken(url, images, markup, cache, sha256, query, sampling or Sampling())
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
    unannotated: str = "exclude",
    test_list_url: str = "",
    class_map_url: str = "",
) -> LoadedAnnotations:
    """Write `annotations.json`, every image of which is there, and the lists that go with it.

    An image that the annotations name without a box is background; one that nobody annotated is not, unless
    `unannotated` says so. One on which something is drawn that cannot be used as a box, and nothing else, is excluded
    in any case. What is excluded is kept in `exclusions.json` for `read_exclusions`.

    Where the files at `url` only say what classes are called (`data.yaml`, `classes.txt`, Open Images' descriptions),
    they go with the annotations that lay with the images, in place of what these say of it themselves.

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
        unannotated: What to do about images that nobody annotated (see `formats.unannotated`): `exclude` them, or
            take them as `background`.
        test_list_url: A text file with the file names, one a line, that are to be the test set; empty for none.
        class_map_url: A file that says what classes are to become, as `class_map.read_class_map` reads it; empty for
            none.

    Raises:
        UsageError: An argument has no such value.
        MissingError: There is nothing at a URL, or no such member.
        DataError: The annotations are broken, in no known format or without boxes, images they or the test list name
            are absent, or the class map names a class that they do not have.
    """
    if missing_images not in {"refuse", "drop"}:
        raise UsageError(f"missing_images cannot be '{missing_images}'", expected="refuse or drop")
    check_treatment(unannotated)
    if sha256 and not url:
        raise UsageError("A SHA-256 was given without a URL", where=sha256, remedy="give the annotations' URL too")
    folder.mkdir(parents=True, exist_ok=True)
    files = image_names(images)
    index = ImageIndex(images, files, raw.renamed)
    with tempfile.TemporaryDirectory(dir=folder.parent) as draft:
        given = _given(url, Path(draft), cache, sha256) if url else raw
        place, described = _together(Path(draft), markup, given.url, raw.url) if url else (markup, ())
        source = raw.url if described else given.url
        with told_of(source, place, dict.fromkeys(described, given.url)):
            kind, found = read_annotations(place, index, format=format, member=member)
    if described:
        check_described(kind, given.url)
    dataset = as_on_disk(found, raw, images)
    known = {image.file_name for image in dataset.images}
    absent = sorted(known - files)
    if absent and (missing_images == "refuse" or len(absent) == len(known)):
        raise absent_images(absent, len(known), source, raw)
    kept = dataset.subset(image for image in dataset.images if image.file_name in files)
    check_not_empty(kept, kind, source)
    settled = settle_unannotated(kept, files, index, raw, unannotated=unannotated)
    kept = settled.dataset
    known = {image.file_name for image in kept.images} | set(absent)
    open_images = len(settled.unannotated) + raw.unannotated
    background = open_images if unannotated == "background" else 0
    of = len(files) + len(absent) + raw.unannotated
    counts = {NOT_ANNOTATED: open_images - background, NOT_USABLE: len(settled.unusable)}
    excluded = exclude({**counts, "their files are absent": len(absent)}, of)
    write_exclusions(folder, excluded)
    write_coco(kept, folder / ANNOTATIONS)

    def on_disk(name: str) -> str:
        found = index.resolve(name) or name
        return raw.renamed.get(found, found)

    left_out = dict.fromkeys(settled.unannotated - known, NOT_ANNOTATED) | dict.fromkeys(settled.unusable, NOT_USABLE)
    reserved = write_test_list(test_list_url, folder, cache, known, files, on_disk, left_out) if test_list_url else 0
    if class_map_url:
        write_class_map(class_map_url, folder, cache, kept.classes)
    notes = [str(each) for each in excluded]
    if background:
        notes.append(f"{background} of {of} images are taken as background: {NOT_ANNOTATED}")
    figures = len(kept.images), len(kept.annotations), kept.classes, len(absent)
    in_question = open_images, len(settled.unusable)
    return LoadedAnnotations(*figures, *in_question, reserved, given.url, given.sha256, tuple(notes))


def _taken(
    url: str,
    images: Path,
    markup: Path,
    cache: Path,
    sha256: str,
    query: str,
    sampling: Sampling,
) -> Raw:
    """What the one source gives that the URL's kind stands for."""
    if url.startswith("sample:"):
        return _sample(url, images, markup)
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


def _together(draft: Path, own: Path, shown: str, own_shown: str) -> tuple[Path, tuple[str, ...]]:
    """The annotations to read: those given, or, where these only describe, the source's own with them on top."""
    given = draft / "markup"
    with told_of(shown, given):
        if not only_describe(given):
            return given, ()
    with told_of(own_shown, own):
        return draft / "together", lay_over(own, given, draft / "together")
