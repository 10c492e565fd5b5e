"""Pictures that only LabelMe's JSON files have, as loading sees them."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from folders import contents_of, fill
from pictures import picture

from pipeline.data.coco import read_coco
from pipeline.data.loading import load_annotations, load_source
from pipeline.data.sources.loaded_source import LoadedSource
from pipeline.errors import DataError

JPEG, PNG = picture("JPEG"), picture(seed=1)


def labelled(image: str, data: bytes | str | None, box: int = 4) -> bytes:
    text = base64.b64encode(data).decode() if isinstance(data, bytes) else data
    shape = {"label": "cat", "points": [[1, 2], [1 + box, 2 + box]], "shape_type": "rectangle", "flags": {}}
    return json.dumps({"shapes": [shape], "imagePath": image, "imageData": text}).encode()


def load(source: Path, folder: Path) -> tuple[LoadedSource, dict[str, bytes], dict[str, list[Any]]]:
    """What was loaded, the images, and the boxes by image."""
    paths: Any = {"images": folder / "images", "annotations": folder / "markup", "cache": folder / "cache"}
    loaded = load_source(str(source), **paths)
    load_annotations(loaded, folder / "out", **paths)
    dataset = read_coco(folder / "out/annotations.json")
    boxes = {
        image.file_name: [list(each.bbox) for each in dataset.by_image().get(image.id, [])] for image in dataset.images
    }
    return loaded, contents_of(folder / "images"), boxes


@cases(
    "path, stored",
    {
        "beside": ("0.jpg", "0.jpg"),
        "another name": ("IMG_7.JPG", "0.JPG"),
        "another folder": ("../photos/IMG_7.jpg", "0.jpg"),
        "of Windows": ("..\\photos\\IMG_7.jpg", "0.jpg"),
        "no suffix": ("IMG_7", "0.jpg"),
        "another suffix than its format": ("0.png", "0.png"),
    },
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_picture_is_taken_under_the_name_of_its_file(tmp_path: Path, path: str, stored: str, kind: str) -> None:
    contents = {"a/0.json": labelled(path, JPEG), "b/1.json": labelled("1.png", PNG, box=6)}
    source = fill(tmp_path / "source", contents)
    if kind == "zip":
        source = Path(shutil.make_archive(f"{tmp_path}/a", kind, source))
    loaded, images, boxes = load(source, tmp_path)
    assert images == {f"a/{stored}": JPEG, "b/1.png": PNG}
    assert boxes == {f"a/{stored}": [[1, 2, 4, 4]], "b/1.png": [[1, 2, 6, 6]]}
    assert loaded.notes == ("2 images are taken from the imageData of LabelMe's files",)


@cases(
    "image, path",
    {
        "beside": ("0.jpg", "0.jpg"),
        "beside, with another suffix": ("0.png", "0.jpg"),
        "beside, under its path's name": ("IMG_7.jpg", "IMG_7.jpg"),
        "in another folder": ("images/0.jpg", "0.jpg"),
        "in another folder, as the path says": ("images/IMG_7.jpg", "..\\images\\IMG_7.jpg"),
    },
)
def test_file_is_preferred(tmp_path: Path, image: str, path: str) -> None:
    source = fill(tmp_path / "source", {"0.json": labelled(path, JPEG), image: PNG})
    assert load(source, tmp_path)[1] == {image: PNG}


def test_only_absent_ones_are_taken(tmp_path: Path) -> None:
    contents = {f"{folder}/0.json": labelled("0.jpg", JPEG) for folder in "ab"} | {"a/0.jpg": PNG}
    contents |= {"b/none.json": labelled("none.jpg", None), "b/none.jpg": PNG}
    loaded, images, _ = load(fill(tmp_path / "source", contents), tmp_path)
    assert images == {"a/0.jpg": PNG, "b/0.jpg": JPEG, "b/none.jpg": PNG}
    assert loaded.remarks == ("1 images are taken from the imageData of LabelMe's files",)


@cases(
    "data, reason",
    {
        "no base64": ("&&&", "imageData of its LabelMe file is not base64"),
        "nothing": (None, "absent"),
    },
)
def test_broken_picture_is_said(tmp_path: Path, data: Any, reason: str) -> None:
    contents = {"0.json": labelled("0.jpg", data), "1.json": labelled("1.jpg", JPEG)}
    source = fill(tmp_path / "source", contents)
    with pytest.raises(DataError, match=reason):
        load(source, tmp_path)


def test_picture_that_is_none_stays_as_such_a_file_would(tmp_path: Path) -> None:
    contents = {"0.json": labelled("0.jpg", b"rubbish"), "1.json": labelled("1.jpg", JPEG)}
    assert load(fill(tmp_path / "source", contents), tmp_path)[1] == {"0.jpg": b"rubbish", "1.jpg": JPEG}


def test_picture_of_another_format_is_converted(tmp_path: Path) -> None:
    contents = {"0.json": labelled("0.tif", picture("TIFF", orientation=6))}
    loaded, images, boxes = load(fill(tmp_path / "source", contents), tmp_path)
    assert (list(images), list(boxes)) == (["0.tif.png"], ["0.tif.png"])
    assert loaded.renamed == {"0.tif": "0.tif.png"}


def test_other_json_files_are_left_alone(tmp_path: Path) -> None:
    contents = {
        "a.json": b'{"imageData": 1, "shapes": 2, "imagePath": 3',
        "b.json": b"",
        "c.json": b"[]",
        "0.jpg": JPEG,
    }
    contents |= {"0.json": labelled("0.jpg", PNG)}
    paths: Any = {"images": tmp_path / "images", "annotations": tmp_path / "markup", "cache": tmp_path / "cache"}
    assert load_source(str(fill(tmp_path / "source", contents)), **paths).images == 1
