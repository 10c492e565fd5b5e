from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from folders import digests_of

from pipeline.data.coco import read_coco
from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.session import TrainingJob, cut_sets, is_out_of_memory, with_own_files, write_tables
from pipeline.serving.model_metadata import ModelMetadata


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


def test_another_machine_has_the_tiles_and_the_tables_of_the_first(datasets: tuple[Path, Path], tmp_path: Path) -> None:
    options = TrainingOptions("yolox-nano", 64, tile=48)
    train, evaluation = cut_sets(datasets, options.tiling, tmp_path / "first")
    tables = write_tables(train.dataset, evaluation.dataset, evaluation.folder, tmp_path / "first" / "annotations")
    metadata, execution = ModelMetadata("nano", (64, 64), ("disc", "block"), tile=48), ExecutionConfig(1)
    job = TrainingJob(
        options, Hyperparameters(), metadata, execution, train.folder, evaluation.folder, tmp_path, None, tmp_path,
        tables=tables, uncut=datasets,
    )  # fmt: skip
    assert with_own_files(job, tmp_path / "second") == job, "the first machine has its own"
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    other = with_own_files(job, tmp_path / "second")
    assert digests_of(tmp_path / "second") == digests_of(tmp_path / "elsewhere")
    assert len(read_coco(other.train_folder / "annotations.json").images) == len(train.dataset.images)
    whole = replace(job, train_folder=datasets[0], eval_folder=datasets[1], tables=None, uncut=None)
    assert with_own_files(whole, tmp_path / "third") == whole
