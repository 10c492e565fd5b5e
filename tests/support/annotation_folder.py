"""Small folders of annotation files and images, for tests of formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from PIL import Image

from pipeline.data.coco import CocoDataset
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.reading import read_annotations
from pipeline.errors import DataError


class AnnotationFolder:
    """A folder of images of 100x50 and one of annotation files."""

    def __init__(self, folder: Path) -> None:
        self.images, self.folder = folder / "images", folder / "annotations"
        self.images.mkdir()
        self.folder.mkdir()
        self.names: list[str] = []

    def image(self, *names: str) -> None:
        for name in names:
            (self.images / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (100, 50)).save(self.images / name)
            self.names.append(name)

    def write(self, files: Mapping[str, Any]) -> None:
        """Texts and bytes as they are, all else as JSON."""
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")

    @property
    def index(self) -> ImageIndex:
        return ImageIndex(self.images, self.names)

    def read(self, format: str = "", member: str = "") -> CocoDataset:  # noqa: A002
        return read_annotations(self.folder, self.index, format=format, member=member).dataset

    def dataset(self, files: Mapping[str, Any], *images: str, format: str = "") -> CocoDataset:  # noqa: A002
        """Write images and annotation files, and read them."""
        self.image(*images)
        self.write(files)
        return self.read(format)

    def boxes(self, files: Mapping[str, Any], *images: str) -> dict[str, list[tuple[Any, ...]]]:
        """Write images and annotation files, and read class and box by image."""
        return boxes_of(self.dataset(files, *images))


def boxes_of(dataset: CocoDataset) -> dict[str, list[tuple[Any, ...]]]:
    """Class and box, rounded, by image."""
    names, groups = {each.id: each.name for each in dataset.categories}, dataset.by_image()
    return {
        image.file_name: [
            (names[each.category_id], *(round(value, 3) for value in each.bbox)) for each in groups.get(image.id, [])
        ]
        for image in dataset.images
    }


def subsets_of(dataset: CocoDataset) -> dict[str, str]:
    return {image.file_name: image.extra.get("subset", "") for image in dataset.images}


def refusals(rows: Mapping[str, Any], beside: Mapping[str, Any] | None = None, format: str = "") -> Callable[..., None]:  # noqa: A002
    """A test that annotations of an image `a.jpg` are refused: by name, the files and what is said of them."""

    @cases("files, said", rows)
    def test(annotation_folder: AnnotationFolder, files: Mapping[str, Any], said: str) -> None:
        annotation_folder.image("a.jpg")
        annotation_folder.write({**(beside or {}), **files})
        with pytest.raises(DataError, match=f"(?s){said}"):
            annotation_folder.read(format)

    return test
