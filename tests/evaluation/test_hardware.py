"""The machine is described as the system tells it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cases import cases

from pipeline.evaluation import hardware
from pipeline.evaluation.hardware import read_hardware

TOLD = "NVIDIA H200, 143771, 570.86.15\nNVIDIA H200, 143771, 570.86.15\n"


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    read = read_hardware()
    assert read.processor
    assert 1 <= read.cpus <= (os.cpu_count() or 1)
    assert read.memory_bytes > 2**28
    assert read.gpus == ()
    assert "Linux" in read.system or "macOS" in read.system


@cases(
    "script, expected",
    {
        "two": (f"printf '{TOLD}'", ("NVIDIA H200, 143771 MiB, driver 570.86.15",) * 2),
        "none": ("", ()),
        "no driver": ("echo 'NVIDIA-SMI has failed'; exit 9", ()),
        "it hangs": ("exec sleep 20", ()),
    },
)
def test_gpus_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: tuple[str, ...]
) -> None:
    """A script stands for the program of the driver, which most machines do not have."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(hardware, "_TIMEOUT", 0.5)
    assert read_hardware().gpus == expected
