"""Of every format and source: an image with an object, one said to have none, and one that nobody annotated."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pictures
import pytest
from api_server import api_server
from cases import cases
from clips import write_clip
from written_formats import SAYS_EMPTY, WRITERS

from pipeline.data.coco import Annotation, Category, CocoDataset, Image, read_coco
from pipeline.data.loading import LoadedAnnotations, load_annotations, load_source
from pipeline.data.sources.video import Sampling
from pipeline.data.tables import read_exclusions
from pipeline.errors import DataError

LINE_NAME, OPEN_NAME = "line.png", "open.png"  # open: as tools call a task that nobody has done
NAMES = ("object.png", "nothing.png", OPEN_NAME)
WITH_LINE = ("object.png", "nothing.png", LINE_NAME, OPEN_NAME)
SIZE = {"width": 60, "height": 40}


@dataclass
class Given:
    """A source, the settings it needs, and its images."""

    url: str
    source: dict[str, Any]
    annotations: dict[str, Any]
    names: tuple[str, ...] = NAMES


def picture(name: str) -> bytes:
    return pictures.picture(size=(60, 40), seed=int.from_bytes(name.encode()))


WRITTEN = CocoDataset(
    tuple(Image(i, name, 60, 40) for i, name in enumerate(NAMES[:2], 1)),
    (Annotation(1, 1, 1, (5.0, 5.0, 20.0, 20.0), 400.0),),
    (Category(1, "cat"),),
)


def in_folder(folder: Path, writer: str = "", files: Mapping[str, Any] = {}) -> Given:
    """The pictures, annotations of the first two as a format has them, and these files beside or instead."""
    if writer:
        WRITERS[writer][1](WRITTEN, folder)
    names = WITH_LINE if LINE_NAME in str(files) else NAMES
    for name, content in {**{f"images/{name}": picture(name) for name in names}, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Given(str(folder), {}, {}, names)


def coco(names: tuple[str, ...], **fields: Any) -> dict[str, Any]:
    images = [{"id": i, "file_name": name, **SIZE} for i, name in enumerate(names, 1)]
    images[-1] |= fields
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
    return {"images": images, "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}


def labelme(name: str, *shapes: dict[str, Any]) -> dict[str, Any]:
    return {"imagePath": name, "shapes": list(shapes), "imageWidth": 60, "imageHeight": 40}


def shape(kind: str = "rectangle") -> dict[str, Any]:
    return {"label": "cat", "points": [[5, 5], [25, 25]], "shape_type": kind}


def cvat(name: str, inside: str) -> str:
    return f'<annotations><image name="{name}" width="60" height="40">{inside}</image></annotations>'


FOLDERS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in sorted(SAYS_EMPTY)},
    "coco, marked": ("", {"all.json": coco(NAMES, unannotated=True)}),
    "yolo, a folder of data.yaml": ("yolo", {"data.yaml": "names: [cat]\ntrain: images\n"}),
    "yolo, all in a list": ("yolo", {"train.txt": "".join(f"images/{name}\n" for name in NAMES)}),
    "labelme": ("labelme", {"line.json": labelme(LINE_NAME, shape("line"))}),
    "cvat": ("cvat", {"line.xml": cvat(LINE_NAME, '<polyline label="cat" points="5,5;5,25"/>')}),
}


def frames(folder: Path, annotations: str | dict[str, Any], names: tuple[str, ...] = NAMES) -> Given:
    """A clip of these frames."""
    folder.mkdir()
    shown = [cv2.imdecode(np.frombuffer(picture(name), np.uint8), cv2.IMREAD_COLOR) for name in names]
    write_clip(folder / "street.mkv", shown, rate=1)
    name = "all.xml" if isinstance(annotations, str) else "all.json"
    (folder / name).write_text(annotations if isinstance(annotations, str) else json.dumps(annotations))
    return Given(str(folder / "street.mkv"), {"sampling": Sampling(0)}, {"url": str(folder / name)}, names)


TRACKS = (
    "<annotations><meta><task><size>3</size><start_frame>0</start_frame><stop_frame>2</stop_frame><source>street.mkv"
    '</source></task></meta><track id="0" label="cat"><box frame="0" outside="0" occluded="0" keyframe="1" xtl="5" '
    'ytl="5" xbr="25" ybr="25"/>'
    '</track><track id="1" label="cat"><points frame="2" outside="0" keyframe="1" points="5,5"/></track></annotations>'
)


def database(folder: Path, create: str, rows: list[tuple[Any, ...]], query: str) -> Given:
    folder.mkdir()
    with sqlite3.connect(folder / "a.db") as opened:
        opened.execute(create)
        for row in rows:
            opened.execute(f"insert into pictures values ({', '.join('?' * len(row))})", row)
    return Given(f"sqlite:///{folder / 'a.db'}", {"query": query}, {})


def lists_in_database(folder: Path) -> Given:
    """NULL says nothing, an empty list that there is nothing."""
    told = zip(NAMES, ("[[5, 5, 20, 20]]", "[]", None), ('["cat"]', "[]", None), strict=True)
    rows = [(name, picture(name), boxes, labels) for name, boxes, labels in told]
    return database(folder, "create table pictures (name, image, boxes, labels)", rows, "select * from pictures")


def rows_in_database(folder: Path) -> Given:
    """An image listed with a NULL box has nothing in it; what is to be open says so in a column."""
    told = zip(NAMES, (5, None, None), ("cat", None, None), (0, 0, 1), strict=True)
    rows = [(name, picture(name), at, label, is_open) for name, at, label, is_open in told]
    query = "select name, image, at as x, at as y, 4 * at as width, 4 * at as height, label, unannotated from pictures"
    return database(folder, "create table pictures (name, image, at, label, unannotated)", rows, query)


BOX = {"bbox": [5, 5, 20, 20], "label": "cat"}
NO_LABEL = {**BOX, "label": None}


def api(server: Any, items: list[dict[str, Any]], boxes: str = "boxes", names: tuple[str, ...] = WITH_LINE) -> Given:
    rows = [{"image": f"/files/{name}", **item} for name, item in zip(names, items, strict=True)]
    settings = {"boxes": boxes, "requests_per_second": "0"}
    return Given(f"api+{server.json('/items', rows)}", {"api": settings}, {}, names)


def label_studio(server: Any) -> Given:
    value = {"x": 10, "y": 10, "width": 30, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}
    size = {"original_width": 60, "original_height": 40}
    box = {"type": "rectanglelabels", **size, "value": value, "to_name": "image"}
    brush = {"type": "brushlabels", "value": {"rle": [1], "format": "rle", "brushlabels": ["cat"]}}
    annotations = [[{"id": 1, "result": [box]}], [{"id": 2, "result": []}], [{"id": 3, "result": [brush]}], []]
    tasks = [
        {"id": i, "data": {"image": f"/files/{name}"}, "annotations": done}
        for i, (name, done) in enumerate(zip(WITH_LINE, annotations, strict=True))
    ]
    server.json("/api/projects/3/export", tasks)
    return Given(f"label-studio+{server.root}/projects/3", {"api": {"requests_per_second": "0"}}, {}, WITH_LINE)


FRAME_NAMES = tuple(f"street/frame_{number:06d}.jpg" for number in range(4))
SOURCES = {
    "video, COCO": lambda folder, _: frames(folder, coco(FRAME_NAMES[:2])),
    "video, CVAT's task of three frames": lambda folder, _: frames(folder, TRACKS, WITH_LINE),
    "database, lists": lambda folder, _: lists_in_database(folder),
    "database, rows": lambda folder, _: rows_in_database(folder),
    "API": lambda _, server: api(server, [{"boxes": each} for each in ([BOX], [], [NO_LABEL], None)]),
    "Label Studio": lambda _, server: label_studio(server),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0123456789abcdef")
    with api_server() as opened:
        for name in WITH_LINE:
            opened.file(f"/files/{name}", picture(name))
        yield opened


@pytest.fixture(params=[*FOLDERS, *SOURCES])
def given(request: pytest.FixtureRequest, tmp_path: Path, server: Any) -> Given:
    if request.param in FOLDERS:
        return in_folder(tmp_path / "in", *FOLDERS[request.param])
    return SOURCES[request.param](tmp_path / "in", server)


def load(given: Given, place: Path, unannotated: str, **options: Any) -> tuple[LoadedAnnotations, CocoDataset]:
    images, markup, cache, out = (place / name for name in ("images", "markup", "cache", "out"))
    raw = load_source(given.url, images, markup, cache=cache, unannotated=unannotated, **given.source)
    folders = {"images": images, "annotations": markup, "cache": cache}
    options |= given.annotations
    return load_annotations(raw, out, unannotated=unannotated, **folders, **options), read_coco(
        out / "annotations.json"
    )


def told(dataset: CocoDataset, names: tuple[str, ...] = NAMES) -> dict[str, int]:
    """Boxes by the image's name, frames called like the pictures they are made of."""
    boxes = dataset.by_image()
    called = dict(zip(FRAME_NAMES, names, strict=False))
    return {
        called.get(image.file_name, image.file_name.rpartition("/")[2]): len(boxes[image.id])
        for image in dataset.images
    }


