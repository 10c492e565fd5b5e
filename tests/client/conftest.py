"""A packed service, and the same one running."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_service import pack

from pipeline.client.service_process import RunningService, serve


@pytest.fixture(scope="session")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed service that knows the classes "dark" and "bright", input 64 x 64 pixels."""
    photo = np.full((48, 64, 3), 90, np.uint8)
    return pack(tmp_path_factory.mktemp("client"), 64, ("dark", "bright"), 0.3, photo).folder


@pytest.fixture(scope="session")
def other_bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with other names for the two classes."""
    photo = np.full((48, 64, 3), 90, np.uint8)
    return pack(tmp_path_factory.mktemp("other"), 64, ("night", "day"), 0.3, photo).folder


@pytest.fixture(scope="session")
def served(bento: Path) -> Iterator[RunningService]:
    """The packed service, running."""
    with serve(bento) as server:
        yield server
