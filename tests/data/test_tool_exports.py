"""The exports of tools that docs/data.md names, each written as the tool lays it out, and loaded as the page says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.data.coco import CocoDataset, read_coco
from pipeline.data.loading import load_annotations, load_source
from pipeline.data.sources.video import Sampling
from pipeline.errors import DataError

SIZE = (160, 120)
NAMES = tuple(f"street {i}.jpg" for i in range(4))  # with a blank, as tools keep it
CLASSES = ("cat", "dog")
Box = tuple[str, int, int, int, int]
Written = tuple[Path, Path | None]  # the source, and the annotations where they lie apart


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


def coco(numbers: Iterable[int], name: Callable[[int], str], first: int = 1) -> dict[str, Any]:
    annotations = [
        {"id": 2 * i + k, "image_id": i, "category_id": CLASSES.index(label) + first, "bbox": box, "iscrowd": 0,
         "area": box[2] * box[3], "segmentation": []}
        for i in numbers
        for k, (label, *box) in enumerate(boxes(i))
    ]  # fmt: skip
    images = [{"id": i, "file_name": name(i), "width": SIZE[0], "height": SIZE[1]} for i in numbers]
    categories = [{"id": i, "name": each, "supercategory": ""} for i, each in enumerate(CLASSES, first)]
    return {"info": {"year": 2026}, "images": images, "annotations": annotations, "categories": categories}


def voc(i: int, name: str = "", *, rest: str = "", first: int = 0, decimals: bool = False) -> str:
    def corner(value: int) -> str:
        return f"{value}.0" if decimals else str(value)

    objects = "".join(
        f"<object><name>{label}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox>"
        f"<xmin>{corner(x + first)}</xmin><ymin>{corner(y + first)}</ymin><xmax>{corner(x + width)}</xmax>"
        f"<ymax>{corner(y + height)}</ymax></bndbox></object>"
        for label, x, y, width, height in boxes(i)
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    return f"<annotation><folder>x</folder><filename>{name or NAMES[i]}</filename>{rest}{size}{objects}</annotation>"


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


def turned(x: int, y: int, width: int, height: int) -> list[list[int]]:
    """The four corners of a box."""
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


def yolo_turned(i: int) -> str:
    rows = ((CLASSES.index(label), turned(*box)) for label, *box in boxes(i))
    return "".join(f"{k} " + " ".join(f"{x / SIZE[0]} {y / SIZE[1]}" for x, y in points) + "\n" for k, points in rows)


def table(header: str, row: Callable[[int, Box], str], numbers: Iterable[int] = range(4)) -> str:
    return "".join([header, *(row(i, box) + "\n" for i in numbers for box in boxes(i))])


def corners(box: Box) -> str:
    _, x, y, width, height = box
    return f"{x},{y},{x + width},{y + height}"


def fractions(box: Box) -> str:
    """In the order of Open Images: left, right, top, bottom."""
    _, x, y, width, height = box
    return f"{x / SIZE[0]},{(x + width) / SIZE[0]},{y / SIZE[1]},{(y + height) / SIZE[1]}"


def stem(i: int) -> str:
    return Path(NAMES[i]).stem


def all_in(folder: Path, names: Iterable[str] = NAMES) -> None:
    for name in names:
        picture(folder / name)


def each_text(folder: Path, suffix: str, content: Callable[[int], str], names: Iterable[str] = NAMES) -> None:
    for i, name in enumerate(names):
        text(folder / f"{Path(name).stem}{suffix}", content(i))


def cvat_images(folder: Path) -> Written:
    all_in(folder / "images")
    text(folder / "annotations.xml", cvat(NAMES.__getitem__))
    return folder, None


def cvat_images_alone(folder: Path) -> Written:
    all_in(folder / "pictures")
    text(folder / "task/annotations.xml", cvat(NAMES.__getitem__))
    return folder / "pictures", folder / "task"


def tracks() -> str:
    found = "".join(
        f'<track id="{k}" label="{label}"><box frame="{i}" keyframe="1" outside="0" occluded="0" xtl="{x}" ytl="{y}" '
        f'xbr="{x + width}" ybr="{y + height}"/><box frame="{i + 1}" keyframe="1" outside="1" occluded="0" xtl="{x}" '
        f'ytl="{y}" xbr="{x + width}" ybr="{y + height}"/></track>'
        for i in range(4)
        for k, (label, x, y, width, height) in enumerate(boxes(i))
    )
    task = "<id>1</id><size>4</size><mode>interpolation</mode><start_frame>0</start_frame><stop_frame>3</stop_frame>"
    meta = f"<meta><task>{task}<frame_filter></frame_filter></task><source>street.mp4</source></meta>"
    return f"<annotations><version>1.1</version>{meta}{found}</annotations>"


def cvat_video(folder: Path) -> Written:
    all_in(folder / "images", [f"frame_{i:06d}.PNG" for i in range(4)])
    text(folder / "annotations.xml", tracks())
    return folder, None


def cvat_video_alone(folder: Path) -> Written:
    text(folder / "task/annotations.xml", tracks())
    writer = cv2.VideoWriter(str(folder / "street.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, SIZE)
    for i in range(4):
        writer.write(np.full((SIZE[1], SIZE[0], 3), 60 * i, np.uint8))
    writer.release()
    return folder / "street.mp4", folder / "task"


def cvat_coco(folder: Path) -> Written:
    all_in(folder / "images/default")
    text(folder / "annotations/instances_default.json", coco(range(4), NAMES.__getitem__))
    return folder, None


def cvat_yolo(folder: Path) -> Written:
    all_in(folder / "obj_train_data")
    each_text(folder / "obj_train_data", ".txt", yolo)
    text(folder / "obj.names", "cat\ndog\n")
    text(folder / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    text(folder / "train.txt", "".join(f"data/obj_train_data/{name}\n" for name in NAMES))
    return folder, None


def cvat_ultralytics(folder: Path) -> Written:
    all_in(folder / "images/train")
    each_text(folder / "labels/train", ".txt", yolo)
    text(folder / "data.yaml", "names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\n")
    text(folder / "train.txt", "".join(f"data/images/train/{name}\n" for name in NAMES))
    return folder, None


def cvat_voc(folder: Path) -> Written:
    all_in(folder / "JPEGImages")
    each_text(folder / "Annotations", ".xml", lambda i: voc(i, decimals=True))
    text(folder / "ImageSets/Main/default.txt", "".join(f"{stem(i)}\n" for i in range(4)))
    text(folder / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\n")
    return folder, None


def cvat_labelme(folder: Path) -> Written:
    def content(i: int) -> str:
        objects = "".join(
            f"<object><name>{label}</name><deleted>0</deleted><verified>0</verified><occluded>no</occluded><date></date>"
            f"<id>{k}</id><parts><hasparts></hasparts><ispartof></ispartof></parts><type>bounding_box</type><polygon>"
            + "".join(f"<pt><x>{x:.2f}</x><y>{y:.2f}</y></pt>" for x, y in turned(*box))
            + "<username></username></polygon><attributes></attributes></object>"
            for k, (label, *box) in enumerate(boxes(i))
        )
        size = f"<imagesize><nrows>{SIZE[1]}</nrows><ncols>{SIZE[0]}</ncols></imagesize>"
        source = "<source><sourceImage></sourceImage><sourceAnnotation>Datumaro</sourceAnnotation></source>"
        return f"<annotation><filename>{NAMES[i]}</filename><folder></folder>{source}{size}{objects}</annotation>"

    all_in(folder)
    each_text(folder, ".xml", content)
    return folder, None


def cvat_open_images(folder: Path) -> Written:
    all_in(folder / "images/default")
    text(folder / "annotations/class-descriptions.csv", "cat,cat\ndog,dog\n")
    text(folder / "annotations/bbox_labels_600_hierarchy.json", {"LabelName": "/m/0", "Subcategory": []})
    described = "ImageID,Subset,OriginalURL,OriginalLandingURL,License\n"
    described += "".join(f"{stem(i)},default,,,\n" for i in range(4))
    text(folder / "annotations/default-images-with-rotation.csv", described)
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction\n"
    rows = table(header, lambda i, box: f"{stem(i)},,{box[0]},1,{fractions(box)},-1,-1,-1,-1")
    text(folder / "annotations/default-annotations-bbox.csv", rows)
    text(folder / "annotations/images.meta", "".join(f'"{stem(i)}" 120 160\n' for i in range(4)))
    return folder, None


def hashed(name: str) -> str:
    """As Label Studio names an uploaded file."""
    return f"0a1b2c3d-{name.replace(' ', '_')}"


def label_studio_coco(folder: Path) -> Written:
    all_in(folder / "images", map(hashed, NAMES))
    text(folder / "result.json", coco(range(4), lambda i: f"images\\{hashed(NAMES[i])}", first=0))
    return folder, None


def label_studio_yolo(folder: Path, content: Callable[[int], str]) -> Written:
    all_in(folder / "images", map(hashed, NAMES))
    each_text(folder / "labels", ".txt", content, map(hashed, NAMES))
    text(folder / "classes.txt", "cat\ndog\n")
    text(folder / "notes.json", {"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], "info": {}})
    return folder, None


def label_studio_voc(folder: Path) -> Written:
    owner = "<owner><flickrid>NULL</flickrid><name>Label Studio</name></owner>"
    all_in(folder / "images", map(hashed, NAMES))
    each_text(folder / "Annotations", ".xml", lambda i: voc(i, hashed(NAMES[i]), rest=owner), map(hashed, NAMES))
    return folder, None


def label_studio_coco_alone(folder: Path) -> Written:
    all_in(folder / "media/upload/12", map(hashed, NAMES))
    text(folder / "export/result.json", coco(range(4), lambda i: f"/data/upload/12/{hashed(NAMES[i])}", first=0))
    return folder / "media/upload/12", folder / "export"


def label_studio_yolo_alone(folder: Path) -> Written:
    label_studio_yolo(folder / "export", yolo)
    (folder / "export/images").rename(folder / "12")
    return folder / "12", folder / "export"


def label_studio_json(folder: Path) -> Written:
    all_in(folder / "images")
    value = {"x": 6.25, "y": 10.0, "width": 18.75, "height": 16.6, "rotation": 0, "rectanglelabels": ["cat"]}
    result = [{"type": "rectanglelabels", "original_width": 160, "original_height": 120, "value": value}]
    text(folder / "a.json", [{"id": 1, "data": {"image": f"/data/{NAMES[0]}"}, "annotations": [{"result": result}]}])
    return folder, None


def label_studio_min(folder: Path) -> Written:
    all_in(folder / "images")
    label = [{"x": 6.25, "y": 10.0, "width": 18.75, "height": 16.6, "rotation": 0, "rectanglelabels": ["cat"]}]
    text(folder / "a.json", [{"image": f"/data/{NAMES[0]}", "id": 1, "label": label, "annotator": 1}])
    return folder, None


def label_studio_csv(folder: Path) -> Written:
    all_in(folder / "images")
    cell = '[{""x"":6.25,""y"":10,""width"":18.75,""height"":16.6,""rectanglelabels"":[""cat""]}]'
    text(folder / "a.csv", f'"annotation_id","id","image","label"\n1,1,"/data/{NAMES[0]}","{cell}"\n')
    return folder, None


PARTS = {"train": (0, 1), "valid": (2,), "test": (3,)}


def roboflow(folder: Path, each: Callable[[str, int], None], images: str = "") -> Written:
    for part, numbers in PARTS.items():
        for i in numbers:
            picture(folder / part / images / NAMES[i])
            each(part, i)
    text(folder / "README.dataset.txt", "# street\nhttps://universe.roboflow.com\n")
    text(
        folder / "README.roboflow.txt", "\nstreet - v1\n==============\n\nThis dataset was exported via roboflow.com\n"
    )
    return folder, None


def roboflow_coco(folder: Path) -> Written:
    for part, numbers in PARTS.items():
        content = coco(numbers, NAMES.__getitem__)
        content["categories"].insert(0, {"id": 0, "name": "street", "supercategory": "none"})
        text(folder / part / "_annotations.coco.json", content)
    return roboflow(folder, lambda part, i: None)


def roboflow_yolo(folder: Path) -> Written:
    paths = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
    text(folder / "data.yaml", f"{paths}nc: 2\nnames: ['cat', 'dog']\n\nroboflow:\n  workspace: a\n  version: 1\n")
    return roboflow(folder, lambda part, i: text(folder / part / f"labels/{stem(i)}.txt", yolo(i)), "images")


def roboflow_darknet(folder: Path) -> Written:
    for part in PARTS:
        text(folder / part / "_darknet.labels", "cat\ndog\n")
    return roboflow(folder, lambda part, i: text(folder / part / f"{stem(i)}.txt", yolo(i)))


def roboflow_voc(folder: Path) -> Written:
    return roboflow(folder, lambda part, i: text(folder / part / f"{stem(i)}.xml", voc(i, first=1)))


def roboflow_csv(folder: Path) -> Written:
    for part, numbers in PARTS.items():
        header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        rows = table(header, lambda i, box: f"{NAMES[i]},160,120,{box[0]},{corners(box)}", numbers)
        text(folder / part / "_annotations.csv", rows)
    return roboflow(folder, lambda part, i: None)


def roboflow_retinanet(folder: Path) -> Written:
    for part, numbers in PARTS.items():
        text(
            folder / part / "_annotations.csv", table("", lambda i, box: f"{NAMES[i]},{corners(box)},{box[0]}", numbers)
        )
        text(folder / part / "_classes.csv", "cat,0\ndog,1\n")
    return roboflow(folder, lambda part, i: None)


def roboflow_createml(folder: Path) -> Written:
    for part, numbers in PARTS.items():
        place = {"label": "cat", "coordinates": {"x": 20, "y": 20, "width": 8, "height": 8}}
        content = [{"image": NAMES[i], "annotations": [place]} for i in numbers]
        text(folder / part / "_annotations.createml.json", content)
    return roboflow(folder, lambda part, i: None)


def labelme(folder: Path, shape: Callable[[Box], dict[str, Any]]) -> Written:
    def content(i: int) -> str:
        record = {"version": "5.5.0", "flags": {}, "shapes": list(map(shape, boxes(i))), "imagePath": NAMES[i]}
        return json.dumps(record | {"imageData": None, "imageHeight": SIZE[1], "imageWidth": SIZE[0]})

    all_in(folder)
    each_text(folder, ".json", content)
    return folder, None


def of_labelme(box: Box) -> dict[str, Any]:
    label, x, y, width, height = box
    points = [[x, y], [x + width, y + height]]
    return {"label": label, "points": points, "group_id": None, "shape_type": "rectangle", "flags": {}, "mask": None}


def of_x_anylabeling(box: Box) -> dict[str, Any]:
    label, *place = box
    shape = {"label": label, "score": None, "points": turned(*place), "group_id": None, "description": ""}
    return shape | {"difficult": False, "shape_type": "rectangle", "flags": {}, "attributes": {}, "kie_linking": []}


def x_anylabeling_coco(folder: Path) -> Written:
    labelme(folder / "images", of_x_anylabeling)
    text(folder / "annotations/coco_detection.json", coco(range(4), NAMES.__getitem__))
    return folder / "images", folder / "annotations"


def x_anylabeling_voc(folder: Path) -> Written:
    source = "<source><database>https://github.com/CVHub520/X-AnyLabeling</database></source>"
    labelme(folder / "images", of_x_anylabeling)
    each_text(folder / "Annotations", ".xml", lambda i: voc(i, rest=source))
    return folder / "images", folder / "Annotations"


def x_anylabeling_yolo(folder: Path) -> Written:
    labelme(folder / "images", of_x_anylabeling)
    each_text(folder / "labels", ".txt", yolo)
    text(folder / "labels/classes.txt", "cat\ndog\n")
    return folder / "images", folder / "labels"


def vott_csv(folder: Path) -> Written:
    all_in(folder)
    rows = table('"image","xmin","ymin","xmax","ymax","label"\n', lambda i, b: f'"{NAMES[i]}",{corners(b)},"{b[0]}"')
    text(folder / "street-export.csv", rows)
    return folder, None


def vott_voc(folder: Path) -> Written:
    all_in(folder / "JPEGImages")
    each_text(folder / "Annotations", ".xml", lambda i: voc(i, decimals=True))
    text(folder / "ImageSets/Main/cat_train.txt", "".join(f"{name} 1\n" for name in NAMES[:3]))
    text(folder / "ImageSets/Main/cat_val.txt", f"{NAMES[3]} 1\n")
    text(folder / "pascal_label_map.pbtxt", "item {\n id: 1\n name: 'cat'\n}\n")
    return folder, None


def vott_json(folder: Path) -> Written:
    all_in(folder)
    region = {"id": "a", "type": "RECTANGLE", "tags": ["cat"], "boundingBox": {"left": 1, "top": 2, "width": 3}}
    assets = {"1": {"asset": {"id": "1", "name": NAMES[0], "size": {}}, "regions": [region], "version": "2.2.0"}}
    text(folder / "street-export.json", {"name": "street", "tags": [{"name": "cat"}], "assets": assets})
    return folder, None


def makesense_yolo(folder: Path) -> Written:
    all_in(folder / "images")
    each_text(folder / "labels", ".txt", yolo)
    text(folder / "labels/classes.txt", "cat\ndog\n")
    return folder / "images", folder / "labels"


def makesense_voc(folder: Path) -> Written:
    source = "<path>/my-project-name/a.jpg</path><source><database>Unspecified</database></source>"
    all_in(folder / "images")
    each_text(folder / "xml", ".xml", lambda i: voc(i, rest=source).replace("<difficult>0", "<difficult>Unspecified"))
    return folder / "images", folder / "xml"


def makesense_csv(folder: Path, header: str = "") -> Written:
    all_in(folder / "images")
    text(folder / "labels.csv", table(header, lambda i, box: ",".join(map(str, (*box, NAMES[i], *SIZE)))))
    return folder / "images", folder / "labels.csv"


def makesense_csv_with_header(folder: Path) -> Written:
    return makesense_csv(
        folder, "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
    )


def fiftyone_coco(folder: Path) -> Written:
    all_in(folder / "data")
    text(folder / "labels.json", coco(range(4), NAMES.__getitem__, first=0))
    return folder, None


def fiftyone_voc(folder: Path) -> Written:
    all_in(folder / "data")
    each_text(folder / "labels", ".xml", voc)
    return folder, None


def fiftyone_yolo4(folder: Path) -> Written:
    all_in(folder / "data")
    each_text(folder / "data", ".txt", yolo)
    text(folder / "obj.names", "cat\ndog\n")
    text(folder / "images.txt", "".join(f"data/{name}\n" for name in NAMES))
    return folder, None


def yolo_in_parts(folder: Path) -> None:
    for i in range(4):
        part = "train" if i < 3 else "val"
        picture(folder / "images" / part / NAMES[i])
        text(folder / f"labels/{part}/{stem(i)}.txt", yolo(i))


def fiftyone_yolo5(folder: Path) -> Written:
    yolo_in_parts(folder)
    names = "names:\n  0: cat\n  1: dog\n"
    text(folder / "dataset.yaml", f"{names}path: /tmp/x\ntrain: ./images/train/\nval: ./images/val/\n")
    return folder, None


def fiftyone_cvat(folder: Path) -> Written:
    all_in(folder / "data")
    text(folder / "labels.xml", cvat(NAMES.__getitem__))
    return folder, None


def fiftyone_own(folder: Path) -> Written:
    all_in(folder / "data")
    found = [{"_cls": "Detection", "label": "cat", "bounding_box": [0.1, 0.1, 0.2, 0.2]}]
    truth = {"_cls": "Detections", "detections": found}
    text(folder / "samples.json", {"samples": [{"filepath": f"data/{NAMES[0]}", "ground_truth": truth}]})
    text(folder / "metadata.json", {"name": "street", "media_type": "image", "sample_fields": []})
    return folder, None


def fiftyone_open_images(folder: Path) -> Written:
    open_images(folder)
    (folder / "train").rename(folder / "data")
    (folder / "labels").mkdir()
    (folder / "metadata").mkdir()
    (folder / "oidv6-train-annotations-bbox.csv").rename(folder / "labels/detections.csv")
    (folder / "oidv7-class-descriptions-boxable.csv").rename(folder / "metadata/classes.csv")
    text(
        folder / "labels/classifications.csv", f"ImageID,Source,LabelName,Confidence\n{stem(0)},verification,/m/00,1\n"
    )
    text(folder / "metadata/image_ids.csv", f"ImageID,Subset,OriginalURL\n{stem(0)},train,https://example.com/a.jpg\n")
    return folder, None


def ultralytics(folder: Path) -> Written:
    yolo_in_parts(folder)
    text(folder / "data.yaml", "path: ../datasets/x\ntrain: images/train\nval: images/val\ntest:\nnames: [cat, dog]\n")
    return folder / "data.yaml", None


def ultralytics_lists(folder: Path) -> Written:
    yolo_in_parts(folder)
    text(folder / "train2017.txt", "".join(f"./images/train/{name}\n" for name in NAMES[:3]))
    text(folder / "val2017.txt", f"./images/val/{NAMES[3]}\n")
    text(
        folder / "data.yaml",
        "path: ../datasets/x\ntrain: train2017.txt\nval: val2017.txt\nnames:\n  0: cat\n  1: dog\n",
    )
    return folder / "data.yaml", None


def ultralytics_elsewhere(folder: Path) -> Written:
    yolo_in_parts(folder / "datasets/coco8")
    names = "names:\n  0: cat\n  1: dog\ndownload: https://example.com/coco8.zip\n"
    text(folder / "coco8.yaml", f"path: coco8 # dataset root dir\ntrain: images/train\nval: images/val\n{names}")
    return folder / "datasets/coco8", folder / "coco8.yaml"


def open_images(folder: Path) -> Written:
    all_in(folder / "train")
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction\n"
    rows = table(header, lambda i, b: f"{stem(i)},xclick,/m/0{CLASSES.index(b[0])},1,{fractions(b)},0,0,0,0")
    rows += "not downloaded,xclick,/m/00,1,0.1,0.2,0.1,0.2,0,0,0,0\n"
    text(folder / "oidv6-train-annotations-bbox.csv", rows)
    text(folder / "oidv7-class-descriptions-boxable.csv", "LabelName,DisplayName\n/m/00,cat\n/m/01,dog\n")
    return folder, None


def datumaro(folder: Path) -> Written:
    all_in(folder / "images/default")
    place = {"id": 0, "type": "bbox", "label_id": 0, "bbox": [1, 2, 3, 4]}
    items = [{"id": stem(i), "annotations": [place], "image": {"path": NAMES[i]}} for i in range(4)]
    labels = {"label": {"labels": [{"name": "cat"}]}}
    text(folder / "annotations/default.json", {"info": {}, "categories": labels, "items": items})
    return folder, None


def in_one_table(folder: Path, header: str, row: Callable[[int, Box], str]) -> Written:
    all_in(folder / "train")
    text(folder / "train.csv", table(header, row))
    return folder, None


def vin_big(folder: Path) -> Written:
    header = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
    return in_one_table(folder, header, lambda i, box: f"{stem(i)},{box[0]},3,R11,{corners(box)}")


def rsna(folder: Path) -> Written:
    header = "patientId,x,y,width,height,Target\n"
    return in_one_table(folder, header, lambda i, box: f"{stem(i)},{','.join(f'{each}.0' for each in box[1:])},1")


def global_wheat(folder: Path) -> Written:
    header = "image_id,width,height,bbox,source\n"
    return in_one_table(folder, header, lambda i, box: f'{stem(i)},160,120,"{list(map(float, box[1:]))}",usask_1')


def sku_110k(folder: Path) -> Written:
    return in_one_table(folder, "", lambda i, box: f"{NAMES[i]},{corners(box)},{box[0]},160,120")


WRITERS: dict[str, Callable[[Path], Written]] = {
    "CVAT: CVAT for images 1.1": cvat_images,
    "CVAT: CVAT for video 1.1": cvat_video,
    "CVAT: COCO 1.0": cvat_coco,
    "CVAT: YOLO 1.1": cvat_yolo,
    "CVAT: Ultralytics YOLO Detection 1.0": cvat_ultralytics,
    "CVAT: PASCAL VOC 1.1": cvat_voc,
    "CVAT: LabelMe 3.0": cvat_labelme,
    "CVAT: Open Images V6": cvat_open_images,
    "CVAT: CVAT for images 1.1 without images": cvat_images_alone,
    "CVAT: CVAT for video 1.1 without images": cvat_video_alone,
    "other: CVAT's Datumaro 1.0": datumaro,
    "Label Studio: COCO with images": label_studio_coco,
    "Label Studio: YOLO with images": lambda folder: label_studio_yolo(folder, yolo),
    "Label Studio: YOLOv8 OBB with images": lambda folder: label_studio_yolo(folder, yolo_turned),
    "Label Studio: Pascal VOC XML": label_studio_voc,
    "Label Studio: COCO": label_studio_coco_alone,
    "Label Studio: YOLO": label_studio_yolo_alone,
    "Label Studio: JSON": label_studio_json,
    "Label Studio: JSON-MIN": label_studio_min,
    "Label Studio: CSV": label_studio_csv,
    "Roboflow: COCO": roboflow_coco,
    "Roboflow: YOLOv8 and later": roboflow_yolo,
    "Roboflow: YOLO Darknet": roboflow_darknet,
    "Roboflow: Pascal VOC": roboflow_voc,
    "Roboflow: TensorFlow Object Detection CSV": roboflow_csv,
    "Roboflow: RetinaNet CSV": roboflow_retinanet,
    "other: Roboflow's CreateML JSON": roboflow_createml,
    "LabelMe: its folder": lambda folder: labelme(folder, of_labelme),
    "X-AnyLabeling: its folder": lambda folder: labelme(folder, of_x_anylabeling),
    "X-AnyLabeling: COCO": x_anylabeling_coco,
    "X-AnyLabeling: VOC": x_anylabeling_voc,
    "X-AnyLabeling: YOLO": x_anylabeling_yolo,
    "VoTT: CSV": vott_csv,
    "VoTT: Pascal VOC": vott_voc,
    "VoTT: VoTT JSON": vott_json,
    "makesense: YOLO": makesense_yolo,
    "makesense: VOC XML": makesense_voc,
    "makesense: CSV with a header": makesense_csv_with_header,
    "makesense: CSV without a header": makesense_csv,
    "FiftyOne: COCODetectionDataset": fiftyone_coco,
    "FiftyOne: VOCDetectionDataset": fiftyone_voc,
    "FiftyOne: YOLOv4Dataset": fiftyone_yolo4,
    "FiftyOne: YOLOv5Dataset": fiftyone_yolo5,
    "FiftyOne: CVATImageDataset": fiftyone_cvat,
    "FiftyOne: Open Images of its zoo": fiftyone_open_images,
    "other: FiftyOneDataset": fiftyone_own,
    "Ultralytics: data.yaml": ultralytics,
    "Ultralytics: data.yaml with lists of images": ultralytics_lists,
    "Ultralytics: a YAML file elsewhere": ultralytics_elsewhere,
    "Open Images: images and CSV files": open_images,
    "Kaggle: VinBigData": vin_big,
    "Kaggle: RSNA Pneumonia": rsna,
    "Kaggle: Global Wheat": global_wheat,
    "Kaggle: SKU-110K": sku_110k,
}
FROM_ONE = {"FiftyOne: VOCDetectionDataset"}  # whole numbers from 0, which are read as from 1: nothing tells the tool
ONE_CLASS = {"Kaggle: RSNA Pneumonia", "Kaggle: Global Wheat"}


def documented() -> dict[str, str]:
    """What the page says to type, by tool and export."""
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- exports -->\n(.*?)<!-- /exports -->", page, re.DOTALL)
    assert found
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()[2:]]
    return {
        f"{tool}: {export}": typed
        for tools, exports, typed in rows
        for tool in tools.split(", ")
        for export in exports.split(", ")
    }


TYPED = documented()


def test_each_export_of_the_page_is_tried() -> None:
    assert set(TYPED) == set(WRITERS)


@pytest.mark.parametrize("export", [each for each, typed in TYPED.items() if not typed.startswith("not read")])
def test_an_export_is_loaded_as_the_page_says(export: str, tmp_path: Path) -> None:
    dataset = _load(export, tmp_path)
    names = {each.id: each.name for each in dataset.categories}
    assert len(dataset.images) == 4
    by_image = dataset.by_image()
    for i, image in enumerate(sorted(dataset.images, key=lambda image: image.file_name.rpartition("/")[2])):
        found = sorted((names[each.category_id], *each.bbox) for each in by_image[image.id])
        for (label, *box), (expected, *drawn) in zip(found, boxes(i), strict=True):
            assert label == ("object" if export in ONE_CLASS else expected)
            assert box == pytest.approx(drawn, abs=1.001 if export in FROM_ONE else 0.001)


@pytest.mark.parametrize("export", [each for each, typed in TYPED.items() if typed.startswith("not read")])
def test_the_page_and_the_error_name_what_to_export_instead(export: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="whose own format is not read") as caught:
        _load(export, tmp_path)
    instead = re.search("export it as [A-Z].*", caught.value.remedy)
    assert instead
    assert instead[0] in TYPED[export]


def _load(export: str, folder: Path) -> CocoDataset:
    """Write the export, in an archive where the page names one, and load it by what the page says to type."""
    source, annotations = WRITERS[export](folder / "export")
    typed = dict(re.findall(r"`(\w+): ([^`]+)`", TYPED[export])) or {"source_url": "FOLDER"}
    assert ("annotations_url" in typed) == (annotations is not None)
    places = {"source_url": source} | ({"annotations_url": annotations} if annotations else {})
    for name, place in places.items():
        if typed[name].endswith(".zip"):
            typed[name] = shutil.make_archive(str(folder / name), "zip", place)
        else:
            typed[name] = str(place)
    images, markup, cache = (folder / each for each in ("images", "markup", "cache"))
    raw = load_source(
        typed.pop("source_url"),
        images,
        markup,
        cache=cache,
        sampling=Sampling(float(typed.pop("video_fps", 1))),
        unannotated=typed.get("unannotated", "exclude"),
    )
    options = {key.removeprefix("annotations_"): value for key, value in typed.items()}
    load_annotations(raw, folder / "out", images=images, annotations=markup, cache=cache, **options)
    return read_coco(folder / "out/annotations.json")