@pytest.mark.parametrize("unannotated", ["exclude", "background"])
def test_what_nobody_annotated_is_excluded_or_background_as_the_user_says(
    given: Given, tmp_path: Path, unannotated: str
) -> None:
    """An image that shows only shapes that are no boxes is neither."""
    loaded, dataset = load(given, tmp_path / "out", unannotated)
    kept, count, has_line = unannotated == "background", len(given.names), LINE_NAME in given.names
    assert told(dataset, given.names) == {"object.png": 1, "nothing.png": 0} | ({OPEN_NAME: 0} if kept else {})
    assert (loaded.images, loaded.unannotated_images, loaded.unusable_images) == (2 + kept, 1, int(has_line))
    notes = [f"1 of {count} images excluded: nothing drawn on them can be used as a box"] if has_line else []
    nobody = "nobody annotated them"
    excluded = notes if kept else [f"1 of {count} images excluded: {nobody}", *notes]
    exclusions = read_exclusions(tmp_path / "out/out")
    assert [str(each) for each in exclusions if each.what == "images"] == excluded
    boxes = 1 + sum(each.count for each in exclusions if each.what == "boxes")
    assert loaded.notes[1] == f"boxes: {boxes} loaded = 1 kept + {boxes - 1} excluded"
    assert boxes == 1 + has_line
    taken = [f"1 of {count} images are taken as background: {nobody}"] if kept else []
    assert loaded.notes[0] == f"images: {count} loaded = {2 + kept} kept + {count - 2 - kept} excluded"
    assert [note for note in loaded.notes if f"of {count} images" in note] == excluded + taken
    assert not any({"unannotated", "left_out"} & image.extra.keys() for image in dataset.images)
    assert {(image.width, image.height) for image in dataset.images} == {(60, 40)}
    assert len({image.id for image in dataset.images}) == 2 + kept


