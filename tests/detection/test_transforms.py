"""Images loaded once against mmdet's own transforms, which load them every time."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pipeline.detection import mmcv_ops
from pipeline.errors import DataError

mmcv_ops.install()

import mmdet.datasets  # noqa: E402, F401  # fills the registry
from mmcv.transforms import Compose  # noqa: E402
from mmdet.datasets.transforms import YOLOXHSVRandomAug  # noqa: E402
from mmdet.models.data_preprocessors import DetDataPreprocessor  # noqa: E402
from mmengine.dataset import pseudo_collate  # noqa: E402
from mmengine.registry import FUNCTIONS, DefaultScope  # noqa: E402

from pipeline.detection.transforms import HSVByTable, LoadFitted, stack_channels_last  # noqa: E402

SCALE = (96, 96)
SIZES = [(640, 427), (333, 500), (96, 96), (97, 96), (96, 95), (50, 31), (1, 100), (1000, 7), (1, 1)]
PAD = {"type": "Pad", "pad_to_square": True, "pad_val": {"img": (114.0,) * 3}}
LABELS = {"type": "LoadAnnotations", "with_bbox": True}
LOAD = {"type": "LoadImageFromFile", "backend_args": None}
RESIZE = {"type": "Resize", "scale": SCALE, "keep_ratio": True}
FIT = {"type": "LoadFitted", "scale": SCALE, "memory": 10**8}


def pipeline(*transforms: dict[str, Any]) -> Compose:
    with DefaultScope.overwrite_default_scope("mmdet"):
        return Compose(list(transforms))


def picture(folder: Path, width: int, height: int, suffix: str = ".png") -> Path:
    path = folder / f"{width}x{height}{suffix}"
    canvas = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(path), canvas)
    return path


def record(path: Path) -> dict[str, Any]:
    """As a data set would: one box within, one across every border, one of a crowd."""
    height, width = cv2.imread(str(path)).shape[:2]
    boxes = [
        ([0.1 * width, 0.2 * height, 0.7 * width, 0.9 * height], 0),
        ([-3.0, -2.0, width + 5.0, height + 1.5], 0),
        ([0.5 * width, 0.5 * height, 0.8 * width, 0.6 * height], 1),
    ]
    instances = [{"bbox": box, "bbox_label": i, "ignore_flag": crowd} for i, (box, crowd) in enumerate(boxes)]
    return {"img_path": str(path), "img_id": 7, "height": height, "width": width, "instances": instances}


def assert_same(ours: Any, theirs: Any) -> None:
    """Of results or packed samples: same keys, types and bytes."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif hasattr(theirs, "metainfo"):
        assert_same(ours.metainfo, theirs.metainfo)
        assert_same(dict(ours.items()), dict(theirs.items()))
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    else:
        theirs, ours = (getattr(value, "tensor", value) for value in (theirs, ours))
        assert torch.equal(ours, theirs) if isinstance(theirs, torch.Tensor) else ours == theirs


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("again", [False, True], ids=["loaded", "kept"])
def test_the_results_are_those_of_loading_and_resizing(tmp_path: Path, width: int, height: int, again: bool) -> None:
    path = picture(tmp_path, width, height)
    ours, theirs = pipeline(LABELS, FIT), pipeline(LOAD, LABELS, RESIZE)
    if again:
        ours(record(path))

    assert_same(ours(record(path)), theirs(record(path)))


def test_photographs_grey_and_turned_images_are_read_as_by_mmdet(tmp_path: Path, photographs: list[Path]) -> None:
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), cv2.imread(str(photographs[0]), cv2.IMREAD_GRAYSCALE))
    turned = tmp_path / "turned.jpg"
    content = photographs[0].read_bytes()
    # after the start of image: EXIF of one entry, orientation 6
    exif = bytes.fromhex("45786966000049492a00080000000100120103000100000006000000000000000000")
    turned.write_bytes(content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:])
    assert cv2.imread(str(turned)).shape[:2] == cv2.imread(str(photographs[0])).shape[1::-1]
    ours, theirs = pipeline(LABELS, FIT), pipeline(LOAD, LABELS, RESIZE)

    for path in (*photographs, grey, turned):
        assert_same(ours(record(path)), theirs(record(path)))


def test_a_line_keeps_one_pixel(tmp_path: Path) -> None:
    results = LoadFitted(SCALE)({"img_path": str(picture(tmp_path, 1000, 1))})
    assert (results["img"].shape, results["ori_shape"]) == ((1, 96, 3), (1, 1000))
    assert results["scale_factor"] == (0.096, 1.0)


