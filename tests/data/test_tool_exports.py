"""The exports of tools that docs/data.md names, each written as the tool lays it out, and loaded as the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.data.coco import CocoDataset, read_coco
from pipeline.data.loading import load_annotations, load_source

SIZE = (160, 120)
NAMES = tuple(f"street {i}.jpg" for i in range(4))  # with a blank, as tools keep it
CLASSES = ("cat", "dog")
Box = tuple[str, int, int, int, int]
Written = tuple[Path | str, dict[str, str]]  # the source, and the other parameters


def boxes(i: int) -> list[Box]:
    """Of the image with this number: class, x, y, width and height."""
    return [("cat", 10 + i, 12 + i, 30, 20), ("dog", 60 + i, 50, 40, 25)]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([*path.name.encode()]).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    cv2.imwrite(str(path), noise)


def text(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def coco(numbers: range, name: Callable[[int], str], first: int = 1) -> dict[str, Any]:
    annotations = [
        {"id": 2 * i + k, "image_id": i, "category_id": CLASSES.index(label) + first, "bbox": box, "iscrowd": 0,
         "area": box[2] * box[3], "segmentation": []}
        for i in numbers
        for k, (label, *box) in enumerate(boxes(i))
    ]  # fmt: skip
    images = [{"id": i, "file_name": name(i), "width": SIZE[0], "height": SIZE[1]} for i in numbers]
    categories = [{"id": i, "name": each, "supercategory": ""} for i, each in enumerate(CLASSES, first)]
    return {"info": {"year": 2026}, "images": images, "annotations": annotations, "categories": categories}


def voc(i: int, *, first: int = 0, folder: str = "", decimals: bool = False) -> str:
    def corner(value: int) -> str:
        return f"{value}.0" if decimals else str(value)

    objects = "".join(
        f"<object><name>{label}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox>"
        f"<xmin>{corner(x + first)}</xmin><ymin>{corner(y + first)}</ymin><xmax>{corner(x + width)}</xmax>"
        f"<ymax>{corner(y + height)}</ymax></bndbox></object>"
        for label, x, y, width, height in boxes(i)
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    return f"<annotation><folder>{folder}</folder><filename>{NAMES[i]}</filename>{size}{objects}</annotation>"


def yolo(i: int) -> str:
    return "".join(
        f"{CLASSES.index(label)} {(x + width / 2) / SIZE[0]:.6f} {(y + height / 2) / SIZE[1]:.6f} "
        f"{width / SIZE[0]:.6f} {height / SIZE[1]:.6f}\n"
        for label, x, y, width, height in boxes(i)
    )


def cvat(names: Callable[[int], str]) -> str:
    labels = "".join(f"<label><name>{each}</name></label>" for each in CLASSES)
    images = "".join(
        f'<image id="{i}" name="{names(i)}" width="{SIZE[0]}" height="{SIZE[1]}">'
        + "".join(
            f'<box label="{label}" source="manual" occluded="0" xtl="{x}.0" ytl="{y}.0" xbr="{x + width}.0" '
            f'ybr="{y + height}.0" z_order="0"></box>'
            for label, x, y, width, height in boxes(i)
        )
        + "</image>"
        for i in range(4)
    )
    meta = f"<meta><task><id>1</id><size>4</size><mode>annotation</mode><labels>{labels}</labels></task></meta>"
    return f"<?xml version='1.0' encoding='utf-8'?><annotations><version>1.1</version>{meta}{images}</annotations>"


def all_in(folder: Path) -> None:
    for name in NAMES:
        picture(folder / name)


def stem(i: int) -> str:
    return Path(NAMES[i]).stem


def cvat_images(folder: Path) -> Written:
    all_in(folder / "images")
    text(folder / "annotations.xml", cvat(NAMES.__getitem__))
    return folder, {}


def cvat_video(folder: Path) -> Written:
    tracks = "".join(
        f'<track id="{k}" label="{label}"><box frame="{i}" keyframe="1" outside="0" occluded="0" xtl="{x}" ytl="{y}" '
        f'xbr="{x + width}" ybr="{y + height}"/><box frame="{i + 1}" keyframe="1" outside="1" occluded="0" xtl="{x}" '
        f'ytl="{y}" xbr="{x + width}" ybr="{y + height}"/></track>'
        for i in range(4)
        for k, (label, x, y, width, height) in enumerate(boxes(i))
    )
    task = "<id>1</id><size>4</size><mode>interpolation</mode><start_frame>0</start_frame><stop_frame>3</stop_frame>"
    meta = f"<meta><task>{task}<frame_filter></frame_filter></task><source>street.mp4</source></meta>"
    for i in range(4):
        picture(folder / f"images/frame_{i:06d}.png")
    text(folder / "annotations.xml", f"<annotations><version>1.1</version>{meta}{tracks}</annotations>")
    return folder, {}


def cvat_coco(folder: Path) -> Written:
    all_in(folder / "images/default")
    text(folder / "annotations/instances_default.json", coco(range(4), NAMES.__getitem__))
    return folder, {}


def cvat_yolo(folder: Path) -> Written:
    all_in(folder / "obj_train_data")
    for i in range(4):
        text(folder / f"obj_train_data/{stem(i)}.txt", yolo(i))
    text(folder / "obj.names", "cat\ndog\n")
    text(folder / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    text(folder / "train.txt", "".join(f"data/obj_train_data/{name}\n" for name in NAMES))
    return folder, {}


def cvat_ultralytics(folder: Path) -> Written:
    all_in(folder / "images/train")
    for i in range(4):
        text(folder / f"labels/train/{stem(i)}.txt", yolo(i))
    text(folder / "data.yaml", "names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\n")
    text(folder / "train.txt", "".join(f"data/images/train/{name}\n" for name in NAMES))
    return folder, {}


def cvat_voc(folder: Path) -> Written:
    all_in(folder / "JPEGImages")
    for i in range(4):
        text(folder / f"Annotations/{stem(i)}.xml", voc(i, decimals=True))
    text(folder / "ImageSets/Main/default.txt", "".join(f"{stem(i)}\n" for i in range(4)))
    text(folder / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\n")
    return folder, {}


def label_studio_coco(folder: Path) -> Written:
    for i in range(4):
        picture(folder / f"images/0a1b2c{i}d-{NAMES[i]}")
    text(folder / "result.json", coco(range(4), lambda i: f"images\\0a1b2c{i}d-{NAMES[i]}", first=0))
    return folder, {}


def label_studio_yolo(folder: Path) -> Written:
    all_in(folder / "images")
    for i in range(4):
        text(folder / f"labels/{stem(i)}.txt", yolo(i))
    text(folder / "classes.txt", "cat\ndog\n")
    text(folder / "notes.json", {"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], "info": {}})
    return folder, {}


def label_studio_voc(folder: Path) -> Written:
    all_in(folder / "images")
    for i in range(4):
        text(folder / f"Annotations/{stem(i)}.xml", voc(i, folder="images"))
    return folder, {}


def roboflow(folder: Path, each: Callable[[str, int], None]) -> Path:
    for part, numbers in {"train": (0, 1), "valid": (2,), "test": (3,)}.items():
        for i in numbers:
            each(part, i)
    text(folder / "README.dataset.txt", "# street\nhttps://universe.roboflow.com\n")
    return folder


def roboflow_coco(folder: Path) -> Written:
    roboflow(folder, lambda part, i: picture(folder / part / NAMES[i]))
    for part, numbers in {"train": range(2), "valid": range(2, 3), "test": range(3, 4)}.items():
        text(folder / part / "_annotations.coco.json", coco(numbers, NAMES.__getitem__))
    return folder, {}


def roboflow_yolo(folder: Path) -> Written:
    def each(part: str, i: int) -> None:
        picture(folder / part / "images" / NAMES[i])
        text(folder / part / "labels" / f"{stem(i)}.txt", yolo(i))

    text(
        folder / "data.yaml", "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cat, dog]\n"
    )
    return roboflow(folder, each), {}


def roboflow_voc(folder: Path) -> Written:
    def each(part: str, i: int) -> None:
        picture(folder / part / NAMES[i])
        text(folder / part / f"{stem(i)}.xml", voc(i, first=1))

    return roboflow(folder, each), {}


def table(header: str, row: Callable[[int, Box], str], numbers: range | tuple[int, ...] = range(4)) -> str:
    return "".join([header, *(row(i, box) + "\n" for i in numbers for box in boxes(i))])


def corners(box: Box) -> str:
    _, x, y, width, height = box
    return f"{x},{y},{x + width},{y + height}"


def roboflow_csv(folder: Path) -> Written:
    def each(part: str, i: int) -> None:
        picture(folder / part / NAMES[i])
        header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        rows = table(header, lambda i, box: f"{NAMES[i]},160,120,{box[0]},{corners(box)}", (i,))
        path = folder / part / "_annotations.csv"
        text(path, (path.read_text() if path.exists() else header) + rows.removeprefix(header))

    return roboflow(folder, each), {}


def labelme(folder: Path, kind: str, **fields: object) -> Written:
    all_in(folder)
    for i in range(4):
        shapes = [
            {"label": label, "points": _points(kind, x, y, width, height), "shape_type": kind, "flags": {}, **fields}
            for label, x, y, width, height in boxes(i)
        ]
        record = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": NAMES[i], "imageData": None}
        text(folder / f"{stem(i)}.json", {**record, "imageHeight": SIZE[1], "imageWidth": SIZE[0]})
    return folder, {}


def _points(kind: str, x: int, y: int, width: int, height: int) -> list[list[int]]:
    ends = [[x, y], [x + width, y + height]]
    return ends if kind == "rectangle" else [[x, y], [x + width, y], ends[1], [x, y + height]]


def vott_csv(folder: Path) -> Written:
    all_in(folder)
    row: Callable[[int, Box], str] = lambda i, box: f'"{NAMES[i]}",{corners(box)},"{box[0]}"'  # noqa: E731
    text(folder / "street-export.csv", table('"image","xmin","ymin","xmax","ymax","label"\n', row))
    return folder, {}


def vott_voc(folder: Path) -> Written:
    all_in(folder / "JPEGImages")
    for i in range(4):
        text(folder / f"Annotations/{stem(i)}.xml", voc(i, folder="Annotation", decimals=True))
    text(folder / "ImageSets/Main/cat_train.txt", "".join(f"{name} 1\n" for name in NAMES[:3]))
    text(folder / "ImageSets/Main/cat_val.txt", f"{NAMES[3]} 1\n")
    text(folder / "pascal_label_map.pbtxt", 'item {\n id: 1\n name: "cat"\n}\n')
    return folder, {}


def makesense_yolo(folder: Path) -> Written:
    all_in(folder / "images")
    for i in range(4):
        text(folder / f"labels/{stem(i)}.txt", yolo(i))
    text(folder / "labels/classes.txt", "cat\ndog\n")
    return folder / "images", {"url": str(folder / "labels")}


def makesense_voc(folder: Path) -> Written:
    all_in(folder / "images")
    for i in range(4):
        text(folder / f"xml/{stem(i)}.xml", voc(i, folder="my-project-name"))
    return folder / "images", {"url": str(folder / "xml")}


def makesense_csv(folder: Path) -> Written:
    all_in(folder / "images")
    row: Callable[[int, Box], str] = lambda i, box: ",".join(map(str, (*box, NAMES[i], *SIZE)))  # noqa: E731
    text(folder / "labels.csv", table("", row))
    return folder / "images", {"url": str(folder / "labels.csv"), "format": "csv"}


def fiftyone_coco(folder: Path) -> Written:
    all_in(folder / "data")
    text(folder / "labels.json", coco(range(4), NAMES.__getitem__, first=0))
    return folder, {}


def fiftyone_voc(folder: Path) -> Written:
    all_in(folder / "data")
    for i in range(4):
        text(folder / f"labels/{stem(i)}.xml", voc(i))
    return folder, {}


def fiftyone_yolo(folder: Path) -> Written:
    for i in range(4):
        part = "train" if i < 3 else "val"
        picture(folder / "images" / part / NAMES[i])
        text(folder / f"labels/{part}/{stem(i)}.txt", yolo(i))
    text(
        folder / "dataset.yaml",
        "names:\n  0: cat\n  1: dog\npath: /tmp/x\ntrain: ./images/train/\nval: ./images/val/\n",
    )
    return folder, {}


def fiftyone_cvat(folder: Path) -> Written:
    all_in(folder / "data")
    text(folder / "labels.xml", cvat(NAMES.__getitem__))
    return folder, {}


def ultralytics(folder: Path) -> Written:
    for i in range(4):
        part = "train" if i < 3 else "val"
        picture(folder / "images" / part / NAMES[i])
        text(folder / f"labels/{part}/{stem(i)}.txt", yolo(i))
    text(folder / "data.yaml", "path: ../datasets/x\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n")
    return folder / "data.yaml", {"unannotated": "background"}


def open_images(folder: Path) -> Written:
    all_in(folder / "train")
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction\n"

    def row(i: int, box: Box) -> str:
        label, x, y, width, height = box
        sides = x / SIZE[0], (x + width) / SIZE[0], y / SIZE[1], (y + height) / SIZE[1]
        return f"{stem(i)},xclick,/m/0{CLASSES.index(label)},1,{','.join(map(str, sides))},0,0,0,0"

    text(folder / "oidv6-train-annotations-bbox.csv", table(header, row))
    text(folder / "oidv7-class-descriptions-boxable.csv", "LabelName,DisplayName\n/m/00,cat\n/m/01,dog\n")
    return folder, {}


def kaggle_corners(folder: Path) -> Written:
    all_in(folder / "train")
    header = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
    row: Callable[[int, Box], str] = lambda i, box: f"{stem(i)},{box[0]},3,R11,{corners(box)}"  # noqa: E731
    text(folder / "train.csv", table(header, row))
    return folder, {}


def kaggle_one_class(folder: Path) -> Written:
    all_in(folder / "train")
    row: Callable[[int, Box], str] = lambda i, box: f'{stem(i)},160,120,"{list(map(float, box[1:]))}",usask_1'  # noqa: E731
    text(folder / "train.csv", table("image_id,width,height,bbox,source\n", row))
    return folder, {"format": "csv"}


EXPORTS: dict[str, Callable[[Path], Written]] = {
    "CVAT: CVAT for images": cvat_images,
    "CVAT: CVAT for video": cvat_video,
    "CVAT: COCO": cvat_coco,
    "CVAT: YOLO 1.1": cvat_yolo,
    "CVAT: Ultralytics YOLO": cvat_ultralytics,
    "CVAT: Pascal VOC": cvat_voc,
    "Label Studio: COCO with images": label_studio_coco,
    "Label Studio: YOLO with images": label_studio_yolo,
    "Label Studio: Pascal VOC": label_studio_voc,
    "Roboflow: COCO": roboflow_coco,
    "Roboflow: YOLO": roboflow_yolo,
    "Roboflow: Pascal VOC": roboflow_voc,
    "Roboflow: TensorFlow CSV": roboflow_csv,
    "LabelMe: its folder": lambda folder: labelme(folder, "rectangle"),
    "X-AnyLabeling: its folder": lambda folder: labelme(folder, "rotation", direction=0.0, difficult=False),
    "VoTT: CSV": vott_csv,
    "VoTT: Pascal VOC": vott_voc,
    "makesense: YOLO": makesense_yolo,
    "makesense: VOC XML": makesense_voc,
    "makesense: CSV": makesense_csv,
    "FiftyOne: COCO": fiftyone_coco,
    "FiftyOne: VOC": fiftyone_voc,
    "FiftyOne: YOLOv5": fiftyone_yolo,
    "FiftyOne: CVAT image": fiftyone_cvat,
    "Ultralytics: data.yaml": ultralytics,
    "Open Images: images and CSV files": open_images,
    "Kaggle: a table with corners": kaggle_corners,
    "Kaggle: a table with a column bbox and one class": kaggle_one_class,
}
PARAMETERS = {"url": "annotations_url", "format": "annotations_format", "unannotated": "unannotated"}


@pytest.mark.parametrize("export", EXPORTS)
def test_an_export_is_loaded_as_the_docs_say(export: str, tmp_path: Path) -> None:
    source, options = EXPORTS[export](tmp_path / "export")
    dataset = _load(source, options, tmp_path)
    names = {each.id: each.name for each in dataset.categories}
    one_class = "one class" in export
    assert len(dataset.images) == 4
    by_image = dataset.by_image()
    for i, image in enumerate(sorted(dataset.images, key=lambda image: image.file_name.rpartition("/")[2])):
        found = sorted((names[each.category_id], *each.bbox) for each in by_image[image.id])
        for (label, *box), (expected, *drawn) in zip(found, boxes(i), strict=True):
            assert label == ("object" if one_class else expected)
            assert box == pytest.approx(drawn, abs=1.01)  # VOC of tools that count from 0 says so nowhere


def test_the_docs_list_these_exports_with_what_to_type(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- exports -->\n(.*?)<!-- /exports -->", page, re.DOTALL)
    assert found
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()[2:]]
    assert [f"{tool}: {export}" for tool, export, _ in rows] == list(EXPORTS)
    for number, (export, (*_, typed)) in enumerate(zip(EXPORTS, rows, strict=True)):
        _, options = EXPORTS[export](tmp_path / str(number))
        assert re.findall(r"`(\w+):", typed) == ["source_url", *(PARAMETERS[each] for each in options)]


def _load(source: Path | str, options: dict[str, str], folder: Path) -> CocoDataset:
    images, markup, cache = (folder / name for name in ("images", "markup", "cache"))
    unannotated = options.get("unannotated", "exclude")
    raw = load_source(str(source), images, markup, cache=cache, unannotated=unannotated)
    load_annotations(raw, folder / "out", images=images, annotations=markup, cache=cache, **options)
    return read_coco(folder / "out/annotations.json")
