"""A data set named by its annotation file: what is loaded, what is said, and where the images lie elsewhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from cases import cases
from folders import contents_of, fill
from pictures import picture

from pipeline.data.loading import LoadedAnnotations, load_annotations, load_source
from pipeline.data.sources.loaded_source import LoadedSource
from pipeline.errors import DataError, MissingError, UsageError

JPEG, OTHER = picture("JPEG"), picture("JPEG", seed=1)
VOC = (
    b"<annotation><filename>a.jpg</filename><size><width>40</width><height>20</height></size><object><name>%s</name>"
    b"<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
)
YOLO = {
    "images/a.jpg": JPEG,
    "images/b.jpg": OTHER,
    "labels/a.txt": b"0 0.5 0.5 0.2 0.2",
    "labels/b.txt": b"0 0.5 0.5 0.2 0.2",
    "data.yaml": b"names: [cat]\ntrain: images\nval: images",
    "old.yaml": b"names: [dog]",
}


def coco(name: str) -> bytes:
    images = [{"id": i, "file_name": f"{each}.jpg", "width": 40, "height": 20} for i, each in enumerate("ab", 1)]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}]
    return json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": name}]}).encode()


def load(url: object, folder: Path, annotations: object = "", **options: Any) -> tuple[LoadedSource, LoadedAnnotations]:
    paths: Any = {"images": folder / "images", "annotations": folder / "markup", "cache": folder / "cache"}
    loaded = load_source(str(url), **paths, **options)
    return loaded, load_annotations(loaded, folder / "out", **paths, url=str(annotations))


@cases(
    "name, contents, images, classes",
    {
        "data.yaml": ("data.yaml", YOLO, 2, ("cat",)),
        "another data.yaml": ("old.yaml", YOLO, 2, ("dog",)),
        "COCO": ("b.json", {"a.json": coco("cat"), "b.json": coco("dog"), "a.jpg": JPEG, "b.jpg": OTHER}, 2, ("dog",)),
        "VOC": ("b.xml", {"a.xml": VOC % b"cat", "b.xml": VOC % b"dog", "a.jpg": JPEG}, 1, ("dog",)),
        "CSV": (
            "b.csv",
            {
                "a.csv": b"filename,xmin,ymin,xmax,ymax,class\na.jpg,1,1,9,9,cat\n",
                "b.csv": b"filename,xmin,ymin,xmax,ymax,class\na.jpg,1,1,9,9,dog\n",
                "a.jpg": JPEG,
            },
            1,
            ("dog",),
        ),
    },
)
@pytest.mark.parametrize("place", ["path", "file URL", "working directory", "elsewhere"])
def test_folder_is_taken_and_that_file_alone_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, name: str, contents: Any, images: int, classes: Any
) -> None:
    source = fill(tmp_path / "source", contents)
    url = {"path": source / name, "file URL": (source / name).as_uri(), "working directory": name}.get(place)
    if place == "elsewhere":
        system = fsspec.filesystem("memory")
        url = f"memory://{tmp_path.name}/{name}"
        for each, data in contents.items():
            system.pipe_file(f"memory://{tmp_path.name}/{each}", data)
    monkeypatch.chdir(source)
    loaded, annotations = load(url, tmp_path)
    assert (loaded.kind, loaded.member) == ("folder", name)
    assert (annotations.images, annotations.classes) == (images, classes)
    assert loaded.notes[0] == f"the source is the folder of {name}, and that file its annotations"
    assert set(contents_of(tmp_path / "images")) == {each for each in contents if each.endswith(".jpg")}


def test_other_annotations_may_be_named(tmp_path: Path) -> None:
    source = fill(tmp_path / "source", {"a.json": coco("cat"), "a.jpg": JPEG, "b.jpg": OTHER})
    fill(tmp_path, {"other.json": coco("dog")})
    assert load(source / "a.json", tmp_path, tmp_path / "other.json")[1].classes == ("dog",)


def test_digest_is_that_of_the_file(tmp_path: Path) -> None:
    file = fill(tmp_path / "source", YOLO) / "data.yaml"
    digest = hashlib.sha256(YOLO["data.yaml"]).hexdigest()
    assert load(file, tmp_path / "right", sha256=digest)[1].images == 2
    with pytest.raises(DataError, match="SHA-256"):
        load(file, tmp_path / "wrong", sha256=digest[::-1])


def test_odd_name(tmp_path: Path) -> None:
    source = fill(tmp_path / "source", {"a\tb.json": coco("dog"), "c.json": coco("cat"), "a.jpg": JPEG, "b.jpg": OTHER})
    assert load(source / "a\tb.json", tmp_path)[1].classes == ("dog",)


@cases(
    "name, error, match",
    {
        "misspelt": ("dat.yaml", MissingError, "did you mean 'data.yaml'"),
        "a placeholder that is not set": ("${NOT_SET}/data.yaml", UsageError, "NOT_SET"),
    },
)
def test_no_such_file(tmp_path: Path, name: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        load(fill(tmp_path / "source", YOLO) / name, tmp_path)


def test_folder_that_is_named_like_a_file(tmp_path: Path) -> None:
    source = fill(tmp_path / "data.yaml", YOLO | {"old.yaml": b"names: [cat]"})
    loaded = load_source(str(source), tmp_path / "images", tmp_path / "markup", cache=tmp_path / "cache")
    assert (loaded.images, loaded.member) == (2, "")


def test_web_server_lists_no_folder(tmp_path: Path, server: Any) -> None:
    """The remedy works: the images from here, the annotations from there."""
    url = server.file("/a.json", coco("cat"))
    with pytest.raises(DataError, match="web server") as caught:
        load(url, tmp_path / "before")
    assert "this URL in annotations_url" in caught.value.remedy
    source = fill(tmp_path / "source", {"a.jpg": JPEG, "b.jpg": OTHER})
    assert load(source, tmp_path / "after", url)[1].images == 2


@cases(
    "text",
    {
        "relative": "path: ../datasets/street\ntrain: images\nval: images",
        "absolute": "path: {root}\ntrain: images",
        "from the working directory": "path: datasets/street\ntrain: images",
        "no path": "train: ../datasets/street/images\nval: ../datasets/street/images",
        "lists": "path: ../datasets/street\ntrain: [images]",
        "a list of images": "path: ../datasets/street\ntrain: train.txt",
        "only a path": "path: ../datasets/street",
    },
)
def test_images_elsewhere_with_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    root = fill(tmp_path / "datasets/street", {name: YOLO[name] for name in YOLO if "yaml" not in name})
    fill(root, {"train.txt": b"./images/a.jpg\n./images/b.jpg\n"})
    yaml = "names: [cat]\n" + text.replace("{root}", str(root))
    file = fill(tmp_path / "configs", {"data.yaml": yaml.encode()}) / "data.yaml"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="in another folder") as caught:
        load("configs/data.yaml", tmp_path / "before")
    assert caught.value.remedy == f"name {root} as the source, and {file} in annotations_url"
    assert load(root, tmp_path / "after", file)[1].classes == ("cat",)


@cases(
    "text",
    {
        "Roboflow": "train: ../images\nval: ../images",
        "a path that is no longer there": "path: /home/somebody/street\ntrain: images",
        "a path that is there, beside images that are here": "path: ..\ntrain: images",
        "its own folder": "path: .\ntrain: images",
    },
)
def test_images_beside_it_count(tmp_path: Path, text: str) -> None:
    fill(tmp_path, {"images/x.jpg": JPEG})
    source = fill(tmp_path / "source", YOLO | {"data.yaml": b"names: [cat]\n" + text.encode()})
    assert load(source / "data.yaml", tmp_path / "out")[1].images == 2


def test_folder_without_images_says_what_to_type(tmp_path: Path) -> None:
    """COCO's own layout: the annotations are in a folder of their own."""
    source = fill(tmp_path / "coco", {"annotations/a.json": coco("cat"), "images/a.jpg": JPEG, "images/b.jpg": OTHER})
    file = source / "annotations/a.json"
    with pytest.raises(DataError, match="there are no images") as caught:
        load(file, tmp_path / "before")
    assert caught.value.remedy == f"name the folder of the images as the source, and {file} in annotations_url"
    assert load(source / "images", tmp_path / "after", file)[1].images == 2
