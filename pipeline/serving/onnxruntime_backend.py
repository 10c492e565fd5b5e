"""Models in ONNX Runtime, on a CPU or a GPU."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Without it ONNX Runtime 1.29 and later write a device id below the user's home and report every session to Microsoft.
# It must be set before the library is loaded (microsoft/onnxruntime, docs/Privacy.md). Users who want to report set 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as onnxruntime  # exported: nobody else may load it first

from pipeline.serving.backend import INPUT, OUTPUTS, GraphOutputs
from pipeline.serving.model_metadata import ModelMetadata


class OnnxRuntimeBackend:
    """A model on the first of its execution providers that is there."""

    engine = f"onnxruntime {onnxruntime.__version__}"

    def __init__(self, onnx_path: Path, metadata: ModelMetadata, threads: int) -> None:
        available = onnxruntime.get_available_providers()
        wanted = [name for name in metadata.providers if name in available]
        if len(wanted) > 1:
            onnxruntime.preload_dlls()  # NVIDIA's libraries, from the packages beside ONNX Runtime
        self._wide = _session(onnx_path, threads, wanted)
        self.providers = list(self._wide.get_providers())
        self.precision = metadata.precision
        self.on_cpu = self.providers[0] == "CPUExecutionProvider"
        # a run on the calling thread alone, for as many side by side as there are threads
        self._narrow = _session(onnx_path, 1, wanted) if self.on_cpu and threads > 1 else self._wide

    def run(self, pixels: NDArray[np.float32], *, alone: bool) -> GraphOutputs:
        """Run the graph; see `Backend`."""
        session = self._wide if alone else self._narrow
        return GraphOutputs(*session.run(list(OUTPUTS), {INPUT: pixels}))


def _session(onnx_path: Path, threads: int, providers: list[str]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # threads spin while they wait for the next operator of a run, but not for the next run, which would slow others
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(onnx_path, options, providers=providers)
