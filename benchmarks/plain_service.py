"""The service that everyone writes: FastAPI and ONNX Runtime in thirty lines. `bench_serving.py` measures it.

    MODEL=model.onnx SIZE=416 python benchmarks/plain_service.py PORT

uvloop and httptools, two worker threads, one ONNX Runtime thread a run. It is given the packed model, whose graph
decodes and suppresses already.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import cv2
import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, UploadFile

MODEL, SIZE = os.environ.get("MODEL", ""), int(os.environ.get("SIZE", "416"))
THREADS = 2


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    app.state.session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    cv2.setNumThreads(1)
    yield


app = FastAPI(lifespan=lifespan)


def detect(data: bytes, threshold: float) -> dict[str, Any]:
    """Detect objects in one image file."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    height, width = image.shape[:2]
    ratio = min(SIZE / height, SIZE / width)
    canvas = np.full((SIZE, SIZE, 3), 114, np.uint8)
    new_width, new_height = int(width * ratio + 0.5), int(height * ratio + 0.5)
    canvas[:new_height, :new_width] = cv2.resize(image, (new_width, new_height))
    batch = canvas.transpose(2, 0, 1)[None].astype(np.float32)
    _, boxes, scores, labels = app.state.session.run(None, {"images": batch})
    kept = scores >= threshold
    rows = zip((boxes[kept] / ratio).tolist(), scores[kept].tolist(), labels[kept].tolist(), strict=True)
    return {"width": width, "height": height, "detections": [{"box": b, "score": s, "label": c} for b, s, c in rows]}


@app.post("/predict")
def predict(images: list[UploadFile], score_threshold: float = 0.3) -> list[dict[str, Any]]:
    """Detect objects in image files."""
    return [detect(image.file.read(), score_threshold) for image in images]


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False, loop="uvloop",
        http="httptools",
    )  # fmt: skip
