"""Folders, archives and single files: what is taken, under which names, and what is left."""

from __future__ import annotations

import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from cases import cases
from folders import contents_of, fill
from pictures import picture
from PIL import Image

from pipeline.data.sources.file_source import load_files
from pipeline.data.sources.loaded_source import LoadedSource, Skipped
from pipeline.data.sources.source import FetchOptions, parse_source
from pipeline.data.sources.video import Sampling
from pipeline.errors import DataError, PipelineError

Load = Callable[..., tuple[LoadedSource, dict[str, bytes], dict[str, bytes]]]


JPEG, PNG, TIFF = picture("JPEG"), picture(), picture("TIFF")
DATA_SET = {
    "dataset/images/train/a.jpg": JPEG,
    "dataset/images/b.PNG": PNG,
    "dataset/labels/train/a.txt": b"0 0.5 0.5 1 1",
    "dataset/data.yaml": b"names: [cat]",
}
TAKEN_IMAGES = {"images/train/a.jpg": JPEG, "images/b.PNG": PNG}
TAKEN_MARKUP = {"labels/train/a.txt": b"0 0.5 0.5 1 1", "data.yaml": b"names: [cat]"}


def take(url: str, images: Path, annotations: Path, cache: Path, **options: Any) -> LoadedSource:
    for folder in (images, annotations):
        folder.mkdir(parents=True)
    return load_files(parse_source(url, **options), images, annotations, FetchOptions(cache, backoff=0.01))


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Load from a URL, and give what there was with the two folders' contents."""

    def call(url: Any, **options: Any) -> tuple[Any, ...]:
        folders = tmp_path / "images", tmp_path / "markup"
        loaded = take(str(url), *folders, tmp_path / "cache", **options)
        images, markup = map(contents_of, folders)
        assert loaded.images == len(images)
        assert loaded.bytes == sum(map(len, images.values()))
        assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith(".")) == []
        return loaded, images, markup

    return call


class TestKinds:
    def test_folder_is_copied(self, load: Any, tmp_path: Path) -> None:
        source = fill(tmp_path / "source", DATA_SET)
        loaded, images, markup = load(source)
        assert (loaded.kind, loaded.url, loaded.sha256, loaded.skipped) == ("folder", str(source), "", ())
        assert (images, markup) == (TAKEN_IMAGES, TAKEN_MARKUP)
        (tmp_path / "images/images/train/a.jpg").write_bytes(b"changed")
        assert contents_of(source) == DATA_SET

    @pytest.mark.parametrize("kind", ["archive", "folder"])
    def test_archive_or_folder_elsewhere(self, load: Any, tmp_path: Path, kind: str) -> None:
        system = fsspec.filesystem("memory")
        for name, data in DATA_SET.items():
            system.pipe_file(f"memory://files-elsewhere/{name}", data)
        url = (
            shutil.make_archive(f"{tmp_path}/a", "zip", fill(tmp_path / "source", DATA_SET))
            if kind == "archive"
            else "memory://files-elsewhere"
        )
        loaded, images, markup = load(url)
        assert (loaded.kind, len(loaded.sha256)) == (kind, 64 if kind == "archive" else 0)
        assert (images, markup) == (TAKEN_IMAGES, TAKEN_MARKUP)

    @cases(
        "name, data, images, markup",
        {
            "image": ("a.jpg", JPEG, {"a.jpg": JPEG}, {}),
            "image without a suffix": ("photo", PNG, {"photo.png": PNG}, {}),
            "annotations": ("a.json", b"{}", {}, {"a.json": b"{}"}),
        },
    )
    @pytest.mark.parametrize("is_local", [True, False], ids=["here", "http"])
    def test_single_file(
        self, load: Any, tmp_path: Path, server: Any, name: str, data: Any, images: Any, markup: Any, is_local: bool
    ) -> None:
        url = (
            fill(tmp_path / "source", {name: data, "other.jpg": JPEG}) / name
            if is_local
            else server.file(f"/{name}", data)
        )
        loaded, taken, annotations = load(url)
        assert (loaded.kind, taken, annotations) == ("file", images, markup)

    @cases(
        "contents, name, problem",
        {
            "empty": ({}, "", "no images and no annotations"),
            "nothing of use": ({"README.md": b"x"}, "", r"README\.md: neither an image"),
            "hidden": ({".hidden/a.jpg": JPEG}, "", "no images and no annotations"),
            "cut archive": ({"a.zip": b"PK\x03\x04 cut"}, "a.zip", "cut off"),
            "web page": ({"a.tar.gz": b"<html>"}, "a.tar.gz", "web page"),
            "anything": ({"a.bin": b"who knows"}, "a.bin", "not an archive"),
        },
    )
    def test_nothing_to_take(self, load: Any, tmp_path: Path, contents: Any, name: str, problem: str) -> None:
        (tmp_path / "source").mkdir()
        with pytest.raises(DataError, match=problem):
            load(fill(tmp_path / "source", contents) / name)