@pytest.mark.parametrize("flags", [{}, {"crowd": True}], ids=["a box", "a crowd region"])
def test_a_line_beside_a_box_changes_nothing(tmp_path: Path, flags: dict[str, bool]) -> None:
    beside = labelme("nothing.png", {**shape(), "flags": flags}, shape("line"))
    loaded, dataset = load(in_folder(tmp_path / "in", "labelme", {"nothing.json": beside}), tmp_path / "out", "exclude")
    assert (told(dataset)["nothing.png"], loaded.unusable_images) == (1, 0)


def test_a_tag_is_not_drawn_on_an_image(tmp_path: Path) -> None:
    tagged = {"tag.xml": cvat(OPEN_NAME, '<tag label="cat"/>')}
    loaded, dataset = load(in_folder(tmp_path / "in", "cvat", tagged), tmp_path / "out", "exclude")
    assert (told(dataset)[OPEN_NAME], loaded.unusable_images) == (0, 0)


def test_an_item_without_a_box_is_background_where_an_item_is_a_box(tmp_path: Path, server: Any) -> None:
    items = [BOX, {"bbox": None, "label": None}, {"bbox": None, "label": "cat"}]
    loaded, dataset = load(api(server, items, ".", NAMES), tmp_path / "out", "exclude")
    assert told(dataset) == {"object.png": 1, "nothing.png": 0}
    assert (loaded.unannotated_images, loaded.unusable_images) == (0, 1)


def test_a_frame_taken_as_background_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    _, dataset = load(frames(tmp_path / "in", coco(FRAME_NAMES[:2])), tmp_path / "out", "background")
    assert [image.extra["frame"] for image in dataset.images] == [0, 1, 2]
    assert {image.extra["video"] for image in dataset.images} == {"street.mkv"}


@pytest.mark.parametrize("unannotated", ["exclude", "background"])
@cases(
    "folder, names, why",
    {
        "not annotated": (FOLDERS["yolo"], ["nothing.png", OPEN_NAME], "nobody annotated them"),
        "no box": (FOLDERS["labelme"], [LINE_NAME], "nothing drawn on them can be used as a box"),
    },
)
def test_a_test_list_names_nothing_that_is_excluded(
    tmp_path: Path, folder: tuple[str, dict[str, Any]], names: list[str], why: str, unannotated: str
) -> None:
    given = in_folder(tmp_path / "in", *folder)
    (tmp_path / "list.txt").write_text("\n".join(names))
    options = {"test_list_url": str(tmp_path / "list.txt")}
    if unannotated == "background" and "open.png" in names:
        assert load(given, tmp_path / "out", unannotated, **options)[0].test_images == 2
        return
    with pytest.raises(DataError, match=rf"1 images that are in no set, since {why}: .*{names[-1]}"):
        load(given, tmp_path / "out", unannotated, **options)


def test_background_taken_from_a_folder_of_a_split_is_of_that_split(tmp_path: Path) -> None:
    files = {f"images/{part}/{name}": picture(part + name) for part in ("train", "val") for name in NAMES[:2]}
    files |= {f"labels/{part}/object.txt": "0 0.5 0.5 0.2 0.2\n" for part in ("train", "val")}
    files["data.yaml"] = "names: [cat]\ntrain: images/train\nval: images/val\n"
    given = in_folder(tmp_path / "in", files=files)
    _, dataset = load(given, tmp_path / "out", "background")
    subsets = {image.file_name: image.extra.get("subset") for image in dataset.images}
    assert (subsets["images/train/nothing.png"], subsets["images/val/nothing.png"]) == ("train", "eval")


def test_background_that_was_converted_has_its_size(tmp_path: Path) -> None:
    given = in_folder(tmp_path / "in", "voc")
    open_image = tmp_path / "in/images/open.png"
    cv2.imwrite(str(open_image.with_suffix(".tif")), cv2.imread(str(open_image)))
    open_image.unlink()
    loaded, dataset = load(given, tmp_path / "out", "background")
    assert (loaded.images, loaded.unannotated_images) == (3, 1)
    (image,) = [each for each in dataset.images if each.file_name == "images/open.tif.png"]
    assert (image.width, image.height) == (60, 40)
