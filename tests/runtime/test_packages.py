"""Versions of installed packages, read without the standard library's parser."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pipeline.runtime.packages import required_versions


def test_they_are_what_the_standard_library_says() -> None:
    asked = metadata.requires("detection-pipeline") or []
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in asked if "extra ==" not in text]
    assert required_versions("detection-pipeline") == {name: metadata.version(name) for name in sorted(names)}


def package(
    folder: Path, name: str, version: str, *lines: str, kind: str = "dist-info", file: str = "METADATA"
) -> None:
    place = folder / f"{name}-{version}.{kind}"
    place.mkdir(parents=True)
    fields = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, "", "Version: of the README"]
    (place / file).write_text("\n".join(fields))


def test_any_way_of_writing_a_name_and_of_being_installed_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = ("Some.Dotted-name>=2", "old-egg", "gone (>=1)", "twice ; python_version > '3'", "extra-only; extra == 'x'")
    package(tmp_path / "one", "asker", "1", *(f"Requires-Dist: {text}" for text in asks))
    package(tmp_path / "one", "some_dotted_name", "2.0+cpu")
    package(tmp_path / "one", "old_egg", "3", kind="egg-info", file="PKG-INFO")
    package(tmp_path / "one", "twice", "4")
    package(tmp_path / "two", "twice", "5")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "absent"), str(tmp_path / "one"), str(tmp_path / "two")])
    assert required_versions("asker") == {
        "Some.Dotted-name": "2.0+cpu",
        "gone": "not installed",
        "old-egg": "3",
        "twice": "4",
    }
    assert required_versions("nobody") == {}
