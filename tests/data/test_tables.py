from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.data.checks.validation import validate
from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.conversion import select
from pipeline.data.split.dataset_split import split
from pipeline.data.tables import Exclusion, exclude, exclusions_table, read_exclusions, write_exclusions
from pipeline.errors import DataError, UsageError

TWO = (Exclusion(80, 159, "nobody annotated them"), Exclusion(5, 60, "background above max_empty_share", "train"))


def test_exclusions_are_logged_and_kept_beside_a_data_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert exclude({"a": 0, "b": 2}, 9, subset="train") == (Exclusion(2, 9, "b", "train"),)
    assert caplog.messages == ["2 of 9 images excluded from train: b"]
    write_exclusions(tmp_path, ())
    assert (list(tmp_path.iterdir()), read_exclusions(tmp_path)) == ([], ())
    write_exclusions(tmp_path, TWO)
    assert read_exclusions(tmp_path) == TWO


def test_a_table_is_aligned() -> None:
    assert str(exclusions_table(TWO)).splitlines() == [
        "Images excluded",
        "excluded  of images  set    why",
        "      80        159  all    nobody annotated them",
        "       5         60  train  background above max_empty_share",
    ]
    assert str(exclusions_table(())) == "No image was excluded"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Files of pictures: ten of noise, one of them twice, one of them encoded anew; a broken one; one is absent."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 255, (10, 6, 9, 3), np.uint8)
    for i, each in enumerate(noise):
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(each, (90, 60), interpolation=cv2.INTER_CUBIC))
    (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())
    cv2.imwrite(str(folder / "again.jpg"), cv2.imread(str(folder / "2.png")), [cv2.IMWRITE_JPEG_QUALITY, 80])
    (folder / "broken.png").write_bytes((folder / "3.png").read_bytes()[:-500])
    return folder


FILES = [*(f"{i}.png" for i in range(10)), "copy.png", "again.jpg", "broken.png", "absent.png"]
records = st.tuples(
    st.sampled_from(FILES), st.sets(st.integers(1, 3), max_size=2), st.sampled_from(["", "train", "eval", "test"])
)
shown = st.lists(records, min_size=8, max_size=20) | st.lists(records, min_size=8, unique_by=lambda each: each[0])

STRADDLING = [("2.png", {1}, "train"), ("again.jpg", {1}, "test"), *((f"{i}.png", {1}, "train") for i in range(3, 10))]


@settings(deadline=None)
@example(STRADDLING, {}, (), 0, "balanced", 1.0, set())
@given(
    shown,
    st.sampled_from([{}, {"image-without-box": "drop"}, {"near-duplicate-image": "drop"}]),
    st.sampled_from([(), ("a",), ("b", "c")]),
    st.sampled_from([0, 0, 4, 9]),
    st.sampled_from(["balanced", "stable"]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sets(st.sampled_from(FILES), max_size=2),
)
def test_images_loaded_are_those_excluded_and_those_in_the_sets(
    pictures: Any, shown: Any, actions: Any, classes: Any, max_images: Any, mode: Any, most: Any, reserved: Any
) -> None:
    images = tuple(
        Image(i, name, 90, 60, {"subset": subset} if subset else {}) for i, (name, _, subset) in enumerate(shown, 1)
    )
    pairs = [(i, label) for i, (_, labels, _) in enumerate(shown, 1) for label in sorted(labels)]
    boxes = tuple(Annotation(n, i, label, (9.0 * label, 9, 30, 30), 900) for n, (i, label) in enumerate(pairs, 1))
    loaded = CocoDataset(images, boxes, (Category(1, "a"), Category(2, "b"), Category(3, "c")))
    try:
        checked = validate(loaded, pictures, actions=actions, reserved=reserved)
        chosen, left_out = select(checked.dataset, classes=classes, max_images=max_images, reserved=reserved)
        parts = split(
            chosen,
            mode=mode,
            train_share=0.5,
            eval_share=0.25,
            test_names=reserved & {image.file_name for image in chosen.images},
            groups=checked.groups,
            max_empty_share=most,
        )
    except (DataError, UsageError):
        return
    excluded = (*checked.exclusions, *left_out, *parts.exclusions)
    left = sum(len(part.images) for part in (parts.train, parts.eval, parts.test))
    assert sum(each.count for each in excluded) == len(loaded.images) - left
    assert all(0 < each.count <= each.of for each in excluded)
    if shown is STRADDLING:
        assert list(map(str, excluded)) == [
            "1 of 9 images excluded: they look like, or belong to, images of another set"
        ]
