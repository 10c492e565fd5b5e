"""What a source names: files, folders, patterns, archives and videos."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cases import cases
from clips import write_clip
from pictures import picture

from pipeline.client.image_sources import find_files, read_images
from pipeline.errors import DataError, UsageError
from pipeline.serving.decoding import decode


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures in two folders, an archive, a clip, and what is none of these; it is the working directory."""
    for name in ("photos/a.jpg", "photos/sub/b.png", "photos/sub/c d.jpg", "more/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture("JPEG" if name.endswith("jpg") else "PNG"))
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / ".hidden.jpg").write_bytes(picture())
    (tmp_path / "photos" / "no_suffix").write_bytes(picture())
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("deep/z.png", picture())
        archive.writestr("readme.txt", "no image")
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "more" / "a.jpg", "t.jpg")
    write_clip(tmp_path / "clip.mp4", 3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*sources: str) -> list[str]:
    return [image.name for image in read_images(find_files(sources).files, Path("unpacked"))]


IN_FOLDER = ["a.jpg", "no_suffix", "sub/b.png", "sub/c d.jpg"]


@cases(
    "sources, expected",
    {
        "a file": (["photos/a.jpg"], ["a.jpg"]),
        "a folder": (["photos"], IN_FOLDER),
        "a folder and a file in it": (["photos", "photos/sub/b.png"], IN_FOLDER),
        "two folders with one name": (["photos/a.jpg", "more"], ["photos/a.jpg", "more/a.jpg"]),
        "a pattern": (["photos/*.jpg"], ["a.jpg"]),
        "a deep pattern": (["**/*.png"], ["photos/sub/b.png"]),
        "a pattern of folders": (["photos/s*"], ["sub/b.png", "sub/c d.jpg"]),
        "the folder itself": (["./photos/../more"], ["a.jpg"]),
        "a zip archive": (["set.zip"], ["set.zip/deep/z.png"]),
        "a tar archive": (["set.tar.gz"], ["set.tar.gz/t.jpg"]),
        "a video": (["clip.mp4"], [f"clip.mp4/frame_00000{i}.jpg" for i in range(3)]),
        "a text that is named": (["photos/notes.txt"], ["notes.txt"]),
    },
)
def test_sources_give_images_with_unique_names(folder: Path, sources: list[str], expected: list[str]) -> None:
    assert names(*sources) == expected


def test_what_is_no_image_in_a_folder_is_counted(folder: Path) -> None:
    found = find_files(["photos"])
    assert (found.others, found.images) == (1, 4)
    assert find_files(["clip.mp4"]).images is None


@cases(
    "source, message",
    {
        "no such file": ("photos/aa.jpg", "(?s)no such file or folder.*did you mean 'a.jpg'"),
        "no such folder": ("foto/a.jpg", "there is no folder"),
        "no match": ("photos/*.tif", "the pattern matches no file"),
        "no image in it": ("empty", "there is no image in it"),
    },
)
def test_a_source_that_names_nothing_is_refused(folder: Path, source: str, message: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        find_files(["photos", source])


def problem_of(path: Path, most_bytes: int = 1 << 20) -> str:
    [image] = read_images(find_files([str(path)]).files, path.parent / "unpacked")
    with pytest.raises(DataError) as raised:
        image.read(most_bytes)
    return raised.value.problem


@cases(
    "name, spoil, problem",
    {
        "empty": ("x.jpg", lambda path: path.write_bytes(b""), "the file is empty"),
        "too large": ("x.jpg", lambda path: path.write_bytes(bytes(2 << 20)), "its 2 MiB are more than the service"),
        "broken, of a kind that is converted": (
            "x.tif",
            lambda path: path.write_bytes(picture("TIFF")[:-200]),
            "decoded",
        ),
        "a link to nothing": ("x.jpg", lambda path: path.symlink_to("nowhere"), "it is missing"),
        "a pipe": ("x.jpg", os.mkfifo, "no plain file"),
        "a broken archive": ("x.zip", lambda path: path.write_bytes(b"PK\x03\x04 cut"), "cut off"),
        "a broken video": ("x.mp4", lambda path: path.write_bytes(b"none"), "cannot be read as a video"),
        "an empty archive": ("x.zip", lambda path: zipfile.ZipFile(path, "w").close(), "no image in the archive"),
    },
)
def test_an_image_that_cannot_be_read_says_why(tmp_path: Path, name: str, spoil: Callable, problem: str) -> None:
    (tmp_path / "folder").mkdir()
    spoil(tmp_path / "folder" / name)
    source = tmp_path / "folder" / name
    assert problem in problem_of(source if source.exists() else source.parent)


def test_formats_that_the_service_refuses_are_converted(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(picture("TIFF", (30, 10), orientation=6))
    [image] = read_images(find_files([str(tmp_path)]).files, tmp_path)
    data = image.read(1 << 20)
    assert data.startswith(b"\x89PNG")
    assert decode(data).shape == (30, 10, 3)


def test_an_archive_that_leads_out_is_refused_whole(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../../evil.png", picture())
    assert "out" in problem_of(tmp_path / "x.zip")
    assert not (tmp_path.parent / "evil.png").exists()
