"""Reads written labels with a labelling tool's own package, and prints them as JSON; runs where that is installed.

    python read_by_tools.py fiftyone|datumaro|label-studio FOLDER

The folder has `images/train`, `coco.json`, `cvat.xml`, `label_studio.json` with its setup, and the folder `yolo`. The
output is, by format and name of the image without its suffix, a list of
[class, x, y, width, height, score, attributes].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Found = dict[str, dict[str, list[Any]]]


def with_fiftyone(folder: Path) -> Found:
    """With its importers, which need no database."""
    from fiftyone.utils.coco import COCODetectionDatasetImporter
    from fiftyone.utils.cvat import CVATImageDatasetImporter
    from fiftyone.utils.yolo import YOLOv5DatasetImporter

    images = folder / "images/train"
    importers = {
        "coco": COCODetectionDatasetImporter(data_path=str(images), labels_path=str(folder / "coco.json")),
        "cvat": CVATImageDatasetImporter(data_path=str(images), labels_path=str(folder / "cvat.xml")),
        "yolo": YOLOv5DatasetImporter(yaml_path=str(folder / "yolo/data.yaml"), split="train", include_all_data=True),
    }
    found: Found = {}
    for name, importer in importers.items():
        within = folder / "yolo/images/train" if name == "yolo" else images
        found[name] = {}
        with importer:
            for path, metadata, label in importer:
                sizes = _size(path) if metadata is None else (metadata.width, metadata.height)
                rows = found[name][Path(path).relative_to(within).with_suffix("").as_posix()] = []
                labels = label.values() if isinstance(label, dict) else [label]
                rows += [_fiftyone_row(each, *sizes) for one in labels if one is not None for each in one.detections]
    return found


def _fiftyone_row(detection: Any, width: int, height: int) -> list[Any]:
    x, y, across, down = detection.bounding_box
    fields = detection.to_dict()
    own = {key: fields[key] for key in ("kind", "suspicion", "score") if key in fields}
    return [detection.label, x * width, y * height, across * width, down * height, detection.confidence, own]


def _size(path: str) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as image:
        return image.size


def with_datumaro(folder: Path) -> Found:
    import datumaro as dm

    def rows(dataset: Any) -> dict[str, list[Any]]:
        names = [each.name for each in dataset.categories()[dm.AnnotationType.label]]
        return {
            item.id: [
                [names[each.label], *each.get_bbox(), each.attributes.get("score"), dict(each.attributes)]
                for each in item.annotations
                if each.type == dm.AnnotationType.bbox
            ]
            for item in dataset
        }

    coco = folder / "datumaro_coco"  # as it wants it
    (coco / "annotations").mkdir(parents=True)
    (coco / "annotations/instances_train.json").write_bytes((folder / "coco.json").read_bytes())
    (coco / "images").symlink_to(folder / "images")
    cvat = folder / "datumaro_cvat"
    cvat.mkdir()
    (cvat / "annotations.xml").write_bytes((folder / "cvat.xml").read_bytes())
    (cvat / "images").symlink_to(folder / "images/train")
    kinds = {"coco": (coco, "coco_instances"), "cvat": (cvat, "cvat"), "yolo": (folder / "yolo", "yolo")}
    return {name: rows(dm.Dataset.import_from(str(path), kind)) for name, (path, kind) in kinds.items()}


def with_label_studio(folder: Path) -> Found:
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.label_interface import LabelInterface

    setup = (folder / "label_studio.setup.xml").read_text("utf-8")
    interface = LabelInterface(setup)
    interface.validate()
    tasks = json.loads((folder / "label_studio.json").read_text("utf-8"))
    for task in tasks:
        for prediction in task["predictions"]:
            assert not interface.validate_prediction(prediction, return_errors=True), task
    # an annotator accepts all of them, and exports the project
    accepted = [{"id": i, **each, "annotations": each["predictions"]} for i, each in enumerate(tasks, 1)]
    (folder / "export.json").write_text(json.dumps(accepted), "utf-8")
    converter = Converter(setup, project_dir=None, download_resources=False)
    converter.convert_to_coco(str(folder / "export.json"), str(folder / "exported"), is_dir=False)
    exported = json.loads((folder / "exported/result.json").read_text("utf-8"))
    return {"label-studio": dict(_coco_rows(exported))}


def _coco_rows(document: Any) -> Iterator[tuple[str, list[Any]]]:
    names = {each["id"]: each["name"] for each in document["categories"]}
    for image in document["images"]:
        own = [each for each in document["annotations"] if each["image_id"] == image["id"]]
        rows = [[names[each["category_id"]], *each["bbox"], None, {}] for each in own]
        yield unquote(image["file_name"].partition("?d=")[2].rpartition(".")[0]), rows


if __name__ == "__main__":
    readers = {"fiftyone": with_fiftyone, "datumaro": with_datumaro, "label-studio": with_label_studio}
    result = readers[sys.argv[1]](Path(sys.argv[2]))
    sys.stdout.write("\n" + json.dumps(result) + "\n")
