"""A packed service, the same with other names for its classes, and a project whose runs deliver one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tiny_service import pack

CONFIG = """\
name: toy
deliver:
  bento_service: "serve {path}"
"""
PACK = """\
import shutil
shutil.copytree(source, step.outputs["bento_service"], dirs_exist_ok=True)
if broken:
    next(step.outputs["bento_service"].rglob("model.onnx")).write_bytes(b"broken")
if fails:
    raise ValueError("no such luck")"""
PARAMETERS = """\
source: str = ""  # the folder of a Bento
broken: bool = False  # spoil its model
fails: bool = False  # end with an error"""


def packed(folder: Path, classes: tuple[str, str]) -> Path:
    return pack(folder, 64, classes, 0.3, np.full((48, 64, 3), 90, np.uint8)).folder


@pytest.fixture(scope="session")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed service that knows the classes "dark" and "bright", input 64 x 64 pixels."""
    return packed(tmp_path_factory.mktemp("bento"), ("dark", "bright"))


@pytest.fixture(scope="session")
def other_bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with other names for the two classes."""
    return packed(tmp_path_factory.mktemp("other"), ("night", "day"))


@pytest.fixture
def packing(toy: Any, in_process: None) -> Any:
    """A project of one step, which packs a service."""
    for name in ("first", "second", "third"):
        (toy.root / "steps" / f"{name}.ipynb").unlink()
    (toy.root / "configs" / "demo.yaml").write_text(CONFIG)
    cells = toy.cells_of("first")[:2]
    cells += [("parameters", PARAMETERS), ("interface", 'step = Step.open("pack", reads=[], writes=["bento_service"])')]
    toy.notebook("pack", [*cells, ("md", "Pack."), ("", PACK), ("md", "Publish."), ("", "step.commit(metrics={})")])
    return toy


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures in grey: bright, dark, black, and one in a folder."""
    folder = tmp_path / "photos"
    for name, grey in {"bright.png": 200, "dark.jpg": 100, "black.png": 0, "sub/bright.bmp": 180}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((64, 64, 3), grey, np.uint8))
    return folder


@pytest.fixture
def started() -> Any:
    """Starts `python -m pipeline ...` as a process of its own; all are ended after the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        root = Path(__file__).parents[2]
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=cwd or root,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root), **environment},
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
