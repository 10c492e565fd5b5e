from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import pytest
from annotation_folder import AnnotationFolder, boxes_of
from cases import cases
from pycocotools import mask as masks

from pipeline.data.formats.coco_records import STUFF
from pipeline.data.formats.reading import ReadAnnotations, read_annotations
from pipeline.data.parsed import UNREADABLE
from pipeline.errors import DataError

Raw = dict[str, list[dict[str, Any]]]
NAMES = ("a.jpg", "b.jpg")
CORNERS = ((1, 2), (30, 5), (50, 10), (60, 20))


def instances() -> Raw:
    """Two images with four boxes each, in turns of a cat and a dog."""
    return {
        "images": [{"id": i, "file_name": name, "width": 100, "height": 50} for i, name in enumerate(NAMES, 1)],
        "annotations": [
            {"id": 4 * i + k + 1, "image_id": i + 1, "category_id": k % 2 + 1, "bbox": [x, y, 10, 20], "iscrowd": 0}
            for i in range(2)
            for k, (x, y) in enumerate(CORNERS)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


BOXES = [("cat", 1, 2, 10, 20), ("dog", 30, 5, 10, 20), ("cat", 50, 10, 10, 20), ("dog", 60, 20, 10, 20)]


def read(folder: AnnotationFolder, raw: Raw) -> ReadAnnotations:
    folder.image(*NAMES)
    folder.write({"a.json": raw})
    return read_annotations(folder.folder, folder.index)


def each(section: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Raw], object]:
    return lambda raw: [change(record) for record in raw[section]]


def uuids(raw: Raw) -> None:
    for section, records in raw.items():
        for record in records:
            record["id"] = str(uuid5(NAMESPACE_OID, f"{section}{record['id']}"))
            for key, owner in (("image_id", "images"), ("category_id", "categories")):
                if key in record:
                    record[key] = str(uuid5(NAMESPACE_OID, f"{owner}{record[key]}"))


def mask_alone(record: dict[str, Any]) -> None:
    x, y, width, height = record.pop("bbox")
    pixels = np.zeros((50, 100), np.uint8, order="F")
    pixels[y : y + height, x : x + width] = 1
    packed = masks.encode(pixels)
    record["segmentation"] = {"size": packed["size"], "counts": packed["counts"].decode()}


def run_lengths_alone(record: dict[str, Any]) -> None:
    x, y, width, height = record.pop("bbox")
    first, gap = x * 50 + y, 50 - height
    counts = [first, *[height, gap] * (width - 1), height, 5000 - first - width * 50 + gap]
    record["segmentation"] = {"size": [50, 100], "counts": counts}


def outline_alone(record: dict[str, Any]) -> None:
    x, y, width, height = record.pop("bbox")
    record["segmentation"] = [[x, y, x + width, y], [x + width, y + height, x, y + height]]


@cases(
    "change",
    {
        "as it is": lambda raw: None,
        "ids as texts": each(
            "annotations", lambda r: r.update({k: str(r[k]) for k in ("id", "image_id", "category_id")})
        ),
        "ids as floats": each("annotations", lambda r: r.update({k: float(r[k]) for k in ("image_id", "category_id")})),
        "UUIDs": uuids,
        "names as ids": each("annotations", lambda r: r.update(category_id=("cat", "dog")[r["category_id"] - 1])),
        "file names as ids": each("annotations", lambda r: r.update(image_id=NAMES[r["image_id"] - 1])),
        "no ids of boxes": each("annotations", lambda r: r.pop("id")),
        "one without an id": lambda raw: raw["annotations"][2].pop("id"),
        "numbers as texts": each("annotations", lambda r: r.update(bbox=[*map(str, r["bbox"])], area="200")),
        "no crowd as a text": each("annotations", lambda r: r.update(iscrowd="0", ignore="false")),
        "masks alone": each("annotations", mask_alone),
        "masks alone, not packed": each("annotations", run_lengths_alone),
        "outlines alone": each("annotations", outline_alone),
        "paths of Windows": each("images", lambda r: r.update(file_name=f"C:\\x\\{r['file_name']}")),
        "Label Studio's paths": each("images", lambda r: r.update(file_name=f"..\\..\\upload\\4\\{r['file_name']}")),
    },
)
def test_what_tools_write_is_read(annotation_folder: AnnotationFolder, change: Callable[[Raw], object]) -> None:
    raw = instances()
    change(raw)
    dataset = read(annotation_folder, raw).dataset
    assert boxes_of(dataset) == dict.fromkeys(NAMES, BOXES)
    assert not any(annotation.iscrowd for annotation in dataset.annotations)
    ids = [annotation.id for annotation in dataset.annotations]
    assert len(set(ids)) == len(ids)
    assert min(ids) >= 1


@cases(
    "field, value, problem",
    {
        "no category": ("category_id", None, "category_id is absent"),
        "no such category": ("category_id", "zebra", "category_id is 'zebra'"),
        "no image": ("image_id", None, "image_id is absent"),
        "no box": ("bbox", None, "bbox is absent, not four numbers"),
        "three numbers": ("bbox", [1, 2, 3], "bbox is a list, not four"),
        "a number is absent": ("bbox", [1, 2, None, 4], "coordinate of the bbox is absent"),
        "an area in words": ("area", "big", "area is 'big'"),
        "a doubtful flag": ("iscrowd", "maybe", "iscrowd is 'maybe'"),
    },
)
def test_one_bad_record_is_left_out_and_told(
    annotation_folder: AnnotationFolder, field: str, value: Any, problem: str
) -> None:
    raw = instances()
    raw["annotations"][3][field] = value
    found = read(annotation_folder, copy.deepcopy(raw))
    assert boxes_of(found.dataset) == {"a.jpg": BOXES[:3], "b.jpg": BOXES}
    (fault,) = found.unreadable
    assert (fault.where, problem in fault.problem) == ("a.json: annotations[3]", True)
    assert found.shapes_left_out == 1
    left_out = {"left_out": {UNREADABLE: 1}} if field != "image_id" else {}
    assert [dict(image.extra) for image in found.dataset.images] == [left_out, {}]


@pytest.mark.parametrize("value", [1, 1.0, "1", True, "true"])
@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_regions_that_are_not_judged(annotation_folder: AnnotationFolder, key: str, value: Any) -> None:
    """mmdet would learn a box that is to be ignored as background, and pycocotools does not know the word."""
    raw = instances()
    raw["annotations"][2][key] = value
    found = read(annotation_folder, raw)
    assert [annotation.id for annotation in found.dataset.annotations if annotation.iscrowd] == [3]
    told = "a.json: 1 boxes marked 'ignore' became crowd regions, which evaluation does not judge"
    assert found.notes == ((told,) if key == "ignore" else ())


@cases(
    "mask, problem",
    {
        "no counts": ({"size": [50, 100]}, "the mask cannot be read"),
        "no size": ({"counts": [5000]}, "the mask cannot be read"),
        "words": ({"size": [50, 100], "counts": ["x"]}, "the mask cannot be read"),
        "nothing": ([], "bbox is absent, not four numbers"),
        "an outline of words": ([[1, 2, "x", 4]], "coordinate is 'x'"),
    },
)
def test_an_outline_that_gives_no_box_is_left_out(annotation_folder: AnnotationFolder, mask: Any, problem: str) -> None:
    raw = instances()
    raw["annotations"][3] |= {"bbox": None, "segmentation": mask}
    (fault,) = read(annotation_folder, raw).unreadable
    assert problem in fault.problem


def test_many_bad_records_end_the_load(annotation_folder: AnnotationFolder) -> None:
    raw = instances()
    for record in raw["annotations"][:3]:
        record["category_id"] = None
    with pytest.raises(DataError, match=r"3 faults:\n  a.json: annotations\[0\]: category_id is absent"):
        read(annotation_folder, raw)


def test_stuff_is_no_object(annotation_folder: AnnotationFolder) -> None:
    raw = instances()
    raw["categories"] += [{"id": 9, "name": "sky", "isthing": 0}]
    raw["annotations"] += [{"id": 99, "image_id": 1, "category_id": 9, "bbox": [0, 0, 100, 20]}]
    annotation_folder.write({"stuff_val2017.json": instances(), "panoptic.json": {**instances(), "segments_info": []}})
    found = read(annotation_folder, raw)
    assert boxes_of(found.dataset) == dict.fromkeys(NAMES, BOXES)
    assert found.dataset.images[0].extra == {"left_out": {STUFF: 1}}
    assert [note.partition(":")[0] for note in found.notes] == [
        "left out",
        "skipped, as they are stuff, and there are things beside them",
    ]


def test_ids_that_are_replaced_are_told(annotation_folder: AnnotationFolder) -> None:
    raw = instances()
    uuids(raw)
    assert read(annotation_folder, raw).notes == (
        "a.json: ids that are no whole numbers are replaced by numbers",
        "a.json: 8 annotations without an id of their own are numbered",
    )


def test_ids_that_are_alike_as_numbers_are_two_records(annotation_folder: AnnotationFolder) -> None:
    raw = instances()
    each("images", lambda image: image.update(id="1" if image["id"] == 1 else "01"))(raw)
    each("annotations", lambda box: box.update(image_id="1" if box["image_id"] == 1 else "01"))(raw)
    assert boxes_of(read(annotation_folder, raw).dataset) == dict.fromkeys(NAMES, BOXES)


@cases(
    "change, said",
    {
        "corners": (
            lambda x, y, width, height: [x, y, x + width, y + height],
            r"seem to be two corners: 4 of 8 leave their images, such as 50, 10, 60, 30.*annotations\[2\]",
        ),
        "fractions": (
            lambda x, y, width, height: [x / 100, y / 50, width / 100, height / 50],
            r"fractions of the image's size: all 8 are.*annotations\[0\]",
        ),
    },
)
def test_boxes_in_another_form_are_refused(
    annotation_folder: AnnotationFolder, change: Callable[..., list[float]], said: str
) -> None:
    raw = instances()
    each("annotations", lambda box: box.update(bbox=change(*box["bbox"])))(raw)
    with pytest.raises(DataError, match=f"(?s){said}"):
        read(annotation_folder, raw)


def test_boxes_that_leave_their_images_are_left_to_validation(annotation_folder: AnnotationFolder) -> None:
    raw = instances()
    each("annotations", lambda box: box.update(bbox=[box["bbox"][0], box["bbox"][1], 90, 45]))(raw)
    raw["annotations"][0]["bbox"] = [50, 10, 40, 20]
    assert len(read(annotation_folder, raw).dataset.annotations) == 8