class TestLayout:
    @cases(
        "source, images, markup",
        {
            "COCO's images": (["val2017/a.jpg", "val2017/b.jpg"], ["a.jpg", "b.jpg"], []),
            "several folders below one": (["a/b/x.jpg", "a/c/x.jpg"], ["b/x.jpg", "c/x.jpg"], []),
            "an image at the top": (["a.jpg", "a/b.jpg"], ["a.jpg", "a/b.jpg"], []),
            "what is not taken does not count": (["val/a.jpg", "README.md"], ["a.jpg"], []),
            "nor does a text to read": (["val/a.jpg", "README.txt"], ["a.jpg"], []),
            "nothing in common": (["images/a.jpg", "labels/a.txt"], ["images/a.jpg"], ["labels/a.txt"]),
            "labels of a licence plate": (["d/a.jpg", "d/license_1.txt"], ["a.jpg"], ["license_1.txt"]),
            "names that begin alike": (["ab/a.jpg", "ac/a.jpg"], ["ab/a.jpg", "ac/a.jpg"], []),
        },
    )
    def test_single_folders_at_the_top(self, load: Any, tmp_path: Path, source: Any, images: Any, markup: Any) -> None:
        fill(tmp_path / "source", {name: JPEG if name.endswith(".jpg") else b"{}" for name in source})
        _, taken, annotations = load(tmp_path / "source")
        assert (sorted(taken), sorted(annotations)) == (images, markup)


class TestSkipped:
    def test_what_is_left_is_said(self, load: Any, tmp_path: Path) -> None:
        others = ["README.md", "inner.zip", "clip.mp4", "photo.heic", "Thumbs.db"]
        taken_or_hidden = ["a.jpg", "back\\slash.jpg", ".hidden.jpg", "__MACOSX/a.jpg"]
        contents = dict.fromkeys(others, b"x") | dict.fromkeys(taken_or_hidden, JPEG) | {"cut.tif": TIFF[:-200]}
        source = fill(tmp_path / "source", contents)
        loaded, images, _ = load(source)
        assert images == {"a.jpg": JPEG}
        reasons = {each.item: each.reason for each in loaded.skipped}
        assert list(reasons) == sorted(reasons)
        assert reasons.pop("cut.tif").startswith("it cannot be decoded")
        assert reasons == {
            "README.md": "neither an image nor an annotation",
            "back\\slash.jpg": "its name is not usable on every system",
            "clip.mp4": "a clip, and no frames were asked for",
            "inner.zip": "an archive within: unpack it, or give its own URL",
            "photo.heic": "an image format that is not read: convert it to JPEG or PNG",
        }

    def test_links(self, load: Any, tmp_path: Path) -> None:
        fill(tmp_path, {"outside/secret.jpg": JPEG, "source/a.jpg": JPEG, "source/deep/b.jpg": JPEG})
        links = {"out.jpg": "../outside/secret.jpg", "outs": "../outside", "in.jpg": "a.jpg", "ins": "deep"}
        links |= {"nowhere.jpg": "none", "deep/up.jpg": str(tmp_path / "outside/secret.jpg")}
        for name, target in links.items():
            (tmp_path / "source" / name).symlink_to(target)
        os.mkfifo(tmp_path / "source/pipe.jpg")
        loaded, images, _ = load(tmp_path / "source")
        assert sorted(images) == ["a.jpg", "deep/b.jpg", "in.jpg"]
        assert {each.item: each.reason for each in loaded.skipped} == {
            "deep/up.jpg": "a link that leads out of the folder",
            "ins": "a link to a folder",
            "nowhere.jpg": "it cannot be read: No such file or directory",
            "out.jpg": "a link that leads out of the folder",
            "outs": "a link to a folder",
            "pipe.jpg": "no plain file",
        }
        assert not (tmp_path / "images/in.jpg").is_symlink()
        assert loaded.notes == (
            "2 skipped: a link that leads out of the folder, such as deep/up.jpg",
            "2 skipped: a link to a folder, such as ins",
            "1 skipped: it cannot be read: No such file or directory, such as nowhere.jpg",
            "1 skipped: no plain file, such as pipe.jpg",
        )

    def test_name_that_is_no_unicode(self, load: Any, tmp_path: Path) -> None:
        fill(tmp_path / "source", {"a.jpg": JPEG})
        (tmp_path / "source" / os.fsdecode(b"b\xff.jpg")).write_bytes(JPEG)
        loaded, images, _ = load(tmp_path / "source")
        assert list(images) == ["a.jpg"]
        assert loaded.skipped[0].reason == "its name is not usable on every system"
        assert loaded.skipped[0].item == r"b\udcff.jpg", "a log or notebook in UTF-8 can hold it"

    def test_images_that_nothing_can_read_stay(self, load: Any, tmp_path: Path) -> None:
        contents = {"a.jpg": b"", "b.png": b"<html>", "c.tif": b"rubbish", "d.jpg": JPEG[:100]}
        loaded, images, _ = load(fill(tmp_path / "source", contents))
        assert images == contents
        assert loaded.skipped == ()


