"""Where a packed model runs: the choices, ONNX Runtime's execution providers, and the packages that bring them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_CPU, _CUDA, _TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

# ONNX Runtime for CUDA 13, with all that its extras `cuda` and `cudnn` need, for Linux on x86-64. It is published apart
# from the CPU's package, later and not in every version. TensorRT 10 has no wheel on PyPI: the base image brings it.
_GPU_PACKAGES = (
    "nvidia-cublas==13.10.0.20",
    "nvidia-cuda-nvrtc==13.5.37",
    "nvidia-cuda-runtime==13.5.37",
    "nvidia-cudnn-cu13==9.28.1.4",
    "nvidia-cufft==12.5.0.14",
    "nvidia-curand==10.4.5.25",
    "nvidia-nvjitlink==13.5.37",
    "onnxruntime-gpu==1.31.1",
)


@dataclass(frozen=True)
class Runtime:
    """A choice of where a model runs."""

    providers: tuple[str, ...]  # execution providers, the preferred one first; one that is not there is passed over
    packages: tuple[str, ...] = ()  # pinned requirements in place of `onnxruntime`; empty: `onnxruntime` as installed


RUNTIMES: Mapping[str, Runtime] = MappingProxyType(
    {
        "cpu": Runtime((_CPU,)),
        "cuda": Runtime((_CUDA, _CPU), _GPU_PACKAGES),
        "tensorrt": Runtime((_TENSORRT, _CUDA, _CPU), _GPU_PACKAGES),
    }
)
"""The choices by name. Without a GPU that it can use, a service runs on the CPU."""
