"""A dataset in tiles: where its boxes go, that none is lost, and the same files each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.coco import Annotation, Category, CocoDataset, Image, read_coco, write_coco
from pipeline.data.tile_cutting import LEAST_VISIBLE, CutDataset, cut_tiles
from pipeline.errors import DataError, MissingError
from pipeline.serving.tiling import Tile, Tiling

TILING = Tiling(100, 0.2)
Row = tuple[float, float, float, float]  # x, y, width, height
Placed = tuple[str, Row, int]  # the file in the new dataset, its box, and whether it is not judged


def dataset(folder: Path, sizes: Sequence[tuple[int, int]], boxes: Sequence[Sequence[Row]], crowds: int = 0) -> Path:
    """Images of noise with such boxes, of which the last ones are crowds."""
    (folder / "images").mkdir(parents=True)
    rng, annotations = np.random.default_rng(0), []
    images = tuple(Image(number, f"{number}.png", *size) for number, size in enumerate(sizes, 7))
    for image, rows in zip(images, boxes, strict=True):
        cv2.imwrite(str(folder / "images" / image.file_name), rng.integers(0, 255, (image.height, image.width, 3)))
        annotations += [
            Annotation(len(annotations) + i, image.id, 1, row, row[2] * row[3] / 2) for i, row in enumerate(rows, 1)
        ]
    count = len(annotations)
    marked = (
        each if each.id <= count - crowds else Annotation(each.id, each.image_id, 1, each.bbox, each.area, 1)
        for each in annotations
    )
    write_coco(CocoDataset(images, tuple(marked), (Category(1, "disc"),)), folder / "annotations.json")
    return folder


def placed(cut: CutDataset) -> list[Placed]:
    names = {image.id: image.file_name for image in cut.dataset.images}
    return [(names[each.image_id], each.bbox, each.iscrowd) for each in cut.dataset.annotations]


BOXES: dict[str, tuple[list[Row], int, list[Placed]]] = {
    "whole in one tile": (
        [(10, 20, 30, 30)],
        0,
        [("whole/7.png", (10, 20, 30, 30), 0), ("tiles/7.png.0_0.png", (10, 20, 30, 30), 0)],
    ),
    "no larger than what tiles share": (
        [(10, 20, 20, 20)],
        0,
        [("whole/7.png", (10, 20, 20, 20), 1), ("tiles/7.png.0_0.png", (10, 20, 20, 20), 0)],
    ),
    "whole in both": (
        [(82, 0, 10, 10)],
        0,
        [
            ("whole/7.png", (82, 0, 10, 10), 1),
            ("tiles/7.png.0_0.png", (82, 0, 10, 10), 0),
            ("tiles/7.png.80_0.png", (2, 0, 10, 10), 0),
        ],
    ),
    "most of it in one, a part in the other": (
        [(77, 0, 20, 10)],
        0,
        [
            ("whole/7.png", (77, 0, 20, 10), 1),
            ("tiles/7.png.0_0.png", (77, 0, 20, 10), 0),
            ("tiles/7.png.80_0.png", (0, 0, 17, 10), 0),
        ],
    ),
    "too little of it in the other": (
        [(70, 0, 20, 10)],
        0,
        [
            ("whole/7.png", (70, 0, 20, 10), 1),
            ("tiles/7.png.0_0.png", (70, 0, 20, 10), 0),
            ("tiles/7.png.80_0.png", (0, 0, 10, 10), 1),
        ],
    ),
    "larger than a tile": (
        [(0, 0, 180, 50), (85, 52, 8, 8)],
        0,
        [
            ("whole/7.png", (0, 0, 180, 50), 0),
            ("whole/7.png", (85, 52, 8, 8), 1),
            ("tiles/7.png.0_0.png", (0, 0, 100, 50), 1),
            ("tiles/7.png.0_0.png", (85, 52, 8, 8), 0),
            ("tiles/7.png.80_0.png", (0, 0, 100, 50), 1),
            ("tiles/7.png.80_0.png", (5, 52, 8, 8), 0),
        ],
    ),
    "a crowd": (
        [(10, 20, 30, 30), (50, 20, 30, 30)],
        1,
        [
            ("whole/7.png", (10, 20, 30, 30), 0),
            ("whole/7.png", (50, 20, 30, 30), 1),
            ("tiles/7.png.0_0.png", (10, 20, 30, 30), 0),
            ("tiles/7.png.0_0.png", (50, 20, 30, 30), 1),
        ],
    ),
}


@cases("boxes, crowds, expected", BOXES)
def test_where_boxes_go(boxes: list[Row], crowds: int, expected: list[Placed], tmp_path: Path) -> None:
    """Of an image of 180 x 60 pixels, whose two tiles share 20."""
    source = dataset(tmp_path / "source", [(180, 60)], [boxes], crowds)
    assert placed(cut_tiles(source, tmp_path / "cut", TILING)) == expected


def test_the_files(tmp_path: Path) -> None:
    """Tiles have the image's pixels, whole images are links, and a second time gives the same bytes."""
    source = dataset(tmp_path / "source", [(180, 60), (90, 100)], [[(10, 20, 30, 30)], [(1, 2, 3, 4)]])
    cut = cut_tiles(source, tmp_path / "cut", TILING)
    names = ["whole/7.png", "tiles/7.png.0_0.png", "tiles/7.png.80_0.png", "whole/8.png"]
    assert [image.file_name for image in cut.dataset.images] == names
    assert [(image.width, image.height) for image in cut.dataset.images] == [(180, 60), (100, 60), (100, 60), (90, 100)]
    assert cut.tiles == 2
    assert read_coco(cut.folder / "annotations.json") == cut.dataset
    assert [each.area for each in cut.dataset.annotations] == [450, 450, 6], "of a mask, as much as is visible"
    pixels = cv2.imread(str(source / "images/7.png"))
    np.testing.assert_array_equal(cv2.imread(str(cut.folder / "images" / names[2])), pixels[:, 80:])
    assert (cut.folder / "images" / names[0]).samefile(source / "images/7.png")
    cut_tiles(source, tmp_path / "again", TILING)
    for path in ["annotations.json", *(f"images/{name}" for name in names)]:
        assert (tmp_path / "again" / path).read_bytes() == (cut.folder / path).read_bytes()


