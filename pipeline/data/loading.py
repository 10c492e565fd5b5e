"""Loading raw data: the images of any source, and their annotations as one COCO file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from pipeline.data.annotation_matching import (
    absent_images,
    as_on_disk,
    check_described,
    check_not_empty,
    check_treatment,
    settle_unannotated,
)
from pipeline.data.coco import write_coco
from pipeline.data.error_context import located_in
from pipeline.data.exclusions import exclude, write_exclusions
from pipeline.data.fetch.credentials import redact
from pipeline.data.formats.class_names import lay_over, only_describe
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.reading import read_annotations
from pipeline.data.images import image_names
from pipeline.data.sample.dataset import make_sample, sample_dataset
from pipeline.data.side_files import write_class_map, write_test_list
from pipeline.data.sources.cvat import load_cvat
from pipeline.data.sources.database import load_database
from pipeline.data.sources.file_source import load_files
from pipeline.data.sources.http_api import load_http_api
from pipeline.data.sources.image_sink import ANNOTATIONS
from pipeline.data.sources.label_studio import load_label_studio
from pipeline.data.sources.loaded_source import LoadedSource
from pipeline.data.sources.source import (
    CvatSource,
    DatabaseSource,
    FetchOptions,
    FileSource,
    LabelStudioSource,
    SampleSource,
    Source,
    parse_source,
)
from pipeline.data.sources.video import Sampling
from pipeline.errors import DataError, UsageError

log = logging.getLogger(__name__)

NOT_ANNOTATED = "nobody annotated them"
NOT_USABLE = "nothing drawn on them can be used as a box"
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class LoadedAnnotations:
    """The figures of a loaded data set.

    Attributes:
        images: Number of images.
        annotations: Number of boxes.
        classes: Names of the classes.
        missing_images: Annotated images that were absent, and dropped with their boxes.
        unannotated_images: Images that nobody annotated: excluded, or taken as background.
        unusable_images: Images excluded because nothing drawn on them can be used as a box.
        test_images: Images reserved for the test set.
        url: Where the annotations came from, without secrets.
        sha256: Digest of the file at the URL if it is one file; otherwise empty.
        notes: What was excluded, and what was taken as background, a sentence each.
    """

    images: int
    annotations: int
    classes: tuple[str, ...]
    missing_images: int
    unannotated_images: int
    unusable_images: int
    test_images: int
    url: str
    sha256: str
    notes: tuple[str, ...] = ()


def load_source(
    url: str,
    images: Path,
    annotations: Path,
    *,
    cache: Path,
    sha256: str = "",
    query: str = "",
    api: Mapping[str, str] = _NO_SETTINGS,
    sampling: Sampling | None = None,
    unannotated: str = "exclude",
    timeout: float = 30.0,
    backoff: float = 0.5,
) -> LoadedSource:
    """Take images, and the annotations that lie with them, from the source at a URL.

    Args:
        url: As for `parse_source`. `${NAME}` stands for an environment variable.
        images: A new folder for image files.
        annotations: A new folder for annotation files.
        cache: Where downloads are kept, so that an interrupted one continues.
        sha256: Of a single file: what its digest must be; empty to accept any.
        query: Of a database: the SELECT that gives images.
        api: Of an API: see `ApiSettings`.
        sampling: Of clips: which frames to take; None for one a second.
        unannotated: As for `load_annotations`; `exclude` saves fetching a labelling tool's open tasks.
        timeout: Seconds to wait for a connection, and for each piece of an answer.
        backoff: Seconds before the second attempt at a request.

    Raises:
        UsageError: The URL is of an unknown kind, its kind does not have an option, or a folder is not empty.
        MissingError: There is nothing at the URL.
        DataError: The source is broken, unsafe, another file than `sha256` says, or holds no image.
    """
    check_treatment(unannotated)
    for folder in (images, annotations):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            remedy = "name a new folder; in a notebook, run the cells from the interface on again"
            raise UsageError("a folder to load into is not empty", where=folder, remedy=remedy)
    source = parse_source(
        url,
        sha256=sha256,
        query=query,
        api=api,
        sampling=sampling or Sampling(),
        with_unannotated=unannotated == "background",
    )
    loaded = _load(source, images, annotations, FetchOptions(cache, timeout, backoff))
    if not loaded.images:
        problem = f"there are no images\n{loaded.skipped_by_reason}"
        raise DataError(problem, where=loaded.url, expected="images that Pillow reads")
    return loaded


def load_annotations(
    source: LoadedSource,
    folder: Path,
    *,
    images: Path,
    annotations: Path,
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
    """Write `annotations.json`, every image of which exists, and the lists that go with it.

    An image that the annotations name without a box is background; one that nobody annotated is background only if
    `unannotated` says so. An image whose only shapes cannot be used as boxes is excluded in any case. Exclusions are
    kept in `exclusions.json` for `read_exclusions`.

    If the files at `url` only name classes (`data.yaml`, `classes.txt`, Open Images' descriptions), they go with the
    annotations that lay with the images, and replace the names there.

    Args:
        source: The result of `load_source`.
        folder: Where the files go.
        images: The folder with the images.
        annotations: The folder with the annotations that lay with them.
        cache: Where downloads are kept.
        url: A file, folder or archive of annotations; empty for those that lay with the images.
        sha256: What the digest of the file at `url` must be; empty to accept any.
        format: The annotations' format, one of `formats.reading.FORMATS`; empty to detect it.
        member: Which file of several holds the annotations; empty for all.
        missing_images: What to do about annotated images that are absent: `refuse`, or `drop` them with their boxes.
        unannotated: What to do about images that nobody annotated: `exclude` them, or take them as `background`.
        test_list_url: A text file with the file names, one a line, of the test set; empty for none.
        class_map_url: A file with new names of classes, as `class_selection.read_class_map` reads it; empty for none.

    Raises:
        UsageError: An argument has a wrong value.
        MissingError: There is nothing at a URL, or no such member.
        DataError: The annotations are broken, in no known format or without boxes, images that they or the test list
            name are absent, or the class map names a class that they do not have.
    """
    if missing_images not in {"refuse", "drop"}:
        raise UsageError(f"missing_images cannot be '{missing_images}'", expected="refuse or drop")
    check_treatment(unannotated)
    if sha256 and not url:
        raise UsageError("a SHA-256 was given without a URL", where=sha256, remedy="give the annotations' URL too")
    folder.mkdir(parents=True, exist_ok=True)
    files = image_names(images)
    index = ImageIndex(images, files, source.renamed)
    with tempfile.TemporaryDirectory(dir=folder.parent) as draft:
        given = _load_separate(url, Path(draft), cache, sha256) if url else source
        place, described = _combined(Path(draft), annotations, given.url, source.url) if url else (annotations, ())
        shown = source.url if described else given.url
        with located_in(shown, place, dict.fromkeys(described, given.url)):
            kind, found = read_annotations(place, index, format=format, member=member)
    if described:
        check_described(kind, given.url)
    dataset = as_on_disk(found, source, images)
    known = {image.file_name for image in dataset.images}
    absent = sorted(known - files)
    if absent and (missing_images == "refuse" or len(absent) == len(known)):
        raise absent_images(absent, len(known), shown, source)
    kept = dataset.subset(image for image in dataset.images if image.file_name in files)
    check_not_empty(kept, kind, shown)
    settled = settle_unannotated(kept, files, index, source, unannotated=unannotated)
    kept = settled.dataset
    known = {image.file_name for image in kept.images} | set(absent)
    open_images = len(settled.unannotated) + source.unannotated
    background = open_images if unannotated == "background" else 0
    total = len(files) + len(absent) + source.unannotated
    counts = {NOT_ANNOTATED: open_images - background, NOT_USABLE: len(settled.unusable)}
    excluded = exclude({**counts, "their files are absent": len(absent)}, total)
    write_exclusions(folder, excluded)
    write_coco(kept, folder / ANNOTATIONS)

    def on_disk(name: str) -> str:
        found = index.resolve(name) or name
        return source.renamed.get(found, found)

    reasons = dict.fromkeys(settled.unannotated - known, NOT_ANNOTATED) | dict.fromkeys(settled.unusable, NOT_USABLE)
    reserved = write_test_list(test_list_url, folder, cache, known, files, on_disk, reasons) if test_list_url else 0
    if class_map_url:
        write_class_map(class_map_url, folder, cache, kept.classes)
    notes = [str(each) for each in excluded]
    if background:
        notes.append(f"{background} of {total} images are taken as background: {NOT_ANNOTATED}")
    figures = len(kept.images), len(kept.annotations), kept.classes, len(absent)
    in_question = open_images, len(settled.unusable)
    return LoadedAnnotations(*figures, *in_question, reserved, given.url, given.sha256, tuple(notes))


def _load(source: Source, images: Path, annotations: Path, options: FetchOptions) -> LoadedSource:
    if isinstance(source, SampleSource):
        make_sample(images, **asdict(source.recipe))
        write_coco(sample_dataset(source.recipe), annotations / ANNOTATIONS)
        sizes = [path.stat().st_size for path in images.rglob("*") if path.is_file()]
        return LoadedSource("sample", source.shown, images=len(sizes), bytes=sum(sizes))
    if isinstance(source, FileSource):
        return load_files(source, images, annotations, options)
    if isinstance(source, DatabaseSource):
        return load_database(source, images, annotations, options)
    if isinstance(source, LabelStudioSource):
        return load_label_studio(source, images, annotations, options)
    if isinstance(source, CvatSource):
        return load_cvat(source, images, annotations, options)
    return load_http_api(source, images, annotations, options)


def _load_separate(url: str, draft: Path, cache: Path, sha256: str) -> LoadedSource:
    """Load annotations that lie apart from the images into the draft's folder `annotations`."""
    for name in ("images", "annotations"):
        (draft / name).mkdir()
    source = parse_source(url, sha256=sha256)
    if isinstance(source, SampleSource):
        write_coco(sample_dataset(source.recipe), draft / "annotations" / ANNOTATIONS)
        return LoadedSource("sample", url)
    if not isinstance(source, FileSource):
        remedy = "give the URL of a file, folder or archive"
        raise UsageError("annotations cannot come from a database or API", where=redact(url), remedy=remedy)
    return load_files(source, draft / "images", draft / "annotations", FetchOptions(cache))


def _combined(draft: Path, own: Path, shown: str, own_shown: str) -> tuple[Path, tuple[str, ...]]:
    """The annotations to read: the given ones, or, if these only name classes, the source's own with these names."""
    given = draft / "annotations"
    with located_in(shown, given):
        if not only_describe(given):
            return given, ()
    with located_in(own_shown, own):
        return draft / "combined", lay_over(own, given, draft / "combined")
