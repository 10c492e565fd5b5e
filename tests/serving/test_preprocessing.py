"""Letterboxing against mmdet's own Resize and Pad, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.serving.preprocessing import PAD_VALUE, letterbox, stack


@pytest.fixture(scope="module")
def mmdet_letterbox() -> Any:
    mmcv_ops = pytest.importorskip("pipeline.detection.mmcv_ops")
    mmcv_ops.install()
    transforms = pytest.importorskip("mmdet.datasets.transforms")

    def run(image: Any, size: Any) -> Any:
        height, width = size
        results = {"img": image, "img_shape": image.shape[:2]}
        results = transforms.Resize(scale=(width, height), keep_ratio=True)(results)
        pad = transforms.Pad(size=(width, height), pad_val={"img": (PAD_VALUE,) * 3})
        return pad(results)

    return run


def noise(height: Any, width: Any, seed: Any = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


sides = st.sampled_from([32, 96, 256, 416, 640])


@given(width=st.integers(1, 1100), height=st.integers(1, 1100), size=sides.map(lambda side: (side, side)))
@example(width=256, height=256, size=(256, 256))
@example(width=500, height=300, size=(256, 416))
@example(width=300, height=500, size=(416, 256))
@example(width=416, height=416, size=(256, 416))
@settings(max_examples=80, deadline=None)
def test_bit_equal_to_mmdet(mmdet_letterbox: Any, width: int, height: int, size: tuple[int, int]) -> None:
    if int(min(width, height) * min(size) / max(width, height) + 0.5) == 0:
        return  # mmdet fails on these; see the test of thin images
    image = noise(height, width)
    expected = mmdet_letterbox(image, size)
    boxed = letterbox(image, size)
    np.testing.assert_array_equal(boxed.pixels, expected["img"].transpose(2, 0, 1))
    assert (boxed.scale_x, boxed.scale_y) == tuple(expected["scale_factor"])


def test_bit_equal_to_mmdets_pad_to_square(mmdet_letterbox: Any) -> None:
    from mmdet.datasets.transforms import Pad, Resize

    image = noise(213, 320)
    results = Resize(scale=(416, 416), keep_ratio=True)({"img": image, "img_shape": (213, 320)})
    results = Pad(pad_to_square=True, pad_val={"img": (114.0, 114.0, 114.0)})(results)
    np.testing.assert_array_equal(letterbox(image, (416, 416)).pixels, results["img"].transpose(2, 0, 1))


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), size=st.tuples(*[st.integers(8, 200)] * 2))
@settings(max_examples=60, deadline=None)
def test_the_image_fills_the_input_along_one_side(width: Any, height: Any, size: Any) -> None:
    boxed = letterbox(np.zeros((height, width, 3), np.uint8), size)
    assert boxed.pixels.shape == (3, *size)
    new_w, new_h = round(boxed.scale_x * width), round(boxed.scale_y * height)
    assert new_w == size[1] or new_h == size[0]
    assert not boxed.pixels[:, :new_h, :new_w].any()
    assert (boxed.pixels[:, new_h:] == PAD_VALUE).all()
    assert (boxed.pixels[:, :, new_w:] == PAD_VALUE).all()


def test_a_line_too_thin_to_round_keeps_one_pixel() -> None:
    boxed = letterbox(np.zeros((5000, 1, 3), np.uint8), (96, 96))
    assert (boxed.scale_x, boxed.scale_y) == (1.0, 96 / 5000)
    assert not boxed.pixels[:, :, 0].any()


def test_a_batch_is_floats_of_the_same_pixels() -> None:
    images = [letterbox(noise(50, 80, seed), (96, 96)) for seed in range(3)]
    batch = stack(images)
    assert batch.dtype == np.float32
    assert batch.shape == (3, 3, 96, 96)
    np.testing.assert_array_equal(batch[2], images[2].pixels)
