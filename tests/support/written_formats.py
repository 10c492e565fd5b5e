"""A COCO data set written by hand in every annotation format, as the format's own tools write it.

Each writer takes a data set and an empty folder. What a format cannot say (crowds in most) is left unsaid.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree as ET

from pipeline.data.coco import Annotation, CocoDataset, write_coco


def write_coco_file(dataset: CocoDataset, folder: Path) -> None:
    write_coco(dataset, folder / "annotations" / "instances.json")


def write_voc(dataset: CocoDataset, folder: Path) -> None:
    """Whole numbers by the kit's convention: counted from 1, the last pixel included."""
    names = {each.id: each.name for each in dataset.categories}
    objects = dataset.by_image()
    for image in dataset.images:
        root = ET.Element("annotation")
        _texts(ET.SubElement(root, "source"), database="The VOC2007 Database", annotation="PASCAL VOC2007")
        _texts(root, folder="VOC", filename=PurePosixPath(image.file_name).name)
        _texts(ET.SubElement(root, "size"), width=image.width, height=image.height, depth=3)
        for each in objects.get(image.id, []):
            node = ET.SubElement(root, "object")
            _texts(node, name=names[each.category_id], difficult=each.iscrowd)
            x, y, width, height = each.bbox
            edges = {"xmin": round(x) + 1, "ymin": round(y) + 1, "xmax": round(x + width), "ymax": round(y + height)}
            _texts(ET.SubElement(node, "bndbox"), **edges)
        path = (folder / "Annotations" / image.file_name).with_suffix(".xml")
        path.parent.mkdir(parents=True, exist_ok=True)
        ET.ElementTree(root).write(path)


def write_yolo(dataset: CocoDataset, folder: Path) -> None:
    """Labels beside where the images are, in `labels`; categories keep their order and lose their ids."""
    index = {each.id: i for i, each in enumerate(dataset.categories)}
    objects = dataset.by_image()
    _write(folder / "data.yaml", json.dumps({"names": list(dataset.classes)}, ensure_ascii=False))
    for image in dataset.images:
        lines = []
        for each in objects.get(image.id, []):
            x, y, width, height = each.bbox
            values = (x + width / 2) / image.width, (y + height / 2) / image.height
            sides = width / image.width, height / image.height
            lines.append(" ".join([str(index[each.category_id]), *(f"{value:.8f}" for value in (*values, *sides))]))
        path = (folder / "labels" / image.file_name).with_suffix(".txt")
        _write(path, "".join(f"{line}\n" for line in lines))


def write_labelme(dataset: CocoDataset, folder: Path) -> None:
    names = {each.id: each.name for each in dataset.categories}
    objects = dataset.by_image()
    for image in dataset.images:
        shapes = []
        for each in objects.get(image.id, []):
            x, y, width, height = each.bbox
            shape = {"label": names[each.category_id], "points": [[x, y], [x + width, y + height]]}
            flags = {"crowd": True} if each.iscrowd else {}
            shapes.append(shape | {"group_id": None, "shape_type": "rectangle", "flags": flags})
        record = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imageData": None}
        # The tool keeps the image's path relative to its own file, with the backslashes of the machine it ran on.
        record |= {"imagePath": PurePosixPath(image.file_name).name.replace("/", "\\")}
        record |= {"imageHeight": image.height, "imageWidth": image.width}
        _write((folder / image.file_name).with_suffix(".json"), json.dumps(record))


def write_cvat(dataset: CocoDataset, folder: Path) -> None:
    names = {each.id: each.name for each in dataset.categories}
    objects = dataset.by_image()
    root = ET.Element("annotations")
    _texts(root, version="1.1")
    labels = ET.SubElement(ET.SubElement(ET.SubElement(root, "meta"), "task"), "labels")
    for category in dataset.categories:
        _texts(ET.SubElement(labels, "label"), name=category.name)
    for image in dataset.images:
        own = {"id": image.id, "name": image.file_name, "width": image.width, "height": image.height}
        node = ET.SubElement(root, "image", {key: str(value) for key, value in own.items()})
        for each in objects.get(image.id, []):
            box = ET.SubElement(node, "box", {"label": names[each.category_id], "source": "manual"} | _corners(each))
            ET.SubElement(box, "attribute", {"name": "is_crowd"}).text = str(bool(each.iscrowd)).lower()
    folder.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(root).write(folder / "annotations.xml")


def write_open_images(dataset: CocoDataset, folder: Path) -> None:
    """Machine ids for the classes, and no suffix to the images; an image without objects is not in it."""
    mids = {each.id: f"/m/{each.id:04x}" for each in dataset.categories}
    sizes = {image.id: image for image in dataset.images}
    header = ["ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax", "IsGroupOf"]
    rows: list[list[object]] = [list(header)]
    for each in dataset.annotations:
        image, (x, y, width, height) = sizes[each.image_id], each.bbox
        across, down = (x / image.width, (x + width) / image.width), (y / image.height, (y + height) / image.height)
        name = PurePosixPath(image.file_name).with_suffix("").as_posix()
        rows.append([name, "xclick", mids[each.category_id], 1, *across, *down, each.iscrowd])
    _write_rows(folder / "annotations-bbox.csv", rows)
    _write_rows(folder / "class-descriptions-boxable.csv", [[mids[each.id], each.name] for each in dataset.categories])


def write_pixel_csv(dataset: CocoDataset, folder: Path) -> None:
    names = {each.id: each.name for each in dataset.categories}
    objects = dataset.by_image()
    rows: list[list[object]] = [["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]]
    for image in dataset.images:
        for each in objects.get(image.id, []):
            x, y, width, height = each.bbox
            edges = [x, y, x + width, y + height]
            rows.append([image.file_name, image.width, image.height, names[each.category_id], *edges])
        if image.id not in objects:
            rows.append([image.file_name, image.width, image.height, "", "", "", "", ""])
    _write_rows(folder / "annotations.csv", rows)


WRITERS: dict[str, tuple[str, Callable[[CocoDataset, Path], None]]] = {
    "coco": ("coco", write_coco_file),
    "voc": ("voc", write_voc),
    "yolo": ("yolo", write_yolo),
    "labelme": ("labelme", write_labelme),
    "cvat": ("cvat", write_cvat),
    "open images": ("csv", write_open_images),
    "pixel csv": ("csv", write_pixel_csv),
}
# What each can say: crowd regions, images without objects, classes without objects.
SAYS_CROWD = {"coco", "voc", "labelme", "cvat", "open images"}
SAYS_EMPTY = {"coco", "voc", "yolo", "labelme", "cvat", "pixel csv"}
SAYS_UNUSED = {"coco", "yolo", "cvat"}


def _corners(each: Annotation) -> dict[str, str]:
    x, y, width, height = each.bbox
    corners = {"xtl": x, "ytl": y, "xbr": x + width, "ybr": y + height}
    return {key: f"{value:.2f}" for key, value in corners.items()}


def _texts(node: ET.Element, **values: object) -> None:
    for name, value in values.items():
        ET.SubElement(node, name).text = str(value)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_rows(path: Path, rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
