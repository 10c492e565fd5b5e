"""The table gives the samples that mmdet's own loading gives, and its pages are shared."""

from __future__ import annotations

import copy
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from mmengine.registry import DATASETS, DefaultScope

from pipeline.data.coco import read_coco
from pipeline.detection.coco_metric import TRUTH_FILE
from pipeline.detection.mapped_annotations import AnnotationTable, write_table
from pipeline.detection.session import write_tables
from pipeline.errors import DataError
from pipeline.metrics.coco_matching import TruthBoxes
from pipeline.metrics.ground_truth import read_ground_truth

WIDTH, HEIGHT = 60, 40
# name to box, and what differs from a plain annotation
BOXES: dict[str, tuple[list[float], dict[str, Any]]] = {
    "plain": ([3, 4, 20, 10], {}),
    "fractions": ([3.3, 4.7, 20.123456789, 10.1], {}),
    "the whole image": ([0, 0, WIDTH, HEIGHT], {}),
    "over the edge": ([50.5, 30.5, 30, 30], {}),
    "outside": ([WIDTH, 3, 10, 10], {}),
    "touching from the left": ([-10, 3, 10, 10], {}),
    "of one pixel": ([5, 5, 1, 1], {}),
    "just below a pixel": ([1e6 + 0.1, 5, 0.9999999999, 9], {}),
    "a pixel only before it is added": ([0.1, 5, 1.0, 9], {}),
    "narrow": ([5, 5, 0.5, 30], {}),
    "flat": ([5, 5, 30, 0], {}),
    "without area": ([5, 5, 30, 20], {"area": 0}),
    "crowd": ([1, 1, 30, 30], {"iscrowd": 1}),
    "with a mask": ([1, 1, 30, 30], {"segmentation": [[1, 1, 31, 1, 31, 31]]}),
}


def write(folder: Path) -> Path:
    """Each box in an image of its own, with ids that fall, and once all in one image, between others."""
    names = [*(f"{name}.jpg" for name in BOXES), "ünï/日本.jpg", "empty.jpg"]
    ids = [900 - 7 * number for number in range(len(names))]
    images = [
        {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in zip(ids, names, strict=True)
    ]
    plain = {"area": 200, "iscrowd": 0}
    annotations = []
    for number, (box, changes) in enumerate(BOXES.values()):
        for image_id in (ids[number], ids[-2]):
            record = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": 3 + 4 * (number % 2),
                "bbox": box,
            }
            annotations.append({**record, **plain, **changes})
    categories = [{"id": 3, "name": "disc"}, {"id": 7, "name": "block"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    folder.mkdir()
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def built(kind: str, folder: Path, annotations: Path) -> Any:
    plan = {"type": kind, "metainfo": {"classes": ("disc", "block")}, "data_root": f"{folder}/"}
    plan |= {"ann_file": str(annotations), "data_prefix": {"img": "images/"}, "filter_cfg": None}
    loaded = [{"type": "LoadAnnotations", "with_bbox": True}]
    with DefaultScope.overwrite_default_scope("mmdet"):
        return DATASETS.build({**copy.deepcopy(plan), "pipeline": loaded})


@pytest.fixture
def both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Any, Any]:
    """mmdet's data set, and ours of the same file."""
    folder = write(tmp_path / "made")
    table = write_table(read_coco(folder / "annotations.json"), tmp_path / "table")
    theirs = built("CocoDataset", folder, folder / "annotations.json")
    capsys.readouterr()  # pycocotools prints
    return theirs, built("MappedDataset", folder, table)


def test_what_is_loaded_is_what_mmdet_loads(both: tuple[Any, Any]) -> None:
    theirs, ours = both
    assert len(ours) == len(theirs) == len(BOXES) + 2
    assert ours.metainfo["classes"] == theirs.metainfo["classes"]
    for row in range(len(theirs)):
        expected, found = theirs[row], ours[row]
        for sample in (expected, found):
            for instance in sample.pop("instances"):
                instance.pop("mask", None)
        boxes = expected.pop("gt_bboxes").tensor, found.pop("gt_bboxes").tensor
        assert boxes[0].dtype == boxes[1].dtype
        assert boxes[0].numpy().tobytes() == boxes[1].numpy().tobytes(), expected["img_path"]
        for key in ("gt_bboxes_labels", "gt_ignore_flags"):
            arrays = expected.pop(key), found.pop(key)
            assert arrays[0].dtype == arrays[1].dtype
            np.testing.assert_array_equal(*arrays)
        assert found == expected
    assert [len(ours.get_data_info(row)["instances"]) for row in range(len(ours))].count(0) == 7
    assert ours.get_cat_ids(len(BOXES)) == theirs.get_cat_ids(len(BOXES))


def test_another_process_is_sent_no_content(both: tuple[Any, Any]) -> None:
    _, ours = both
    content = pickle.dumps(ours)
    assert len(content) < len(pickle.dumps(both[0]))
    assert len(pickle.dumps(ours._table)) < 300
    assert pickle.loads(content).get_data_info(3) == ours.get_data_info(3)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells which pages are mapped from files")
def test_a_tables_pages_are_those_of_its_files(tmp_path: Path) -> None:
    """So they are counted once for all processes, and can be dropped where memory is short."""
    folder = write(tmp_path / "made")
    table = AnnotationTable.open(write_table(read_coco(folder / "annotations.json"), tmp_path / "table"))
    assert [table.name(row) for row in range(len(table))][-2:] == ["ünï/日本.jpg", "empty.jpg"]
    mapped = {Path(region.path).name for region in psutil.Process(os.getpid()).memory_maps() if region.path}
    assert {path.name for path in (tmp_path / "table").iterdir()} <= mapped


def test_a_set_without_any_box(tmp_path: Path) -> None:
    content = {"images": [{"id": 1, "file_name": "a.jpg", "width": 5, "height": 5}], "annotations": []}
    (tmp_path / "annotations.json").write_text(json.dumps({**content, "categories": [{"id": 1, "name": "a"}]}))
    table = AnnotationTable.open(write_table(read_coco(tmp_path / "annotations.json"), tmp_path / "table"))
    assert (len(table), table.instances(0)) == (1, [])


def test_the_truth_of_the_eval_set_has_what_mmdet_does_not_train_on(tmp_path: Path) -> None:
    """Such as boxes outside and below a pixel, which COCO's evaluation counts."""
    folder = write(tmp_path / "made")
    dataset = read_coco(folder / "annotations.json")
    tables = write_tables(dataset, dataset, folder, tmp_path / "tables")
    found = TruthBoxes.load(tables / "eval" / TRUTH_FILE)
    assert len(found.box) == 2 * len(BOXES)
    for name, expected in vars(TruthBoxes.of(read_ground_truth(folder / "annotations.json"))).items():
        assert np.array_equal(vars(found)[name], expected), name
    assert not (tables / "train" / TRUTH_FILE).exists()


def test_an_eval_set_whose_records_do_not_fit_together_is_refused(tmp_path: Path) -> None:
    dataset = read_coco(write(tmp_path / "made") / "annotations.json")
    broken = replace(dataset, images=dataset.images[1:])
    with pytest.raises(DataError, match=r"is of image 900[\s\S]*made/annotations\.json"):
        write_tables(dataset, broken, tmp_path / "made", tmp_path / "tables")
