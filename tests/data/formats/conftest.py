"""Fixtures of the format tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from markup_files import MarkupFiles


@pytest.fixture
def markup_files(tmp_path: Path) -> MarkupFiles:
    """An empty folder of images and one of annotation files."""
    return MarkupFiles(tmp_path)
