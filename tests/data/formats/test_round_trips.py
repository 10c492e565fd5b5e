"""One COCO data set, written in every format by this project, supervision and globox, read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import globox
import numpy as np
import pytest
import supervision
from cases import cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written_formats import SAYS_CROWD, SAYS_EMPTY, SAYS_UNUSED, WRITERS

from pipeline.data.archives.unpacking import unpack
from pipeline.data.coco import Annotation, Category, CocoDataset, Image, read_coco, write_coco
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.reading import read_annotations

SLACK = 0.5 + 1e-3  # pixels; formats round, and so does the comparison

Objects = dict[str, list[tuple[str, tuple[float, ...], int]]]


def objects_of(dataset: CocoDataset) -> Objects:
    """Class, box and crowd of the objects of each image, in order."""
    names = {each.id: each.name for each in dataset.categories}
    groups = dataset.by_image()
    return {
        image.file_name: [(names[each.category_id], each.bbox, each.iscrowd) for each in groups.get(image.id, [])]
        for image in dataset.images
    }


def assert_same(found: CocoDataset, written: CocoDataset, *, crowd: bool, empty: bool, unused: bool) -> None:
    """The same boxes within half a pixel, classes, sizes and crowds, as far as the format can say them."""
    there, expected = objects_of(found), objects_of(written)
    if not empty:
        expected = {name: objects for name, objects in expected.items() if objects}
    assert sorted(there) == sorted(expected)
    sizes = {image.file_name: (image.width, image.height) for image in written.images}
    assert {image.file_name: (image.width, image.height) for image in found.images} == {
        name: sizes[name] for name in there
    }
    for name, objects in expected.items():
        assert [each[0] for each in there[name]] == [each[0] for each in objects]
        assert [each[2] for each in there[name]] == [each[2] if crowd else 0 for each in objects]
        for (_, box, _), (_, original, _) in zip(there[name], objects, strict=True):
            corners = [(x, y, x + width, y + height) for x, y, width, height in (box, original)]
            assert np.abs(np.subtract(*corners)).max() <= SLACK, (name, box, original)
    used = {each[0] for objects in expected.values() for each in objects}
    assert set(found.classes) == (set(written.classes) if unused else used)
    if unused:
        assert found.classes == written.classes


@pytest.fixture(scope="module")
def photographs(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CocoDataset, Path, Path]:
    """COCO's photographs with their annotations: the data set, the images' folder, the annotations' file."""
    folder = tmp_path_factory.mktemp("coco")
    images = unpack(real_data / "val2017.zip", folder / "unpacked") / "val2017"
    unpacked = unpack(real_data / "annotations_trainval2017.zip", folder / "markup")
    # Without outlines, of which supervision would make masks, and write the boxes around those.
    dataset = read_coco(unpacked / "annotations" / "instances_val2017.json")
    dataset = replace(dataset, annotations=tuple(replace(each, segmentation=None) for each in dataset.annotations))
    write_coco(dataset, folder / "a.json")
    return dataset, images, folder / "a.json"


@pytest.mark.parametrize("writer", WRITERS)
def test_real_photographs_pass_through_every_format(
    photographs: tuple[CocoDataset, Path, Path], tmp_path: Path, writer: Any
) -> None:
    dataset, images, _ = photographs
    name, write = WRITERS[writer]
    write(dataset, tmp_path)
    index = ImageIndex(images, [image.file_name for image in dataset.images])
    found = read_annotations(tmp_path, index).dataset
    assert (len(dataset.images), len(dataset.annotations)) == (159, 1363)
    assert sum(each.iscrowd for each in found.annotations) == (13 if writer in SAYS_CROWD else 0)
    says = {"crowd": writer in SAYS_CROWD, "empty": writer in SAYS_EMPTY, "unused": writer in SAYS_UNUSED}
    assert_same(found, dataset, **says)
    assert_same(read_annotations(tmp_path, index, format=name).dataset, dataset, **says)
    assert index.unreadable == []


