"""Loading raw data: the images of any source, and their annotations as one COCO file."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.data.annotation_matching import (
    ABSENT,
    DERIVED,
    NOT_ANNOTATED,
    NOT_USABLE,
    match_images,
    write_test_list,
)
from pipeline.data.checks.findings import Finding, write_loaded_findings
from pipeline.data.coco import CocoDataset, write_coco
from pipeline.data.dataset_origin import with_source
from pipeline.data.fetch.credentials import redact
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.reading import DESCRIBED, ReadAnnotations, lay_over, only_describe, read_annotations
from pipeline.data.images import file_names, is_image_name
from pipeline.data.sample import make_sample
from pipeline.data.sources.cvat import load_cvat
from pipeline.data.sources.database import load_database
from pipeline.data.sources.file_source import load_files
from pipeline.data.sources.http_api import load_http_api
from pipeline.data.sources.image_sink import ANNOTATIONS
from pipeline.data.sources.label_studio import load_label_studio
from pipeline.data.sources.loaded_source import LoadedSource
from pipeline.data.sources.named_file import with_its_folder
from pipeline.data.sources.source import (
    ApiSource,
    DatabaseSource,
    FetchOptions,
    FileSource,
    SampleSource,
    Source,
    parse_source,
)
from pipeline.data.sources.video import Sampling
from pipeline.data.tables import account, exclude, reasons, write_exclusions
from pipeline.errors import DataError, MissingError, UsageError

_SHOWN = 3  # boxes that cannot be read; data preparation lists all
_WITHOUT_FILES = ("sample", "database", "api")  # kinds of sources whose annotations are no files of the user


@dataclass(frozen=True)
class LoadedAnnotations:
    """The figures of a loaded data set."""

    images: int
    annotations: int
    classes: tuple[str, ...]
    missing_images: int  # annotated images that were absent, and dropped with their boxes
    unannotated_images: int  # that nobody annotated: excluded, or taken as background
    unusable_images: int  # excluded because nothing drawn on them can be used as a box
    test_images: int  # reserved for the test set
    url: str
    sha256: str  # of the file at the URL; empty if it is not one file
    notes: tuple[str, ...]  # what was excluded, and what was taken as background, a sentence each


def load_source(
    url: str,
    images: Path,
    annotations: Path,
    *,
    cache: Path,
    sha256: str = "",
    query: str = "",
    api: Mapping[str, str] = {},
    sampling: Sampling = Sampling(),  # noqa: B008 - it is frozen
    unannotated: str = "exclude",
    timeout: float = 30.0,
    backoff: float = 0.5,
) -> LoadedSource:
    """Take images, and the annotations that lie with them, from the source at a URL into two new folders.

    The notebook describes most arguments; for `timeout`, `backoff` and `cache` see `FetchOptions`. With
    `unannotated="exclude"`, a labelling tool's open tasks are not fetched. For an annotation file its folder is taken,
    and that file alone is read as annotations.

    Raises:
        UsageError: The URL is of an unknown kind, its kind does not have an option, or a folder is not empty.
        MissingError: There is nothing at the URL.
        DataError: The source is broken, unsafe, another file than `sha256` says, or holds no image.
    """
    for folder in (images, annotations):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            remedy = "name a new folder; in a notebook, run the cells from the interface on again"
            raise UsageError("a folder to load into is not empty", where=folder, remedy=remedy)
    with_unannotated = unannotated == "background"
    source = parse_source(
        url, sha256=sha256, query=query, api=api, sampling=sampling, with_unannotated=with_unannotated
    )
    options = FetchOptions(cache, timeout, backoff)
    if isinstance(source, FileSource):
        source = with_its_folder(source, options)
    loaded = _LOADERS[type(source)](source, images, annotations, options)
    if not loaded.images:
        problem = "\n".join(["there are no images", *loaded.notes])
        remedy = f"name the folder of the images as the source, and {redact(url)} in annotations_url"
        expected = "images that Pillow reads"
        raise DataError(problem, where=loaded.url, expected=expected, remedy=remedy if loaded.member else "")
    if not loaded.member:
        return loaded
    remark = f"the source is the folder of {loaded.member}, and that file its annotations"
    return replace(loaded, remarks=(remark, *loaded.remarks))


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
    pair_by: str = "",
    missing_images: str = "refuse",
    unannotated: str = "exclude",
    test_list_url: str = "",
) -> LoadedAnnotations:
    """Write `annotations.json`, every image of which exists, and the lists that go with it, into a folder.

    An image that the annotations name without a box is background; one that nobody annotated is background only if
    `unannotated` says so. An image whose only shapes cannot be used as boxes is excluded in any case. Exclusions are
    kept in `exclusions.json` for `read_exclusions`, and what data preparation shall report in `findings.json`.

    If the files at `url` only name classes (`data.yaml`, `classes.txt`, Open Images' descriptions), they go with the
    annotations that lay with the images, and replace the names there.

    The notebook describes most arguments; `load_source` gave `source` and filled `images` and `annotations`.

    Raises:
        UsageError: An argument has a wrong value.
        MissingError: There is nothing at a URL, or no such member.
        DataError: The annotations are broken, in no known format or without boxes, or images that they or the test
            list name are absent.
    """
    if sha256 and not url:
        raise UsageError("a SHA-256 was given without a URL", where=sha256, remedy="give the annotations' URL too")
    folder.mkdir(parents=True, exist_ok=True)
    index = ImageIndex(images, filter(is_image_name, file_names(images)), source.renamed, source.place)
    given, place, shown = source, annotations, source.url
    member = member or ("" if url else source.member)
    described: tuple[str, ...] = ()  # files of the names of classes at `url`, laid over the source's annotations
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        if url:
            given, place = _load_separate(url, Path(name), cache, sha256), Path(name) / "annotations"
            shown = given.url
            with _located_in(shown, place):
                names_only = only_describe(place)
            if names_only:
                with _located_in(source.url, annotations):
                    described = lay_over(annotations, place, Path(name) / "combined")
                place, shown = Path(name) / "combined", source.url
        with _located_in(shown, place, dict.fromkeys(described, given.url)):
            read = read_annotations(place, index, format=format, member=member, pair_by=pair_by)
    if described and read.format not in DESCRIBED:
        raise DataError(
            f"the files only name classes, and the source's own annotations, {read.format}, do so too",
            where=given.url,
            expected=f"annotations, or names of classes for those in the formats {' and '.join(DESCRIBED)}",
            remedy="leave annotations_url empty to take the source's own annotations",
        )
    if place == annotations and source.kind in _WITHOUT_FILES:
        read = replace(read, dataset=_without_places(read.dataset))
    matched = match_images(
        read.dataset,
        source,
        index,
        where=shown,
        kind=read.format,
        missing_images=missing_images,
        unannotated=unannotated,
    )
    counts = Counter(matched.excluded.values())
    counts[NOT_ANNOTATED] += source.unannotated
    kept = len({image.file_name for image in matched.dataset.images})
    total, boxes = kept + len(matched.excluded) + source.unannotated, Counter(matched.excluded_boxes)
    boxes.update(read.left_out)
    all_boxes = len(read.dataset.annotations) + read.shapes_left_out
    excluded = exclude({reason: counts[reason] for reason in (NOT_ANNOTATED, NOT_USABLE, ABSENT, DERIVED)}, total)
    excluded += exclude(boxes, all_boxes, what="boxes")
    notes = [
        account("images", total, kept, excluded),
        account("boxes", all_boxes, len(matched.dataset.annotations), excluded),
        *reasons(excluded),
        *(f"{each.where}: {each.problem}" for each in read.unreadable[:_SHOWN]),
        *read.notes,
    ]
    if unannotated == "background" and matched.unannotated:
        notes.append(f"{len(matched.unannotated)} of {total} images are taken as background: {NOT_ANNOTATED}")
    write_exclusions(folder, excluded)
    write_loaded_findings(folder, _findings(read, source, matched.dataset))
    has_files = bool(url) or source.kind not in _WITHOUT_FILES
    kind = read.format if has_files else ""
    write_coco(
        with_source(matched.dataset, source.url, annotations=given.url if url and not described else "", format=kind),
        folder / ANNOTATIONS,
    )
    return LoadedAnnotations(
        images=len(matched.dataset.images),
        annotations=len(matched.dataset.annotations),
        classes=matched.dataset.classes,
        missing_images=counts[ABSENT],
        unannotated_images=len(matched.unannotated) + source.unannotated,
        unusable_images=counts[NOT_USABLE],
        test_images=write_test_list(test_list_url, folder, cache, matched, source, index) if test_list_url else 0,
        url=given.url,
        sha256=given.sha256,
        notes=tuple(notes),
    )


def _without_places(dataset: CocoDataset) -> CocoDataset:
    """The dataset without places in a file that the user does not have."""
    return replace(dataset, annotations=tuple(replace(each, source="") for each in dataset.annotations))


def _findings(read: ReadAnnotations, source: LoadedSource, dataset: CocoDataset) -> list[Finding]:
    """What data preparation shall report of loading."""
    boxes = [
        Finding("unreadable-annotation", "error", f"record {each.where}", "dropped", each.problem, source=each.where)
        for each in read.unreadable
    ]
    names = {image.file_name for image in dataset.images}
    images = []
    for each in source.converted:
        name = source.renamed.get(each.item, each.item)
        file_name = name if name in names else ""  # the item may be a record, such as a row of a database
        images.append(Finding("converted-image", "info", f"image {each.item}", "repaired", each.reason, file_name))
    return [*boxes, *images]


def _load_sample(source: SampleSource, images: Path, annotations: Path, _: FetchOptions) -> LoadedSource:
    write_coco(make_sample(images, **vars(source.recipe)), annotations / ANNOTATIONS)
    sizes = [path.stat().st_size for path in images.iterdir()]
    return LoadedSource("sample", source.shown, images=len(sizes), bytes=sum(sizes))


def _load_api(source: ApiSource, images: Path, annotations: Path, options: FetchOptions) -> LoadedSource:
    loaders = {"api": load_http_api, "label-studio": load_label_studio, "cvat": load_cvat}
    return loaders[source.kind](source, images, annotations, options)


_LOADERS: Mapping[type[Source], Callable[[Any, Path, Path, FetchOptions], LoadedSource]] = {
    SampleSource: _load_sample,
    FileSource: load_files,
    DatabaseSource: load_database,
    ApiSource: _load_api,
}


def _load_separate(url: str, draft: Path, cache: Path, sha256: str) -> LoadedSource:
    for name in ("images", "annotations"):
        (draft / name).mkdir()
    source = parse_source(url, sha256=sha256)
    if not isinstance(source, FileSource | SampleSource):
        remedy = "give the URL of a file, folder or archive"
        raise UsageError("annotations cannot come from a database or API", where=redact(url), remedy=remedy)
    return _LOADERS[type(source)](source, draft / "images", draft / "annotations", FetchOptions(cache))


@contextmanager
def _located_in(source: str, folder: Path, elsewhere: Mapping[str, str] = {}) -> Iterator[None]:
    """Let an error in the block name the source that the user gave, not the folder that its files were put into.

    `a.zip: b/c.json: images[3]`; if the source is that one file, `c.json: images[3]`. Files of another source, by their
    names in the folder, are in `elsewhere`.
    """
    try:
        yield
    except (DataError, MissingError) as error:
        place = error.where.removeprefix(f"{folder}/")
        if place in {"", str(folder)}:
            error.where = source
            raise
        source = next((elsewhere[name] for name in elsewhere if f"{place}:".startswith(f"{name}:")), source)
        last = source.rpartition("/")[2]
        is_that_file = last and f"{place}:".startswith(f"{last}:")
        error.where = source + place.removeprefix(last) if is_that_file else f"{source}: {place}"
        raise
