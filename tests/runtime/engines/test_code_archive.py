"""The code that travels with a job."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from folders import fill
from git_checkout import commit_all

from pipeline.errors import UsageError
from pipeline.runtime.engines import code_archive as module
from pipeline.runtime.engines.code_archive import code_archive

TREE = {"steps/a.ipynb": b"{}", "step.dev.py": b"", "gone.py": b"", ".gitignore": b".store/\nsecret.env\n"}


def names(archive: bytes) -> list[str]:
    """Names in an archive, without this package's own."""
    found = zipfile.ZipFile(io.BytesIO(archive)).namelist()
    assert "pipeline/runtime/engines/ray_job.py" in found, "the package comes along from where it is installed"
    assert not any("__pycache__" in name for name in found)
    return [name for name in found if not name.startswith("pipeline/")]


def test_the_tree_travels_as_it_is_without_what_git_ignores_and_its_history(tmp_path: Path) -> None:
    commit_all(fill(tmp_path, TREE))
    (tmp_path / "gone.py").unlink()
    fill(tmp_path, {"new.py": b"1", "step.dev.py": b"changed", "secret.env": b"s3cret", ".store/x": b"", "ä.py": b""})
    archive = code_archive(tmp_path)
    assert names(archive) == [".gitignore", "new.py", "step.dev.py", "steps/a.ipynb", "ä.py"]
    assert zipfile.ZipFile(io.BytesIO(archive)).read("step.dev.py") == b"changed"
    assert code_archive(tmp_path) == archive, "the same tree is sent once"


def test_outside_of_git_all_files_travel_but_hidden_ones_and_deliverables(tmp_path: Path) -> None:
    fill(tmp_path, {**TREE, ".store/x": b"", "out/dev/report.html": b"", "steps/__pycache__/a.pyc": b""})
    assert names(code_archive(tmp_path)) == ["gone.py", "step.dev.py", "steps/a.ipynb"]


def test_data_in_the_tree_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 10**6)
    fill(tmp_path, {**TREE, "images/huge.bin": bytes(10**6)})
    with pytest.raises(UsageError, match=r"(?s)too much to send.*largest file is images/huge.bin.*\.gitignore"):
        code_archive(tmp_path)
