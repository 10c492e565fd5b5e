"""Folders, archives and single files: what is taken, under which names, and what is left."""

from __future__ import annotations

import io
import logging
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from cases import cases
from folders import contents_of, fill
from pictures import picture, png_of_16_bits
from PIL import Image

from pipeline.data.image_names import safe_name
from pipeline.data.sources.file_source import load_files
from pipeline.data.sources.loaded_source import LoadedSource, Skipped
from pipeline.data.sources.source import FetchOptions, parse_source
from pipeline.data.sources.video import Sampling
from pipeline.errors import DataError, PipelineError
from pipeline.serving.decoding import decode

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
        taken_or_hidden = ["a.jpg", ".hidden.jpg", "__MACOSX/a.jpg"]
        contents = dict.fromkeys(others, b"x") | dict.fromkeys(taken_or_hidden, JPEG) | {"cut.tif": TIFF[:-200]}
        source = fill(tmp_path / "source", contents)
        loaded, images, _ = load(source)
        assert images == {"a.jpg": JPEG}
        reasons = {each.item: each.reason for each in loaded.skipped}
        assert list(reasons) == sorted(reasons)
        assert reasons.pop("cut.tif").startswith("it cannot be decoded")
        assert reasons == {
            "README.md": "neither an image nor an annotation",
            "clip.mp4": "a clip, and no frames were asked for",
            "inner.zip": "an archive within: unpack it, or give its own URL",
            "photo.heic": "an image format that is not read: convert it to JPEG or PNG",
        }

    def test_images_that_nothing_can_read_stay(self, load: Any, tmp_path: Path) -> None:
        contents = {"a.jpg": b"", "b.png": b"<html>", "c.tif": b"rubbish", "d.jpg": JPEG[:100]}
        loaded, images, _ = load(fill(tmp_path / "source", contents))
        assert images == contents
        assert loaded.skipped == ()


class TestLinks:
    """They are followed in a folder that the user has named."""

    def test_files_and_folders_within_and_outside(self, load: Any, tmp_path: Path) -> None:
        outside = {"outside/c.jpg": JPEG, "outside/deep/c.txt": b"0 0.5 0.5 1 1"}
        fill(tmp_path, {**outside, "source/a.jpg": JPEG, "source/deep/b.jpg": JPEG})
        links = {"out.jpg": "../outside/c.jpg", "outs": "../outside", "in.jpg": "a.jpg", "ins": "deep"}
        links |= {"nowhere.jpg": "none", "deep/up.jpg": str(tmp_path / "outside/c.jpg"), "self.jpg": "self.jpg"}
        for name, target in links.items():
            (tmp_path / "source" / name).symlink_to(target)
        os.mkfifo(tmp_path / "source/pipe.jpg")
        loaded, images, markup = load(tmp_path / "source")
        within = ["a.jpg", "deep/b.jpg", "deep/up.jpg", "in.jpg", "ins/b.jpg", "ins/up.jpg"]
        assert sorted(images) == [*within, "out.jpg", "outs/c.jpg"]
        assert markup == {"outs/deep/c.txt": b"0 0.5 0.5 1 1"}
        reasons = {each.item: each.reason for each in loaded.skipped}
        assert reasons.pop("self.jpg").startswith("it cannot be read")
        assert reasons == {
            "nowhere.jpg": "it cannot be read: No such file or directory",
            "pipe.jpg": "no plain file",
        }
        assert loaded.notes[0] == "links that lead out of the folder, and are followed: 4"
        assert not any(path.is_symlink() for path in (tmp_path / "images").rglob("*"))

    def test_cycles_end(self, load: Any, tmp_path: Path) -> None:
        fill(tmp_path / "top/source", {"a/a.jpg": JPEG, "b/b.jpg": JPEG})
        links = {"loop": ".", "up": "..", "a/b": "../b", "b/a": "../a", "a/self": "../a", "itself": "itself"}
        for name, target in links.items():
            (tmp_path / "top/source" / name).symlink_to(target)
        loaded, images, _ = load(tmp_path / "top/source")
        assert sorted(images) == ["a/a.jpg", "a/b/b.jpg", "b/a/a.jpg", "b/b.jpg"]
        assert {each.item for each in loaded.skipped} == {*links, "a/b/a", "b/a/b", "b/a/self"} - {"a/b", "b/a"}

    def test_the_source_itself_is_a_link(self, load: Any, tmp_path: Path) -> None:
        fill(tmp_path / "data", {"a.jpg": JPEG, "deep/b.jpg": JPEG})
        (tmp_path / "data/in.jpg").symlink_to("deep/b.jpg")
        (tmp_path / "source").symlink_to("data")
        loaded, images, _ = load(tmp_path / "source")
        assert (sorted(images), loaded.notes) == (["a.jpg", "deep/b.jpg", "in.jpg"], ())

    @cases(
        "name, text, taken",
        {
            "to a folder": ("images", b"../data/images", ["images/a.jpg"]),
            "to an image": ("b.jpg", b"../data/images/a.jpg", ["b.jpg"]),
            "a list of one image": ("train.txt", b"../data/images/a.jpg", []),
            "a line": ("images", b"../data/images\n", []),
            "to nothing": ("images", b"../data/none", []),
        },
    )
    def test_text_that_git_leaves_for_a_link(
        self, load: Any, tmp_path: Path, name: str, text: bytes, taken: list[str]
    ) -> None:
        fill(tmp_path, {"data/images/a.jpg": JPEG, f"source/{name}": text, "source/x.jpg": JPEG})
        assert sorted(load(tmp_path / "source")[1]) == [*taken, "x.jpg"]

    @pytest.mark.parametrize("kind", ["zip", "tar", "mirror"])
    def test_no_text_from_elsewhere_is_a_link(self, load: Any, tmp_path: Path, kind: str) -> None:
        secret = fill(tmp_path, {"secret/s.jpg": JPEG}) / "secret"
        contents = {"x.jpg": JPEG, "images": f"{secret}/".encode(), "b.jpg": f"{secret}/s.jpg".encode()}
        if kind == "mirror":
            system, url = fsspec.filesystem("memory"), "memory://links-elsewhere"
            for name, data in contents.items():
                system.pipe_file(f"{url}/{name}", data)
        else:
            url = shutil.make_archive(f"{tmp_path}/a", kind, fill(tmp_path / "source", contents))
        assert load(url)[1] == {"x.jpg": JPEG, "b.jpg": contents["b.jpg"]}


