"""COCO instances files: one keeps its ids, several are merged."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import PurePosixPath

from pipeline.data.coco import Annotation, Category, CocoDataset, Image, read_coco
from pipeline.data.formats.annotation_files import AnnotationFiles, Candidates
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.parsed import subset_named

log = logging.getLogger(__name__)

LOOKS_FOR = "a JSON file with images, annotations that have a bbox, and categories"


def candidates(files: AnnotationFiles) -> Candidates:
    """The JSON files."""
    return ((name, _why_not(files, name)) for name in files.ending(".json"))


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the instances files.

    Of several files, those without any image here are skipped, and so are person keypoints beside instances. Their
    images are numbered by name, objects in file order, and categories of one name merged; the folder or file name gives
    the subset. An object of an image or category that its file does not have gets an id that nothing has, for
    validation to report.
    """
    names = [name for name in files.ending(".json") if not _why_not(files, name)]
    if len(names) > 1:
        plain = [name for name in names if not files.has_json_keys(name, "num_keypoints")]
        names = _only(plain, names, "they are keypoints, and there are instances beside them")
    datasets = {name: _resolved(read_coco(files.folder / name, unsized=True), name, images) for name in names}
    if len(datasets) > 1:
        here = [name for name in names if any(each.file_name in images.names for each in datasets[name].images)]
        datasets = {name: datasets[name] for name in _only(here, names, "none of their images is here")}
    return _merged(list(datasets.values())) if len(datasets) > 1 else next(iter(datasets.values()))


def _why_not(files: AnnotationFiles, name: str) -> str:
    """Why a JSON file is not an instances file; empty where it is. The file is searched for keys, not parsed."""
    head = files.head(name)
    if head.lstrip()[:1] == "[":
        return f"{name} is a list, as of detection results"
    if '"shapes"' in head and not any(key in head for key in ('"images"', '"annotations"', '"categories"')):
        return f"{name} has shapes, as of LabelMe"  # not searched further: it may contain the image
    missing = {key for key in ("images", "annotations", "categories", "bbox") if not files.has_json_keys(name, key)}
    if missing & {"images", "annotations"}:
        return f"{name} has no '{max(missing & {'images', 'annotations'})}'"
    if "bbox" in missing and files.has_json_keys(name, "image_id"):
        return f"{name} has annotations, but no 'bbox' in them, as of captions"
    return f"{name} has no 'categories'" if "categories" in missing else ""


def _only(kept: list[str], names: list[str], why: str) -> list[str]:
    if not kept or len(kept) == len(names):
        return names
    log.info("skipped, as %s: %s", why, ", ".join(name for name in names if name not in kept))
    return kept


def _resolved(dataset: CocoDataset, name: str, images: ImageIndex) -> CocoDataset:
    """The dataset with the images' names and sizes as they are here, and the file's subset where they have none."""
    beside, by_file = PurePosixPath(name).parent.as_posix(), images.subset_of(name)
    found = []
    for i, image in enumerate(dataset.images):
        file_name = images.name_of(image.file_name, f"{name}: images[{i}]", beside)
        width, height = (image.width, image.height) if image.width and image.height else images.size(file_name)
        extra = dict(image.extra)
        own = extra.pop("subset", None)
        subset = (subset_named(own) if isinstance(own, str) else "") or by_file
        extra |= {"subset": subset} if subset else {}
        found.append(replace(image, file_name=file_name, width=width, height=height, extra=extra))
    return replace(dataset, images=tuple(found))


def _merged(datasets: Sequence[CocoDataset]) -> CocoDataset:
    first: dict[str, Image] = {}
    categories: dict[str, Category] = {}
    for dataset in datasets:
        for image in dataset.images:
            first.setdefault(image.file_name, image)
        for category in dataset.categories:
            categories.setdefault(category.name, replace(category, id=len(categories) + 1))
    images = [replace(first[name], id=i) for i, name in enumerate(sorted(first), 1)]
    numbers = {image.file_name: image.id for image in images}
    unknown_image, unknown_category = count(len(images) + 1).__next__, count(len(categories) + 1).__next__
    annotations: list[Annotation] = []
    for dataset in datasets:
        image_ids = defaultdict[int, int](unknown_image)
        category_ids = defaultdict[int, int](unknown_category)
        image_ids |= {image.id: numbers[image.file_name] for image in reversed(dataset.images)}
        category_ids |= {each.id: categories[each.name].id for each in reversed(dataset.categories)}
        for each in dataset.annotations:
            image_id, category_id = image_ids[each.image_id], category_ids[each.category_id]
            annotations.append(replace(each, id=len(annotations) + 1, image_id=image_id, category_id=category_id))
    licenses = {json.dumps(each, sort_keys=True): each for dataset in datasets for each in dataset.licenses}
    found = tuple(images), tuple(annotations), tuple(categories.values())
    return CocoDataset(*found, datasets[0].info, tuple(licenses.values()))
