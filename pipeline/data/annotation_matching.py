"""Annotations matched with the images of their source. Each image is accounted for: kept, or excluded with a reason.

An image that the annotations name is background if they give it no box: a COCO image without annotations, an empty
label file, a row without a box. An image that they do not name, or that a reader has marked because the source lists it
and says nothing about what is in it, is an image that nobody annotated.

An image with shapes that are left out, such as lines, is neither. Readers mark it too. Without other boxes it is
excluded, whatever is to be done about images that nobody annotated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data.checks.image_rules import exif_orientation
from pipeline.data.checks.rules import Subject
from pipeline.data.coco import CocoDataset, Image, only_crowds
from pipeline.data.fetch.fetching import fetch
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.images import ImageFacts, upright_size
from pipeline.data.parsed import LEFT_OUT_FIELD, UNANNOTATED_FIELD
from pipeline.data.sources.loaded_source import LoadedSource
from pipeline.errors import DataError, did_you_mean

NOT_ANNOTATED = "nobody annotated them"
NOT_USABLE = "nothing drawn on them can be used as a box"
ABSENT = "their files are absent"
DERIVED = "they are pictures of annotations, such as visualisations and masks"

_TEST_LIST = "test_images.txt"
_ORIENTATION = "orientation"  # a field of converted images
_MARKS = {UNANNOTATED_FIELD, LEFT_OUT_FIELD}
_SHOWN = 3  # reasons in an error


@dataclass(frozen=True)
class MatchedImages:
    """The images that a source has or its annotations name, by their names in the folder."""

    dataset: CocoDataset  # those that are kept; images without a box are background
    excluded: Mapping[str, str]  # the reasons why the others are not
    unannotated: frozenset[str]  # those that nobody annotated: excluded, or kept as background
    excluded_boxes: Mapping[str, int]  # numbers by reason


def match_images(
    dataset: CocoDataset,
    source: LoadedSource,
    index: ImageIndex,
    *,
    where: str,
    kind: str,
    missing_images: str,
    unannotated: str,
) -> MatchedImages:
    """Decide of each image whether it is kept.

    The dataset has names as in the source, and marks on some images. `where` and `kind` say in errors where the
    annotations came from, and as which format they were read.
    """
    dataset = _as_on_disk(dataset, source, index.folder)
    files = {source.renamed.get(name, name) for name in index.names}
    named = {image.file_name for image in dataset.images}
    annotated = {each.image_id for each in dataset.annotations}
    with_boxes = {image.file_name for image in dataset.images if image.id in annotated}

    left_out = {image.file_name: Counter(_left_out(image)) for image in dataset.images if _left_out(image)}
    marked = {image.file_name for image in dataset.images if image.extra.get(UNANNOTATED_FIELD) in (True, 1)}
    absent = named - files
    if absent and (missing_images != "drop" or absent == named):
        raise _absent_images(sorted(absent), len(named), where, source)
    if with_boxes <= absent:
        found = f"the annotations hold no box in {len(named - absent)} images" if named else "there is no image"
        raise DataError(
            f"{found}, read as {kind}",
            where=where,
            expected="images with boxes",
            remedy="check which files hold the boxes; if they lie apart from the images, name them in annotations_url",
        )
    if dataset.annotations and all(each.iscrowd for each in dataset.annotations):
        raise only_crowds(len(dataset.annotations), where)
    unusable = left_out.keys() - with_boxes - absent
    unknown = (marked - with_boxes).union(files - named) - unusable - absent
    excluded = dict.fromkeys(absent, ABSENT) | dict.fromkeys(unusable, NOT_USABLE)
    excluded |= {source.renamed.get(name, name): DERIVED for name in index.derived}
    if unannotated != "background":
        excluded |= dict.fromkeys(unknown, NOT_ANNOTATED)
    kept = _without(dataset, excluded)
    counts = sum((counter for name, counter in left_out.items() if name not in absent), Counter[str]())
    counts[ABSENT] = len(dataset.annotations) - len(kept.annotations)
    counts[ABSENT] += sum(left_out[name].total() for name in absent & left_out.keys())
    images = [
        replace(image, extra={key: value for key, value in image.extra.items() if key not in _MARKS})
        for image in kept.images
    ]
    # images that the annotations do not name belong to the subsets that their folders name
    has_split = any("subset" in image.extra for image in images)
    in_source = {new: old for old, new in source.renamed.items()}
    first = max((image.id for image in images), default=0) + 1
    for number, name in enumerate(sorted(unknown - named - excluded.keys()), first):
        own = in_source.get(name, name)
        subset = index.subset_of(PurePosixPath(own).parent.as_posix()) if has_split else ""
        images.append(
            Image(number, name, *index.size(own), _fields(name, source) | ({"subset": subset} if subset else {}))
        )
    return MatchedImages(replace(kept, images=tuple(images)), excluded, frozenset(unknown), +counts)


def _left_out(image: Image) -> Mapping[str, int]:
    """How many shapes on an image were left out, by reason."""
    raw = image.extra.get(LEFT_OUT_FIELD)
    return raw if isinstance(raw, dict) and all(each.__class__ is int for each in raw.values()) else {}


def _without(dataset: CocoDataset, excluded: Collection[str]) -> CocoDataset:
    """The dataset without these images and their boxes; boxes of no image stay, for validation to report."""
    images = tuple(image for image in dataset.images if image.file_name not in excluded)
    gone = {image.id for image in dataset.images} - {image.id for image in images}
    return replace(dataset, images=images, annotations=tuple(x for x in dataset.annotations if x.image_id not in gone))


def write_test_list(
    url: str, folder: Path, cache: Path, matched: MatchedImages, source: LoadedSource, index: ImageIndex
) -> int:
    """Write the names of the images that are reserved for the test set, and count them; absent ones are left out.

    The text file at the URL has one name a line, as in the folder, the source or the annotations.
    """
    found = fetch(url, cache)
    try:
        lines = {line.strip() for line in found.path.read_text(encoding="utf-8-sig").splitlines()} - {""}
    except (UnicodeDecodeError, IsADirectoryError) as error:
        problem = "the test list is not a text file"
        raise DataError(problem, where=found.url, expected="a file name a line") from error
    if not lines:
        raise DataError("the test list is empty", where=found.url, remedy="leave test_list_url empty to have none")
    kept = {image.file_name for image in matched.dataset.images}
    try:
        meant = {line if line in kept or line in matched.excluded else index.resolve(line) or line for line in lines}
    except DataError as error:
        error.where = found.url
        raise
    names = {source.renamed.get(name, name) for name in meant}
    reasons = {name: matched.excluded.get(name, "the annotations do not name them") for name in names - kept}
    refused = sorted(name for name in reasons if reasons[name] != ABSENT)
    if refused:
        why = reasons[refused[0]]
        alike = [name for name in refused if reasons[name] == why]
        raise DataError(
            f"the test list names {len(alike)} images that are in no set, since {why}: {_first_of(alike)}",
            where=found.url,
            expected="images with boxes, or background, by their names in the annotations",
            remedy=did_you_mean(refused[0], kept, otherwise="correct the list", cutoff=0.6)
            + "; set unannotated to 'background' if what nobody annotated is background",
        )
    if there := sorted(names & kept):
        (folder / _TEST_LIST).write_text("".join(f"{name}\n" for name in there), encoding="utf-8")
    return len(there)


def read_test_list(folder: Path) -> tuple[str, ...]:
    """The names of the images that are reserved for the test set.

    Annotations that an earlier version loaded with a map of class names are refused: it would have to be applied.
    """
    if any(folder.glob("class_map.*")):
        problem = "the annotations were loaded with class_map_url, which is no longer applied"
        raise DataError(problem, where=folder, remedy="load them again, and set rename and drop_classes instead")
    path = folder / _TEST_LIST
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()


def _as_on_disk(dataset: CocoDataset, source: LoadedSource, folder: Path) -> CocoDataset:
    """The data set with file names as in the folder, and with the source's fields of each image.

    A converted image was turned upright; boxes drawn on it as stored turn with it.
    """
    images = []
    for image in dataset.images:
        name = source.renamed.get(image.file_name, image.file_name)
        images.append(replace(image, file_name=name, extra={**image.extra, **_fields(name, source)}))
    dataset = replace(dataset, images=tuple(images))
    turned = {name: own[_ORIENTATION] for name, own in source.fields.items() if _ORIENTATION in own}
    if not turned:
        return dataset
    facts = {image.file_name: ImageFacts() for image in dataset.images}
    facts |= {name: ImageFacts(*upright_size(folder / name), orientation) for name, orientation in turned.items()}
    return exif_orientation(Subject(dataset, facts), "repair")[0]


def _fields(name: str, source: LoadedSource) -> dict[str, Any]:
    return {key: value for key, value in source.fields.get(name, {}).items() if key != _ORIENTATION}


def _absent_images(absent: list[str], named: int, where: str, source: LoadedSource) -> DataError:
    problem = f"{len(absent)} of the {named} images that the annotations name are absent: {_first_of(absent)}"
    names = tuple(f"/{name}" for name in absent)
    skipped = [each for each in source.skipped if f"/{each.item}".endswith(names)]
    return DataError(
        "\n".join([problem, *(f"{each.item} was skipped: {each.reason}" for each in skipped[:_SHOWN])]),
        where=where,
        expected="every one of them among the images",
        remedy="check that images and annotations belong together"
        + (", or set missing_images to drop" if len(absent) < named else ""),
    )


def _first_of(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