class TestConversion:
    def test_what_has_to_be_converted(self, load: Any, tmp_path: Path) -> None:
        contents = {
            "d/a.tif": picture("TIFF", orientation=6),
            "d/b.jp2": picture("JPEG2000"),
            "d/c.gif": JPEG,
            "d/e.jpg": TIFF,
            "d/f": PNG,
            "d/g.jpg": picture("JPEG", orientation=6),
            "d/h.jpg": PNG,
        }
        loaded, images, _ = load(fill(tmp_path / "source", contents))
        assert loaded.renamed == {
            "a.tif": "a.tif.png",
            "b.jp2": "b.jp2.jpg",
            "c.gif": "c.gif.jpg",
            "e.jpg": "e.jpg.png",
            "f": "f.png",
        }
        assert sorted(images) == ["a.tif.png", "b.jp2.jpg", "c.gif.jpg", "e.jpg.png", "f.png", "g.jpg", "h.jpg"]
        assert loaded.fields == {"a.tif.png": {"orientation": 6}}
        assert (images["g.jpg"], images["c.gif.jpg"], images["h.jpg"]) == (contents["d/g.jpg"], JPEG, PNG)
        with Image.open(io.BytesIO(images["a.tif.png"])) as upright:
            assert upright.size == (20, 40)

    def test_first_frame_is_said(self, load: Any, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        fill(tmp_path / "source", {"b.jpg": JPEG})
        frames[0].save(tmp_path / "source/a.gif", save_all=True, append_images=frames[1:])
        loaded, _, _ = load(tmp_path / "source")
        assert loaded.skipped == (Skipped("a.gif", "only the first of its frames is taken"),)

    def test_same_input_same_bytes(self, tmp_path: Path) -> None:
        fill(tmp_path / "source", {f"{i}.tif": picture("TIFF") for i in range(20)} | {"z.gif": picture("GIF")})
        results = []
        for run in "ab":
            folders = tmp_path / run / "images", tmp_path / run / "markup"
            loaded = take(str(tmp_path / "source"), *folders, tmp_path / "cache")
            results.append((loaded, contents_of(folders[0])))
        assert results[0] == results[1]


class TestClips:
    @pytest.fixture(autouse=True)
    def _one_frame_a_clip(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def extract(clip: Path, name: str, sampling: Sampling) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
            yield f"{name}/frame_000000.jpg", JPEG, {"video": clip.name, "frame": 0}

        monkeypatch.setattr("pipeline.data.sources.file_source.extract_frames", extract)

    def test_each_clip_has_a_folder_that_no_other_file_is_in(self, load: Load, tmp_path: Path) -> None:
        names = ["d/a.mp4", "d/deep/b.MKV", "d/c.avi", "d/c.mov", "d/e.mp4"]
        source = fill(tmp_path / "source", dict.fromkeys(names, b"clip") | {"d/e/x.jpg": JPEG})
        loaded, images, _ = load(source, sampling=Sampling())
        folders = {name.removesuffix("/frame_000000.jpg") for name in images if "frame" in name}
        assert folders == {"a", "c.avi", "c.mov", "deep/b", "e.mp4"}
        assert loaded.fields["deep/b/frame_000000.jpg"] == {"video": "b.MKV", "frame": 0}


def test_no_secret_in_any_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PLANTED", "hunter2")
    caplog.set_level(logging.DEBUG)
    server.file("/cut.zip", b"PK\x03\x04")
    server.file("/page.zip", b"<html>")
    login = server.root.replace("http://", "http://me:${PLANTED}@")
    for name in ("cut.zip", "page.zip", "none.zip"):
        folders = tmp_path / name / "images", tmp_path / name / "markup"
        with pytest.raises(PipelineError) as caught:
            take(f"{login}/{name}?token=${{PLANTED}}", *folders, tmp_path / "cache")
        error: BaseException | None = caught.value
        while error is not None:
            assert "hunter2" not in f"{error}{error!r}"
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    server.file("/hunter2.json", b"{}")
    folders = tmp_path / "images", tmp_path / "markup"
    loaded = take(f"{login}/${{PLANTED}}.json?token=${{PLANTED}}", *folders, tmp_path / "cache")
    assert loaded.url == f"{server.root}/${{PLANTED}}.json"
    assert "hunter2" not in f"{loaded}{caplog.text}"
    for path in tmp_path.rglob("*"):
        assert "hunter2" not in path.name
        assert not path.is_file() or b"hunter2" not in path.read_bytes()