def test_no_more_tiles_without_an_object_than_with_one(tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", [(500, 500), (500, 500)], [[(10, 20, 30, 30)], []])
    cut = cut_tiles(source, tmp_path / "cut", TILING)
    assert [image.file_name for image in cut.dataset.images if image.file_name.startswith("whole/")] == [
        "whole/7.png",
        "whole/8.png",
    ]
    assert cut.tiles == 2


WRONG: dict[str, Any] = {
    "another size than annotated": (lambda path: cv2.imwrite(str(path), np.zeros((50, 50, 3))), DataError, "50 x 50"),
    "no image": (lambda path: path.write_bytes(b"GIF89a"), DataError, "cannot be decoded"),
    "missing": (lambda path: path.unlink(), MissingError, "is missing"),
}


@cases("damage, kind, message", WRONG)
def test_an_image_that_cannot_be_cut(damage: Any, kind: type[Exception], message: str, tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", [(180, 60)], [[(10, 20, 30, 30)]])
    damage(source / "images/7.png")
    with pytest.raises(kind, match=message):
        cut_tiles(source, tmp_path / "cut", TILING)


@st.composite
def large_images(draw: st.DrawFn) -> tuple[Tiling, int, int, list[Row]]:
    width, height = draw(st.integers(20, 260)), draw(st.integers(20, 260))
    rows = []
    for _ in range(draw(st.integers(1, 5))):
        x, y = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
        rows.append(
            (float(x), float(y), float(draw(st.integers(1, width - x))), float(draw(st.integers(1, height - y))))
        )
    return Tiling(draw(st.integers(32, 100)), draw(st.floats(0, 0.5))), width, height, rows


@given(large_images())
@settings(max_examples=60, deadline=None)
def test_every_object_is_there_and_maps_back(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[Tiling, int, int, list[Row]]
) -> None:
    """Each is an object somewhere; a view has it where enough is visible; and a whole one maps back exactly."""
    tiling, width, height, rows = case
    folder = tmp_path_factory.mktemp("large")
    cut = cut_tiles(dataset(folder / "source", [(width, height)], [rows]), folder / "cut", tiling)
    views = {"whole/7.png": Tile(0, 0, width, height)}
    views |= {f"tiles/7.png.{each.left}_{each.top}.png": each for each in tiling.tiles(width, height)}
    objects: dict[str, set[Row]] = {name: set() for name in views}
    for name, (x, y, w, h), crowd in placed(cut):
        if not crowd:
            objects[name].add((x + views[name].left, y + views[name].top, w, h))
    for x, y, w, h in rows:
        is_whole = [(x, y, w, h) in found for found in objects.values()]
        assert any(is_whole), "whole in a tile, or else in the whole image"
        for name, view in views.items():
            left, top = max(x, view.left), max(y, view.top)
            right, bottom = min(x + w, view.right), min(y + h, view.bottom)
            share = max(0, right - left) * max(0, bottom - top) / (w * h)
            if name.startswith("tiles/"):
                visible = (left, top, right - left, bottom - top)
                assert (visible in objects[name]) == (share >= LEAST_VISIBLE) or visible in rows_clipped(rows, view)


def rows_clipped(rows: Sequence[Row], view: Tile) -> set[Row]:
    """What a view shows of other boxes may be the same."""
    found = set()
    for x, y, w, h in rows:
        left, top = max(x, view.left), max(y, view.top)
        right, bottom = min(x + w, view.right), min(y + h, view.bottom)
        found.add((left, top, right - left, bottom - top))
    return found
