"""Safe names: usable everywhere, and always the same."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.coco import unsafe_name
from pipeline.data.image_names import leads_out, numbered, safe_name


@cases(
    "name",
    {
        "plain": "a/b c.jpg",
        "narrow no-break blank": "Screenshot at 9.00\u202fPM.png",
        "no-break blank": "a\u00a0b.jpg",
        "ideographic blank": "図\u3000一.jpg",
        "joiner": "\u0645\u06cc\u200c\u062e.jpg",
        "percent": "100%.jpg",
        "colon in a time": "2024-05-10 09:00.jpg",
        "decomposed": "u\u0308.jpg",
        "190 bytes": "x" * 190 + ".jpeg",
    },
)
def test_stays(name: str) -> None:
    assert safe_name(name) == name


@cases(
    "name, safe",
    {
        "backslash": ("back\\slash.jpg", "back%5Cslash.jpg"),
        "tab and newline": ("a\tb\n.jpg", "a%09b%0A.jpg"),
        "next line": ("a\x85b.jpg", "a%C2%85b.jpg"),
        "line separator": ("a\u2028b.jpg", "a%E2%80%A8b.jpg"),
        "bytes that are no UTF-8": (os.fsdecode(b"b\xff.jpg"), "b%FF.jpg"),
        "lone surrogate": ("b\ud800.jpg", "b%ED%A0%80.jpg"),
        "drive": ("C:a.jpg", "C%3Aa.jpg"),
        "drive in a folder": ("d/C:/a:b.jpg", "d/C%3A/a%3Ab.jpg"),
    },
)
def test_escaped(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize("letter", ["x", "図", "é"])
@pytest.mark.parametrize("count", [64, 95, 191, 250])
def test_long_image_and_its_label_keep_one_stem(letter: str, count: int) -> None:
    stem = f"folder.1/{letter * count}"
    names = [safe_name(f"{stem}{suffix}") for suffix in (".jpg", ".jpeg", ".txt", "")]
    assert [name.removeprefix(names[-1]) for name in names] == [".jpg", ".jpeg", ".txt", ""]
    assert all(len(part.encode()) <= 200 for name in names for part in name.split("/"))
    assert safe_name(stem + "x.jpg") not in names


@given(st.lists(st.text(st.characters(exclude_characters="/"), min_size=1, max_size=300), min_size=1).map("/".join))
def test_every_safe_name_is_safe_and_its_own(name: str) -> None:
    safe = safe_name(name)
    assert safe_name(safe) == safe
    assert all(len(part.encode()) <= 200 for part in safe.split("/"))
    assert len(safe.splitlines()) == 1
    if not leads_out(name):
        assert not unsafe_name(safe)
        assert len(PurePosixPath(safe).parts) == len(PurePosixPath(name).parts)


@given(
    st.binary(min_size=1, max_size=60).filter(lambda each: not set(each) & set(b"/\0") and each not in {b".", b".."})
)
def test_any_name_of_a_file_system_can_be_stored(tmp_path_factory: pytest.TempPathFactory, name: bytes) -> None:
    path: Path = tmp_path_factory.getbasetemp() / safe_name(os.fsdecode(name))
    path.write_bytes(b"x")
    path.unlink()


@cases(
    "name, out",
    {
        "plain": ("a/b.jpg", False),
        "backslash": ("a\\b.jpg", False),
        "drive without a root": ("C:b.jpg", False),
        "two dots in a name": ("a..b.jpg", False),
        "empty": ("", True),
        "up": ("a/../b", True),
        "up with backslashes": ("a\\..\\b", True),
        "absolute": ("/a", True),
        "absolute on a drive": ("C:/a", True),
        "absolute with backslashes": ("\\a", True),
        "share": ("\\\\host\\share\\a", True),
    },
)
def test_leads_out(name: str, out: bool) -> None:
    assert leads_out(name) is out


def test_numbered() -> None:
    assert numbered("d/a.jpg", {"a.jpg"}) == "d/a.jpg"
    assert numbered("d/a.jpg", {"d/a.jpg", "d/a.2.jpg"}) == "d/a.3.jpg"
