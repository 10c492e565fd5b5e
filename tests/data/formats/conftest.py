"""Fixtures of the format tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotation_folder import AnnotationFolder


@pytest.fixture
def annotation_folder(tmp_path: Path) -> AnnotationFolder:
    """An empty folder of images and one of annotation files."""
    return AnnotationFolder(tmp_path)
