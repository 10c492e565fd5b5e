from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image as Picture

from pipeline.data.coco import read_coco
from pipeline.data.subsets import write_subset
from pipeline.errors import MissingError, UsageError


def test_exactly_what_is_named(tiny, tmp_path):
    dataset, pictures = tiny
    part = dataset.subset(dataset.images[:2])
    written = write_subset(part, pictures, tmp_path / "train")
    assert read_coco(tmp_path / "train/annotations.json") == part
    assert sorted(path.name for path in (tmp_path / "train/images").iterdir()) == ["1.png", "2.png"]
    assert (written.images, written.annotations, written.classes, written.rewritten) == (2, 3, ("cat", "dog"), 0)
    assert (tmp_path / "train/images/1.png").samefile(pictures / "1.png")


def test_upright_pictures_are_written_anew(tiny, tmp_path):
    dataset, pictures = tiny
    exif = Picture.Exif()
    exif[0x0112] = 6
    with Picture.open(pictures / "1.png") as picture:
        picture.save(pictures / "1.png", exif=exif)
    before = (pictures / "1.png").read_bytes()
    assert write_subset(dataset, pictures, tmp_path / "out", upright=("1.png",)).rewritten == 1
    with Picture.open(tmp_path / "out/images/1.png") as picture:
        assert picture.size == (40, 60)
        assert picture.getexif().get(0x0112, 1) == 1
        assert np.array_equal(np.array(picture)[..., ::-1], cv2.imdecode(np.frombuffer(before, np.uint8), 1))
    assert (pictures / "1.png").read_bytes() == before


def test_absent_image(tiny, tmp_path):
    (tiny[1] / "2.png").unlink()
    with pytest.raises(MissingError, match=r"2\.png"):
        write_subset(*tiny, tmp_path / "out")


def test_folder_in_use(tiny, tmp_path):
    with pytest.raises(UsageError, match="not empty"):
        write_subset(*tiny, tmp_path)
