"""Where and how a packed model runs: the runtimes, their packages, and the precisions that each can compute in."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.errors import DataError, MissingError, did_you_mean

FP32, BF16, INT8 = "fp32", "bf16", "int8"
PRECISIONS = (FP32, BF16, INT8)

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

    # ONNX Runtime's execution providers, the preferred one first; one that is not there is passed over
    providers: tuple[str, ...] = ()
    precisions: tuple[str, ...] = (FP32,)
    engine: str = "onnxruntime"  # the package that runs the model, of the version that is installed here
    gpu_packages: tuple[str, ...] = ()  # pinned requirements that take the place of the engine in a service for GPUs


RUNTIMES: Mapping[str, Runtime] = MappingProxyType(
    {
        "cpu": Runtime((_CPU,), (FP32, INT8)),
        "openvino": Runtime(precisions=PRECISIONS, engine="openvino"),
        "cuda": Runtime((_CUDA, _CPU), gpu_packages=_GPU_PACKAGES),
        "tensorrt": Runtime((_TENSORRT, _CUDA, _CPU), gpu_packages=_GPU_PACKAGES),
    }
)
"""The choices by name. Without a GPU that it can use, a service runs on the CPU."""

FORMS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {f"{name}-{precision}": (name, precision) for name, each in RUNTIMES.items() for precision in each.precisions}
)
"""Runtime and precision of each form that a model can be packed in, by the form's name, such as `openvino-int8`."""


def check_form(runtime: str, precision: str) -> None:
    """Check that there is a runtime of this name, and that it computes in this precision.

    Raises:
        DataError: There is none, or it does not.
    """
    for kind, name, names in (("runtime", runtime, [*RUNTIMES]), ("precision", precision, PRECISIONS)):
        if name not in names:
            expected, remedy = f"one of {', '.join(names)}", did_you_mean(name, names)
            raise DataError(f"there is no {kind} {name!r}", expected=expected, remedy=remedy)
    if precision not in RUNTIMES[runtime].precisions:
        able = [name for name, each in RUNTIMES.items() if precision in each.precisions]
        own = " or ".join(RUNTIMES[runtime].precisions)
        raise DataError(
            f"the runtime {runtime!r} does not compute in {precision}",
            expected=f"for {runtime}, {own}; for {precision}, {' or '.join(able)}",
            remedy="change runtime or precision",
        )


def check_forms(runtime: str, precision: str, forms: Sequence[str]) -> None:
    """Check that no further form is named twice, or is that of the service itself.

    Raises:
        DataError: One is.
    """
    names = [f"{runtime}-{precision}", *forms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"a form is packed twice: {', '.join(twice)}",
            expected=f"forms other than that of the service, {names[0]}, each of them once",
        )


def require_engine(runtime: str) -> None:
    """Check that what runs a model is installed here, where the service is packed.

    Raises:
        MissingError: It is not.
    """
    engine = RUNTIMES[runtime].engine
    if importlib.util.find_spec(engine) is None:
        problem = f"the package {engine!r}, which the runtime {runtime!r} needs, is not installed"
        raise MissingError(problem, remedy=f"pip install {engine}")
