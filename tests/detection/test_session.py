from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from pipeline.detection.hooks import EpochRecord, InitialValidationHook, SameStatisticsHook, WarmStartHook
from pipeline.detection.hyperparameters import NEW_CLASSES, ExecutionConfig, TrainingOptions
from pipeline.detection.session import SessionResult, TrainingJob, _facts, _hooks, is_out_of_memory, rank
from pipeline.detection.tracking import TrackingHook

JOB = TrainingJob(
    options=TrainingOptions("nano", 64, 3, 8, max_minutes=2.5),
    hyperparameters=NEW_CLASSES,
    classes=("disc", "Fußgänger"),
    train_folder="/data/train",
    eval_folder="/data/eval",
    folder="/out",
    weights="/w.pth",
    resume="/resume",
    execution=ExecutionConfig(iterations=2, devices=2, micro_batch=4, mosaic=True),
    logs="/logs",
)


def test_a_job_goes_from_process_to_process(tmp_path: Path) -> None:
    JOB.write(tmp_path / "job.json")
    assert TrainingJob.read(tmp_path / "job.json") == JOB
    assert TrainingJob.read(tmp_path / "job.json").metadata.classes == ("disc", "Fußgänger")


def test_an_outcome_goes_from_process_to_process() -> None:
    records = (EpochRecord(0, {}, 0.0, 0.1, 0.2), EpochRecord(1, {"loss": 1 / 3}, 1e-3))
    outcome = SessionResult(records, 0, "no better mAP in 1 epochs", 2**34)
    assert SessionResult.from_json(outcome.to_json()) == outcome
    assert "\n" not in outcome.to_json()


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


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({"folder": "/elsewhere", "train_folder": "/t", "eval_folder": "/e"}, True, id="places"),
        pytest.param({"resume": "/r", "logs": ""}, True, id="what is kept where"),
        pytest.param({"execution": replace(JOB.execution, micro_batch=1)}, True, id="smaller parts"),
        pytest.param({"execution": replace(JOB.execution, workers=4)}, True, id="workers"),
        pytest.param({"options": replace(JOB.options, patience=3, max_minutes=0.0)}, True, id="limits"),
        pytest.param(
            {"options": replace(JOB.options, micro_batch=2, workers=3)}, True, id="parts and workers asked for"
        ),
        pytest.param({"execution": replace(JOB.execution, devices=4)}, False, id="devices"),
        pytest.param({"execution": replace(JOB.execution, mixed=True)}, False, id="precision"),
        pytest.param({"execution": replace(JOB.execution, iterations=3)}, False, id="steps"),
        pytest.param({"options": replace(JOB.options, batch_size=4)}, False, id="batch"),
        pytest.param({"options": replace(JOB.options, seed=1)}, False, id="seed"),
        pytest.param({"hyperparameters": replace(JOB.hyperparameters, weight_decay=0.1)}, False, id="hyperparameters"),
        pytest.param({"weights": ""}, False, id="no weights"),
        pytest.param({"classes": ("disc",)}, False, id="classes"),
    ],
)
def test_what_a_checkpoint_must_agree_in(change: dict[str, object], same: bool) -> None:
    assert (_facts(replace(JOB, **change)) == _facts(JOB)) == same


def test_the_facts_outlive_a_file(tmp_path: Path) -> None:
    """They are compared with what torch has read again: plain values only."""
    torch.save(_facts(JOB), tmp_path / "facts.pth")
    assert torch.load(tmp_path / "facts.pth", weights_only=True) == _facts(JOB)
    json.dumps(asdict(JOB))


@pytest.mark.parametrize(
    ("devices", "weights", "logs", "rank", "expected"),
    [
        pytest.param(1, False, False, 0, set(), id="plain"),
        pytest.param(2, False, False, 0, {SameStatisticsHook}, id="two devices"),
        pytest.param(1, True, False, 0, {WarmStartHook, InitialValidationHook}, id="pretrained"),
        pytest.param(1, False, True, 0, {TrackingHook}, id="tracked"),
        pytest.param(2, False, True, 0, {SameStatisticsHook, TrackingHook}, id="tracked, the first of two"),
        pytest.param(2, False, True, 1, {SameStatisticsHook}, id="tracked, the second of two"),
    ],
)
def test_which_hooks_there_are(
    devices: int,
    weights: bool,
    logs: bool,
    rank: int,
    expected: set[type],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Before processes have met there is only the launcher's word for which of them this is."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "as torchrun sets it")
    start = str(request.getfixturevalue("pretrained")) if weights else ""
    job = replace(JOB, execution=ExecutionConfig(1, devices=devices), weights=start, logs="/logs" if logs else "")
    told: list[int] = []
    progress, _, hooks = _hooks(job, lambda step, steps, line: told.append(step))
    kinds = {SameStatisticsHook, WarmStartHook, InitialValidationHook, TrackingHook}
    assert {type(hook) for hook in hooks} & kinds == expected
    progress._report(7, 8, "")
    assert told == ([7] if rank == 0 else [])


def test_a_clusters_rank_is_not_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes and others set the variable for the whole job."""
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert rank() == 0