@pytest.mark.parametrize("seed", range(8))
def test_a_mosaic_of_fitted_images_is_mmdets(tmp_path: Path, seed: int) -> None:
    raw = [record(picture(tmp_path, *size)) for size in ((640, 427), (50, 31), (333, 500), (96, 96))]
    raw[seed % 4]["instances"] = []
    load = pipeline(LABELS, FIT)
    made = []
    for kind in ("FittedMosaic", "Mosaic"):
        mosaic = pipeline({"type": kind, "img_scale": SCALE, "pad_val": 114, "prob": 0.8})
        [whole, *others] = [load(dict(each)) for each in raw]
        np.random.seed(seed)
        made.append(mosaic(whole | {"mix_results": others}))
        del made[-1]["mix_results"]

    assert_same(*made)


def test_what_is_kept_needs_no_file_and_cannot_be_altered(tmp_path: Path) -> None:
    path = picture(tmp_path, 60, 40)
    load = LoadFitted(SCALE, 10**6)
    first = load({"img_path": str(path)})["img"]
    expected = first.copy()
    first[:] = 0
    path.unlink()

    second = load({"img_path": str(path)})["img"]
    np.testing.assert_array_equal(second, expected)
    second[:] = 0
    np.testing.assert_array_equal(load({"img_path": str(path)})["img"], expected)


def test_no_more_is_kept_than_there_is_memory_for(tmp_path: Path) -> None:
    paths = [picture(tmp_path, 96, height) for height in (96, 95, 94, 10)]
    load = LoadFitted(SCALE, memory=2 * 96 * 96 * 3)
    for path in paths:
        load({"img_path": str(path)})
        path.unlink()

    for path in (paths[0], paths[1]):
        load({"img_path": str(path)})
    with pytest.raises(DataError, match="96x94"):
        load({"img_path": str(paths[2])})
    with pytest.raises(DataError, match="96x10"):  # the two leave no room for even this
        load({"img_path": str(paths[3])})


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda load: pickle.loads(pickle.dumps(load))])
def test_a_copy_starts_with_nothing_kept(tmp_path: Path, duplicate: Any) -> None:
    path = picture(tmp_path, 96, 96)
    load = LoadFitted(SCALE, memory=96 * 96 * 3)
    load({"img_path": str(path)})
    assert len(pickle.dumps(load)) < 1000

    other = duplicate(load)
    picture(tmp_path, 96, 50).rename(path)
    assert load({"img_path": str(path)})["img_shape"] == (96, 96)
    assert other({"img_path": str(path)})["img_shape"] == (50, 96)
    path.unlink()
    assert other({"img_path": str(path)})["img_shape"] == (50, 96)  # has all the memory for its own


@pytest.mark.parametrize("content", [None, b"", b"no image", "truncated"], ids=str)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "bad.png"
    if content == "truncated":
        content = picture(tmp_path, 60, 40).read_bytes()[:20]
    if content is not None:
        path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"bad\.png"):
        LoadFitted(SCALE)({"img_path": str(path)})


@pytest.mark.parametrize("gains", [(0, 0, 0), (5, 30, 30), (-5, -30, -30), (4, -17, 29), (-1, 1, 0)], ids=str)
def test_colours_change_as_in_mmdet(gains: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 217, 3), dtype=np.uint8)
    noise[:256, :3] = np.arange(256, dtype=np.uint8)[:, None, None]  # greys have no hue
    theirs, ours = YOLOXHSVRandomAug(), HSVByTable()
    theirs._get_hsv_gains = ours._get_hsv_gains = lambda: np.array(gains, np.int16)

    assert_same(ours({"img": noise.copy()}), theirs({"img": noise.copy()}))


def test_a_batch_reaches_the_model_channels_last(photographs: list[Path]) -> None:
    theirs = pipeline(LOAD, RESIZE, PAD, LABELS, {"type": "PackDetInputs"})
    ours = pipeline(FIT, PAD, LABELS, {"type": "PackChannelsLast"})
    assert FUNCTIONS.get("stack_channels_last") is stack_channels_last
    batch = stack_channels_last([ours(record(path)) for path in photographs])
    assert batch["inputs"].dtype == torch.uint8
    prepare = DetDataPreprocessor(pad_size_divisor=32, pad_value=114)

    made = prepare(batch, training=True)
    expected = prepare(pseudo_collate([theirs(record(path)) for path in photographs]), training=True)

    assert made["inputs"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(made["inputs"], expected["inputs"])
    for sample, other in zip(made["data_samples"], expected["data_samples"], strict=True):
        assert_same(sample, other)
