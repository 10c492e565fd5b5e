"""The packed test image: the service agrees with its record, and a changed record is noticed."""

import json
import shutil

import pytest

from pipeline.evaluation.agreement import _pair, check_test_image
from pipeline.evaluation.service_process import serve


def test_a_packed_service_agrees_with_its_record(served):
    check = check_test_image(served.url)
    assert check.agrees
    assert (check.detections, check.recorded, check.unmatched) == (1, 1, 0)
    assert check.max_box_difference_px < 0.05
    assert check.max_score_difference < 1e-3


def test_a_service_that_changed_since_packing_is_noticed(bento, tmp_path):
    changed = tmp_path / "bento"
    shutil.copytree(bento, changed)
    (record,) = changed.rglob("test_result.json")
    result = json.loads(record.read_text())
    result["detections"][0]["box"][0] += 2.5
    result["detections"].append({"box": [1, 1, 9, 9], "score": 0.4, "label": "bright", "class_id": 1})
    record.write_text(json.dumps(result))
    with serve(changed) as server:
        check = check_test_image(server.url)
    assert not check.agrees
    assert check.max_box_difference_px == pytest.approx(2.5, abs=1e-3)
    assert (check.detections, check.recorded, check.unmatched) == (1, 2, 1)


def test_equal_scores_in_another_order_are_paired_by_place():
    one = {"box": [0, 0, 9, 9], "score": 0.5, "label": "cat"}
    two = {"box": [50, 0, 60, 9], "score": 0.5, "label": "cat"}
    dog = {"box": [50, 0, 60, 9], "score": 0.5, "label": "dog"}
    assert _pair([one, two], [two, one, dog]) == ([(one, one), (two, two)], [dog])