def _supervision(kind: str, file: Path, images: Path, folder: Path) -> None:
    dataset = supervision.DetectionDataset.from_coco(str(images), str(file))
    if kind == "yolo":
        dataset.as_yolo(annotations_directory_path=str(folder / "labels"), data_yaml_path=str(folder / "data.yaml"))
    elif kind == "voc":
        dataset.as_pascal_voc(annotations_directory_path=str(folder / "Annotations"))
    elif kind == "labelme":
        dataset.as_labelme(annotations_directory_path=str(folder / "shapes"))
    else:
        dataset.as_coco(annotations_path=str(folder / "a.json"))


def _globox(kind: str, file: Path, images: Path, folder: Path) -> None:
    boxes = globox.AnnotationSet.from_coco(file)
    if kind == "yolo":
        classes = sorted(boxes._labels())
        boxes.save_yolo_v5(folder, label_to_id={name: i for i, name in enumerate(classes)})
        (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    elif kind in {"voc", "labelme"}:
        {"voc": boxes.save_pascal_voc, "labelme": boxes.save_labelme}[kind](folder)
    else:
        save = {"cvat": boxes.save_cvat, "csv": boxes.save_openimage, "coco": boxes.save_coco}[kind]
        save(folder / {"cvat": "annotations.xml", "csv": "boxes.csv", "coco": "a.json"}[kind])


@cases(
    "write, name, says",
    {
        "supervision yolo": (_supervision, "yolo", {"empty", "unused"}),
        "supervision voc": (_supervision, "voc", {"empty"}),
        "supervision labelme": (_supervision, "labelme", {"empty"}),
        "supervision coco": (_supervision, "coco", {"empty", "unused", "crowd"}),
        "globox yolo v5": (_globox, "yolo", {"empty"}),
        "globox voc": (_globox, "voc", {"empty"}),
        "globox cvat": (_globox, "cvat", {"empty"}),
        "globox labelme": (_globox, "labelme", {"empty"}),
        "globox open images": (_globox, "csv", set()),
        "globox coco": (_globox, "coco", {"empty", "unused"}),
    },
)
def test_reads_what_the_libraries_write(
    photographs: tuple[CocoDataset, Path, Path], tmp_path: Path, write: Any, name: str, says: set[str]
) -> None:
    dataset, images, file = photographs
    write(name, file, images, tmp_path)
    index = ImageIndex(images, [image.file_name for image in dataset.images])
    found = read_annotations(tmp_path, index, format=name).dataset
    assert_same(found, dataset, **{what: what in says for what in ("crowd", "empty", "unused")})


def _read_by_supervision(name: str, folder: Path, images: Path, classes: Any) -> dict[str, tuple[list[str], Any]]:
    """Class and corners of the objects of each image."""
    reader = supervision.DetectionDataset
    if name == "yolo":
        read = reader.from_yolo(str(images), str(folder / "labels"), str(folder / "data.yaml"))
    elif name == "voc":
        read = reader.from_pascal_voc(str(images), str(folder / "Annotations"))
    else:
        read = reader.from_labelme(str(images), str(folder))
    found = {Path(path).name: each for path, each in read.annotations.items()}
    return {image: ([read.classes[i] for i in each.class_id], each.xyxy) for image, each in found.items()}


def _read_by_globox(name: str, folder: Path, images: Path, classes: Any) -> dict[str, tuple[list[str], Any]]:
    if name == "yolo":
        read = globox.AnnotationSet.from_yolo_darknet(folder / "labels", image_folder=images)
        read.map_labels({str(i): each for i, each in enumerate(classes)})
    elif name == "labelme":
        read = globox.AnnotationSet.from_labelme(folder)
    else:
        read = globox.AnnotationSet.from_cvat(folder / "annotations.xml")
    found = {image: read[image].boxes for image in read.image_ids}
    return {image: ([each.label for each in boxes], [each.ltrb for each in boxes]) for image, boxes in found.items()}


@pytest.mark.parametrize(
    ("read", "name"),
    [(_read_by_supervision, each) for each in ("yolo", "voc", "labelme")]
    + [(_read_by_globox, each) for each in ("yolo", "labelme", "cvat")],
)
def test_the_libraries_read_the_same(
    photographs: tuple[CocoDataset, Path, Path], tmp_path: Path, read: Any, name: str
) -> None:
    dataset, images, _ = photographs
    dataset = dataset.subset(dataset.images[: 12 if read is _read_by_supervision else None])
    (tmp_path / "images").mkdir()
    for image in dataset.images:
        (tmp_path / "images" / image.file_name).symlink_to(images / image.file_name)
    WRITERS[name][1](dataset, tmp_path / "annotations")
    index = ImageIndex(images, [image.file_name for image in dataset.images])
    ours = objects_of(read_annotations(tmp_path / "annotations", index).dataset)
    theirs = read(name, tmp_path / "annotations", tmp_path / "images", dataset.classes)
    assert sorted(theirs) == sorted(ours)
    for image, objects in ours.items():
        labels, found = theirs[image]
        assert [each[0] for each in objects] == labels
        corners = [(x, y, x + width, y + height) for _, (x, y, width, height), _ in objects]
        assert np.allclose(np.reshape(corners, (-1, 4)), np.reshape(found, (-1, 4)), atol=0.01)


@st.composite
def datasets(draw: st.DrawFn) -> CocoDataset:
    """Any valid data set: images in folders, some of one name, boxes within them, classes of any letters."""
    letters = st.characters(codec="utf-8", exclude_categories=("C", "Z"))
    classes = draw(st.lists(st.text(letters, min_size=1, max_size=8), min_size=1, max_size=4, unique=True))
    categories = tuple(Category(i * 7 + 3, name) for i, name in enumerate(classes))
    stems = st.tuples(st.sampled_from(["", "train/", "b c/ü/"]), st.sampled_from(["a", "b", "B.c", "1", "labels"]))
    names = draw(st.lists(stems, min_size=1, max_size=5, unique=True))
    side = st.integers(1, 300)
    images = tuple(
        Image(i + 1, f"{folder}{stem}{draw(st.sampled_from(['.png', '.bmp']))}", draw(side), draw(side))
        for i, (folder, stem) in enumerate(sorted(names))
    )
    part, annotations = st.floats(0, 1), list[Annotation]()
    for image in images:
        for _ in range(draw(st.integers(0, 3))):
            x, y = draw(part) * (image.width - 0.5), draw(part) * (image.height - 0.5)
            across, down = draw(part) * (image.width - x), draw(part) * (image.height - y)
            kind, crowd = draw(st.sampled_from(categories)).id, draw(st.integers(0, 1))
            box = (x, y, max(across, 0.05), max(down, 0.05))
            annotations.append(Annotation(len(annotations) + 1, image.id, kind, box, box[2] * box[3], crowd))
    return CocoDataset(images, tuple(annotations), categories)


@pytest.mark.parametrize("writer", WRITERS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(dataset=datasets())
def test_any_data_set_survives_conversion(writer: Any, dataset: Any) -> None:
    with TemporaryDirectory() as temporary:
        images, annotations = Path(temporary, "images"), Path(temporary, "annotations")
        for image in dataset.images:
            (images / image.file_name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(images / image.file_name), np.zeros((image.height, image.width), np.uint8))
        WRITERS[writer][1](dataset, annotations)
        index = ImageIndex(images, [image.file_name for image in dataset.images])
        if writer not in SAYS_EMPTY and not dataset.annotations:
            return
        found = read_annotations(annotations, index, format=WRITERS[writer][0]).dataset
    says = {"crowd": writer in SAYS_CROWD, "empty": writer in SAYS_EMPTY, "unused": writer in SAYS_UNUSED}
    assert_same(found, dataset, **says)
