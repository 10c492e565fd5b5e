"""Models in OpenVINO, on a CPU."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.serving.backend import INPUT, OUTPUTS, GraphOutputs
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.runtimes import BF16, FP32

# Where `openvino_telemetry` is installed, importing OpenVINO writes a client id below the user's home and reports the
# import to Google, unless the user has opted out (openvino/tools/ovc/telemetry_utils.py, `enable_opt_in_dialog=False`).
# Without it OpenVINO uses a stub. So it is left out of services, and here it cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as importlib documents it

import openvino  # noqa: E402

log = logging.getLogger(__name__)

_HINTS = {FP32: "f32", BF16: "bf16"}  # what is not quantised in an int8 model computes in fp32


class OpenVinoBackend:
    """A model on the CPU. OpenVINO's default precision is bf16 where the CPU has it; here it is the packed one's."""

    engine = f"openvino {openvino.__version__.partition('-')[0]}"  # without that of the build
    on_cpu = True

    def __init__(self, onnx_path: Path, metadata: ModelMetadata, threads: int) -> None:
        self._wide = _compile(onnx_path, metadata.precision, threads, streams=1)
        self._narrow = _compile(onnx_path, metadata.precision, threads, streams=threads) if threads > 1 else self._wide
        self._requests = threading.local()  # a request serves one thread at a time
        self.providers = ["OpenVINO CPU"]
        self.precision = metadata.precision
        used = self._wide.get_property("INFERENCE_PRECISION_HINT").to_string()
        if metadata.precision == BF16 and used != "bf16":
            log.warning("this CPU has no bf16: the model, which was packed for it, runs in fp32")
            self.precision = FP32

    def run(self, pixels: NDArray[np.float32], *, alone: bool) -> GraphOutputs:
        """Run the graph; see `Backend`."""
        request = self._request("wide" if alone else "narrow")
        request.infer({INPUT: pixels})
        return GraphOutputs(*(np.array(request.get_tensor(name).data) for name in OUTPUTS))

    def _request(self, which: str) -> openvino.InferRequest:
        if not hasattr(self._requests, which):
            setattr(self._requests, which, getattr(self, f"_{which}").create_infer_request())
        return getattr(self._requests, which)


def _compile(onnx_path: Path, precision: str, threads: int, *, streams: int) -> openvino.CompiledModel:
    """Load a model; each stream, one of the runs side by side, has its share of the threads."""
    options = {
        "INFERENCE_PRECISION_HINT": _HINTS.get(precision, "f32"),
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # other services may be pinned to the same CPUs
    }
    core = openvino.Core()
    return core.compile_model(core.read_model(onnx_path), "CPU", options)