class TestNames:
    """Any name that the file system holds is taken."""

    @cases(
        "stem, stored",
        {
            "narrow no-break blank": ("Screenshot 9.00.11\u202fPM", ""),
            "no-break blank": ("a\u00a0b", ""),
            "ideographic blank": ("a\u3000b", ""),
            "backslash": ("back\\slash", "back%5Cslash"),
            "control characters": ("a\tb\n", "a%09b%0A"),
            "no UTF-8": (os.fsdecode(b"b\xff"), "b%FF"),
            "a drive": ("C:a", "C%3Aa"),
            "long": ("\u56fe" * 80, "\u56fe" * 60 + "~069a6ca8"),
        },
    )
    @pytest.mark.parametrize("kind", ["folder", "tar"])
    def test_images_and_annotations(self, load: Any, tmp_path: Path, stem: str, stored: str, kind: str) -> None:
        source = fill(tmp_path / "source", {f"d/{stem}.jpg": JPEG, f"e/{stem}.txt": b"0", "e/classes.txt": b"x"})
        if kind == "tar":
            with tarfile.open(tmp_path / "a.tar", "w") as archive:
                archive.add(source, "top")
        loaded, images, markup = load(source if kind == "folder" else tmp_path / "a.tar")
        safe = stored or stem
        if kind == "tar" and "\udcff" in stem:
            safe = "bÿ"  # as an old system of the west would write it
        assert (list(images), sorted(markup)) == ([f"d/{safe}.jpg"], sorted([f"e/{safe}.txt", "e/classes.txt"]))
        assert loaded.skipped == ()
        assert loaded.renamed == ({f"d/{stem}.jpg": f"d/{safe}.jpg"} if safe == stored else {})

    def test_a_clash_gets_a_number(self, load: Any, tmp_path: Path) -> None:
        other = picture("JPEG", seed=1)
        contents = {"a%09b.jpg": JPEG, "a\tb.jpg": other, "a%09b.txt": b"1", "a\tb.txt": b"2"}
        loaded, images, markup = load(fill(tmp_path / "source", contents))
        assert images == {"a%09b.jpg": JPEG, "a%09b.2.jpg": other}
        assert markup == {"a%09b.txt": b"1", "a%09b.2.txt": b"2"}
        assert loaded.renamed == {"a\tb.jpg": "a%09b.2.jpg"}

    def test_converted_image(self, load: Any, tmp_path: Path) -> None:
        loaded, images, _ = load(fill(tmp_path / "source", {"a\tb.tif": TIFF, "a%09b.tif.png": PNG}))
        assert sorted(images) == ["a%09b.tif.2.png", "a%09b.tif.png"]
        assert loaded.renamed == {"a\tb.tif": "a%09b.tif.2.png"}

    @pytest.mark.parametrize("name", ["a\u202fb.jpg", "a\tb.jpg"])
    def test_single_file(self, load: Any, tmp_path: Path, name: str) -> None:
        _, images, _ = load(fill(tmp_path / "source", {name: JPEG}) / name)
        assert list(images) == [safe_name(name)]


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
        assert loaded.skipped == ()
        assert loaded.converted == (Skipped("a.gif", "only the first of its frames is taken"),)
        assert loaded.notes == ("1 converted: only the first of its frames is taken, such as a.gif",)

    def test_png_of_16_bits_keeps_its_name(self, load: Any, tmp_path: Path) -> None:
        deep = png_of_16_bits(np.full((4, 6, 3), 4095), orientation=6)
        contents = {"a.png": deep, "b": deep, "c.jpg": deep, "cut.png": deep[:-20], "d.png": PNG}
        loaded, images, _ = load(fill(tmp_path / "source", contents))
        assert sorted(images) == ["a.png", "b.png", "c.jpg", "cut.png", "d.png"]
        assert loaded.renamed == {"b": "b.png"}
        assert loaded.fields == {name: {"orientation": 6} for name in ("a.png", "b.png", "c.jpg")}
        assert (decode(images["a.png"]) == np.full((6, 4, 3), 255)).all()
        assert (images["cut.png"], images["d.png"]) == (contents["cut.png"], PNG), "validation reports the broken one"
        assert loaded.notes == ("3 converted: its values fill 12 of 16 bits: scaled by 12, such as a.png",)

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

    def test_odd_name(self, load: Load, tmp_path: Path) -> None:
        _, images, _ = load(fill(tmp_path / "source", {"a\tb.mp4": b"clip"}), sampling=Sampling())
        assert list(images) == ["a%09b/frame_000000.jpg"]


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
