"""COCO instances files: one keeps its ids, several are merged."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import PurePosixPath
from typing import Any

from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.formats.annotation_files import AnnotationFiles, Candidates
from pipeline.data.formats.coco_records import CocoFile, read_file
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.image_pairing import Reference, pair
from pipeline.data.parsed import LEFT_OUT_FIELD, subset_named

LOOKS_FOR = "a JSON file with images, annotations that have a bbox, and categories"
_OTHER_COCO = ("as of panoptic files", "as of captions")
_STUFF = re.compile(r"(^|[^a-z])stuff([^a-z]|$)", re.IGNORECASE)


def candidates(files: AnnotationFiles) -> Candidates:
    """The JSON files."""
    return ((name, _why_not(files, name)) for name in files.ending(".json"))


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the instances files.

    Of several files, those without any image here are skipped, and so are person keypoints and stuff beside instances.
    Their images are numbered by name, objects in file order, and categories of one name merged; the folder or file name
    gives the subset. An object of an image or category that its file does not have gets an id that nothing has, for
    validation to report. `info` keeps what all files say alike; licences of one id and different terms stay apart.
    """
    reasons = {name: _why_not(files, name) for name in files.ending(".json")}
    names = [name for name in reasons if not reasons[name]]
    files.notes.extend(f"left out: {why}" for why in reasons.values() if why.endswith(_OTHER_COCO))
    if len(names) > 1:
        plain = [name for name in names if not files.has_json_keys(name, "num_keypoints")]
        names = _only(plain, names, "they are keypoints, and there are instances beside them", files)
        things = [name for name in names if not _STUFF.search(PurePosixPath(name).stem)]
        names = _only(things, names, "they are stuff, and there are things beside them", files)
    found = [read_file(files, name) for name in names]
    references = [_reference(each, image) for each in found for image in each.images]
    meant = iter(pair(references, images, files.faults))
    named = {each.name: [next(meant) for _ in each.images] for each in found}
    if len(found) > 1:
        here = [name for name in names if not images.names.isdisjoint(named[name])]
        kept = set(_only(here, names, "none of their images is here", files))
        found = [each for each in found if each.name in kept]
    datasets = [_resolved(each, named[each.name], images) for each in found]
    return _merged(datasets) if len(datasets) > 1 else datasets[0]


def _why_not(files: AnnotationFiles, name: str) -> str:
    """Why a JSON file is not an instances file; empty where it is. The file is searched for keys, not parsed."""
    head = files.head(name)
    if head.lstrip()[:1] == "[":
        return f"{name} is a list, as of detection results"
    if '"shapes"' in head and not any(key in head for key in ('"images"', '"annotations"', '"categories"')):
        return f"{name} has shapes, as of LabelMe"  # not searched further: it may contain the image
    for key in ("images", "annotations"):
        if not files.has_json_keys(name, key):
            return f"{name} has no '{key}'"
    if files.has_json_keys(name, "segments_info"):
        return f"{name} has segments, {_OTHER_COCO[0]}"
    has_boxes = files.has_json_keys(name, "bbox") or files.has_json_keys(name, "segmentation")
    if not has_boxes and files.has_json_keys(name, "image_id"):
        return f"{name} has annotations, but no 'bbox' in them, {_OTHER_COCO[1]}"
    return "" if files.has_json_keys(name, "categories") else f"{name} has no 'categories'"


def _only(kept: list[str], names: list[str], why: str, files: AnnotationFiles) -> list[str]:
    if not kept or len(kept) == len(names):
        return names
    files.notes.append(f"skipped, as {why}: {', '.join(name for name in names if name not in kept)}")
    return kept


def _reference(file: CocoFile, image: Image) -> Reference:
    own = image.extra.get("subset")
    part = own if isinstance(own, str) else ""
    return Reference(image.file_name, file.name, part=part, where=f"{file.name}: image {image.id}")


def _resolved(file: CocoFile, names: Sequence[str], images: ImageIndex) -> CocoDataset:
    """The dataset with the images' names and sizes as they are here, and the file's subset where they have none."""
    by_file = images.subset_of(file.name)
    found = []
    for image, name in zip(file.images, names, strict=True):
        width, height = (image.width, image.height) if image.width and image.height else images.size(name)
        extra = dict(image.extra)
        own = extra.pop("subset", None)
        subset = (subset_named(own) if isinstance(own, str) else "") or by_file
        extra |= {"subset": subset} if subset else {}
        if left_out := file.left_out.get(image.id):
            extra[LEFT_OUT_FIELD] = dict(Counter(extra.get(LEFT_OUT_FIELD, {})) + left_out)
        found.append(replace(image, file_name=name, width=width, height=height, extra=extra))
    return CocoDataset(tuple(found), file.annotations, file.categories, file.info, file.licenses)


def _merged(in_files: Sequence[CocoDataset]) -> CocoDataset:
    datasets, licences = _with_common_licences(in_files)
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
    found = tuple(images), tuple(annotations), tuple(categories.values())
    return CocoDataset(*found, _shared_info([dataset.info for dataset in datasets]), tuple(licences.values()))


def _with_common_licences(datasets: Sequence[CocoDataset]) -> tuple[list[CocoDataset], dict[str, Mapping[str, Any]]]:
    """The datasets with one numbering of their licences; and these, each once, by their terms.

    Two files may give one id to two licences: the later one gets a new id, also on its file's images. An image keeps no
    id that its own file does not define, as another file's licence may have it.
    """
    known: dict[str, Mapping[str, Any]] = {}
    given = {str(each.get("id")) for dataset in datasets for each in dataset.licenses}
    free, used, renumbered = (i for i in count(1) if str(i) not in given), set[str](), list[CocoDataset]()
    for dataset in datasets:
        ids: dict[str, Any] = {}  # new by old
        for each in dataset.licenses:
            terms = json.dumps({key: value for key, value in each.items() if key != "id"}, sort_keys=True)
            own = str(each.get("id"))
            if terms not in known:
                known[terms] = {**each, "id": next(free)} if own in used else each
                used.add(own)
            ids.setdefault(own, known[terms].get("id"))
        renumbered.append(replace(dataset, images=tuple(_relicensed(image, ids) for image in dataset.images)))
    return renumbered, known


def _relicensed(image: Image, ids: Mapping[str, Any]) -> Image:
    if "license" not in image.extra:
        return image
    extra = {key: value for key, value in image.extra.items() if key != "license"}
    own = str(image.extra["license"])
    return replace(image, extra=extra | ({"license": ids[own]} if own in ids else {}))


def _shared_info(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all files say alike of the dataset; and their descriptions, where these differ one after the other."""
    first, *others = infos
    shared = {key: value for key, value in first.items() if all(key in each and each[key] == value for each in others)}
    descriptions = dict.fromkeys(text for each in infos if isinstance(text := each.get("description"), str) and text)
    return shared | ({"description": "; ".join(descriptions)} if descriptions else {})
