from __future__ import annotations

import pytest
import torch

from pipeline.detection.session import is_out_of_memory


def of_the_allocator() -> BaseException:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    return caught.value


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(of_the_allocator(), True, id="torch's own on a CPU"),
        pytest.param(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True, id="on a GPU"),
        pytest.param(RuntimeError("CUDA error: out of memory"), True, id="CUDA's"),
        pytest.param(RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), True, id="on Windows"),
        pytest.param(RuntimeError("GET was unable to find an engine to execute this computation"), True, id="cuDNN's"),
        pytest.param(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True, id="cuBLAS's"),
        pytest.param(RuntimeError("The size of tensor a (4) must match"), False, id="another of torch's"),
        pytest.param(ValueError("out of memory"), False, id="of another kind"),
        pytest.param(KeyboardInterrupt(), False, id="Ctrl-C"),
    ],
)
def test_what_says_that_memory_ran_out(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
