"""Names in a Bento's `src` folder, which packing writes and the service reads."""

from __future__ import annotations

NAME = "object_detector"
MODEL_FILE = "model.onnx"
CARD_FILE = "model.json"
TEST_IMAGE_STEM = "test_image"
TEST_RESULT_FILE = "test_result.json"
