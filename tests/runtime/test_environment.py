"""The environment of an attempt."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pipeline.runtime.environment import environment, required_versions


def test_versions_are_what_importlib_reads() -> None:
    required = metadata.requires("detection-pipeline") or []
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in required if "extra ==" not in text]
    assert required_versions("detection-pipeline") == {name: metadata.version(name) for name in sorted(names)}


def package(folder: Path, name: str, version: str, *lines: str) -> None:
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    fields = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, "", "Version: of the README"]
    (place / "METADATA").write_text("\n".join(fields))


def test_names_are_normalised_and_the_first_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    required = ("Some.Dotted-name>=2", "gone (>=1)", "twice ; python_version > '3'", "extra-only; extra == 'x'")
    package(tmp_path / "one", "asker", "1", *(f"Requires-Dist: {text}" for text in required))
    package(tmp_path / "one", "some_dotted_name", "2.0+cpu")
    package(tmp_path / "one", "twice", "4")
    package(tmp_path / "two", "twice", "5")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "absent"), str(tmp_path / "one"), str(tmp_path / "two")])
    assert required_versions("asker") == {"Some.Dotted-name": "2.0+cpu", "gone": "not installed", "twice": "4"}
    assert required_versions("nobody") == {}


def test_the_environment_names_versions_and_device() -> None:
    found = environment()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["torch"].startswith("2.")
    assert {"papermill", "mmdet", "bentoml", "platform", "machine"} <= set(found)
    assert "pytest" not in found, "a package that only tests need changes no result"
    assert "CPU" in found["device"] or "NVIDIA" in found["device"]
