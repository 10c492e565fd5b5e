from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import exif_of
from PIL import Image as Picture

from pipeline.data.coco import CocoDataset, Image, read_coco
from pipeline.data.dataset_folder import write_subset
from pipeline.errors import DataError, MissingError, UsageError


def test_exactly_what_is_named(tiny: tuple[CocoDataset, Path], tmp_path: Path) -> None:
    dataset, pictures = tiny
    part = dataset.subset(dataset.images[:2])
    write_subset(part, pictures, tmp_path / "train")
    assert read_coco(tmp_path / "train/annotations.json") == part
    assert sorted(path.name for path in (tmp_path / "train/images").iterdir()) == ["1.png", "2.png"]
    assert (tmp_path / "train/images/1.png").samefile(pictures / "1.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
@pytest.mark.parametrize("name", ["a.jpg", "a.PNG", "a"])
def test_a_picture_keeps_its_name_and_the_format_of_its_bytes(tmp_path: Path, kind: str, name: str) -> None:
    """Names from outside need not say what a file is, and everything after reads the bytes alone."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :20] = 250
    (tmp_path / "in").mkdir()
    Picture.fromarray(pixels).save(tmp_path / "in" / name, kind, exif=exif_of(8))
    dataset = CocoDataset((Image(1, name, 40, 60),), (), ())
    before = (tmp_path / "in" / name).read_bytes()
    write_subset(dataset, tmp_path / "in", tmp_path / "out", upright=(name,))
    assert (tmp_path / "in" / name).read_bytes() == before
    with Picture.open(tmp_path / "out/images" / name) as picture:
        assert (picture.format, picture.size) == (kind.upper(), (40, 60))
        assert picture.getexif().get(0x0112, 1) == 1
        assert np.array(picture.convert("L"))[-20:].min() > 240  # the left edge is below, after a turn to the left


def test_refused(tiny: tuple[CocoDataset, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not empty"):
        write_subset(*tiny, tmp_path)
    (tiny[1] / "2.png").write_bytes(b"no picture, so it cannot be turned")
    with pytest.raises(DataError):
        write_subset(*tiny, tmp_path / "out", upright=("2.png",))
    (tiny[1] / "2.png").unlink()
    with pytest.raises(MissingError, match=r"2\.png"):
        write_subset(*tiny, tmp_path / "other")
