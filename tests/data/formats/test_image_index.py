from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cases import cases
from operations import lines_run
from PIL import Image

from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.written_names import WrittenName
from pipeline.data.image_names import safe_name
from pipeline.errors import DataError

SOME = ("images/train/a.jpg", "images/val/a.jpg", "images/val/b.JPG", "c.png", "images/e.f.jpg", "images/train/c.png")


@cases(
    "name, beside, found",
    {
        "exact": ("images/train/a.jpg", "", "images/train/a.jpg"),
        "exact, though others end so": ("c.png", "", "c.png"),
        "beside": ("a.jpg", "images/val", "images/val/a.jpg"),
        "beside before exact": ("c.png", "images/train", "images/train/c.png"),
        "in a folder of that name": ("a.jpg", "labels/train", "images/train/a.jpg"),
        "of that subset": ("a.jpg", "val/labels", "images/val/a.jpg"),
        "up from beside": ("../images/val/a.jpg", "labels", "images/val/a.jpg"),
        "up with backslashes": ("..\\images\\val\\a.jpg", "labels", "images/val/a.jpg"),
        "out of the folder, and found by its end": ("../../val/a.jpg", "labels", "images/val/a.jpg"),
        "folders added": ("train/a.jpg", "", "images/train/a.jpg"),
        "folders taken away": ("data/images/train/a.jpg", "", "images/train/a.jpg"),
        "absolute": ("/home/me/set/train/a.jpg", "", "images/train/a.jpg"),
        "absolute on Windows": ("C:\\set\\train\\a.jpg", "", "images/train/a.jpg"),
        "a URL of a file": ("file:///set/train/a.jpg", "", "images/train/a.jpg"),
        "here": ("./c.png", "", "c.png"),
        "other case, backslashes": ("images\\train\\A.JPG", "", "images/train/a.jpg"),
        "suffix in other case": ("b.jpg", "", "images/val/b.JPG"),
        "no suffix": ("images/train/a", "", "images/train/a.jpg"),
        "no suffix, but a dot": ("e.f", "", "images/e.f.jpg"),
        "no suffix, other case": ("B", "", "images/val/b.JPG"),
        "another suffix": ("a.tga", "", None),
        "in another folder": ("other/b.JPG", "", None),
        "of another subset": ("b.JPG", "labels/train", None),
        "empty": ("", "", None),
        "only up": ("..", "labels", None),
        "absent": ("d.png", "", None),
    },
)
def test_finds_the_image_meant(name: str, beside: str, found: str | None) -> None:
    assert ImageIndex(Path("nowhere"), SOME).resolve(name, beside) == found


def test_of_several_none_is_guessed() -> None:
    index = ImageIndex(Path("nowhere"), SOME)
    with pytest.raises(DataError, match=r"2 images match 'a.jpg': images/train/a.jpg, images/val/a.jpg"):
        index.resolve("a.jpg")
    with pytest.raises(DataError, match="2 images match 'a'"):
        index.resolve("a", "labels")


def test_frames_of_one_name_in_many_clips_are_told_apart() -> None:
    few, many = (
        ImageIndex(Path("nowhere"), [f"clip{i}/images/frame_{k}.jpg" for i in range(clips) for k in range(2)])
        for clips in (40, 1200)
    )
    assert many.resolve("frame_1.jpg", "clip7/ann") == "clip7/images/frame_1.jpg"
    assert many.resolve("frame_1", "clip8/ann") == "clip8/images/frame_1.jpg"
    with pytest.raises(DataError, match="1200 images match"):
        many.resolve("frame_1", "other/ann")

    def look_up(index: Any) -> Any:
        return lines_run(lambda: [index.resolve("frame_0.jpg", f"clip{i}/ann") for i in (*range(40),) * 10])

    look_up(few), look_up(many)
    assert look_up(many) <= 1.1 * look_up(few)


def test_several_of_one_name_in_other_case_are_told_apart() -> None:
    index = ImageIndex(Path("nowhere"), ["a.jpg", "A.jpg", "x/B.jpg", "x/b.jpg"])
    assert (index.resolve("a.jpg"), index.resolve("A.jpg"), index.resolve("b.jpg")) == ("a.jpg", "A.jpg", "x/b.jpg")
    with pytest.raises(DataError, match=r"2 images match 'a.JPG'"):
        index.resolve("a.JPG")


@pytest.mark.parametrize(
    "name", ["../a.jpg", "../../etc/passwd", "a/../../b.jpg", "a\0.jpg", "..\\..\\a.jpg", "", ".", "\ud800.jpg"]
)
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="not a path within the images folder") as error:
        ImageIndex(Path("nowhere"), ["c.png"]).name_when_absent(WrittenName(name), "labels.csv:3")
    assert "labels.csv:3" in str(error.value)


@cases(
    "name, own",
    {
        "as it is": ("x/d.jpg", "x/d.jpg"),
        "backslashes": (".\\x\\d.jpg", "x/d.jpg"),
        "absolute": ("/home/me/d.jpg", "home/me/d.jpg"),
    },
)
def test_absent_images_keep_the_annotations_name(name: str, own: str) -> None:
    assert ImageIndex(Path("nowhere"), SOME).name_when_absent(WrittenName(name), "a.json") == own


def test_converted_images_have_the_names_of_the_source(tmp_path: Path) -> None:
    Image.new("L", (30, 20)).save(tmp_path / "a.tif.png")
    index = ImageIndex(tmp_path, ["a.tif.png", "b.png"], {"a.tif": "a.tif.png", "gone.tif": "gone.tif.png"})
    assert index.names == {"a.tif", "b.png"}
    assert index.resolve("A.tif") == "a.tif"
    assert index.resolve("a") == "a.tif"
    assert index.size("a.tif") == (30, 20)


@cases(
    "stored, written",
    {
        "composed, as Linux and Windows have it": ("M\u00fcll.jpg", "Mu\u0308ll.jpg"),
        "decomposed, as macOS has it": ("Mu\u0308ll/a.jpg", "M\u00fcll/a.jpg"),
        "Hangul": ("\uac00.jpg", "\u1100\u1161.jpg"),
        "blanks that do not break": ("Foto\u202f1\u3000a.jpg", "Foto\u202f1\u3000a.jpg"),
        "a line separator, stored under a safe name": ("a%E2%80%A8b.jpg", "a\u2028b.jpg"),
        "a backslash, stored under a safe name": ("x%5Ca.jpg", "x\\a.jpg"),
        "a backslash that was no folder": ("x%5Ca.jpg", "x/a.jpg"),
        "a per cent sign": ("100%25.jpg", "100%25.jpg"),
    },
)
def test_one_name_in_other_letters(stored: str, written: str) -> None:
    assert ImageIndex(Path("nowhere"), [stored, "other.jpg"]).resolve(written) == stored


def test_a_long_name_is_found_though_it_was_cut() -> None:
    name = "\u732b" * 80 + ".jpg"
    assert ImageIndex(Path("nowhere"), [safe_name(name)]).resolve(name) == safe_name(name)


@cases(
    "names, derived",
    {
        "LabelMe's export": (["JPEGImages/a.jpg", "Visualization/a.jpg", "SegmentationClassPNG/a.png"], 2),
        "masks": (["images/a.jpg", "masks/a.png", "mask/a.png"], 2),
        "of a panoptic set": (["val/a.jpg", "panoptic_val/a.png"], 1),
        "nothing else is here": (["masks/a.png", "masks/b.png"], 0),
        "of other images": (["images/a.jpg", "masks/b.png"], 0),
        "an image that is called so": (["a.jpg", "mask.png", "people/masks on/a.png"], 0),
    },
)
def test_pictures_of_annotations_are_no_images(names: list[str], derived: int) -> None:
    index = ImageIndex(Path("nowhere"), names)
    assert index.derived == frozenset(names[len(names) - derived :])
    assert index.names == frozenset(names) - index.derived


@cases(
    "written, found",
    {
        "from above the source": ("pictures/train/a.jpg", "a.jpg"),
        "with the source's folder": ("train/sub/b.jpg", "sub/b.jpg"),
        "of another machine": ("D:\\set\\train\\a.jpg", "a.jpg"),
    },
)
def test_the_folders_that_lead_to_the_source_may_be_written(written: str, found: str) -> None:
    index = ImageIndex(Path("nowhere"), ["a.jpg", "sub/b.jpg"], place="pictures/train")
    assert index.resolve(written) == found


def test_a_broken_header_is_noted_once_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (tmp_path / "b.png").write_bytes(b"")
    index = ImageIndex(tmp_path, ["a.jpg", "b.png"])
    assert [index.size(name) for name in ("a.jpg", "b.png", "a.jpg", "absent.jpg")] == [(0, 0)] * 4
    assert index.unreadable == ["a.jpg", "b.png"]


@cases(
    "path, found",
    {
        "exact": ("images/train", ["images/train/a.jpg", "images/train/c.png"]),
        "up": ("../train/", ["images/train/a.jpg", "images/train/c.png"]),
        "absolute": ("/data/set/images/val", ["images/val/a.jpg", "images/val/b.JPG"]),
        "all": (".", sorted(SOME)),
        "no such subset": ("test/images", []),
        "an end of a folder's name": ("rain", []),
    },
)
def test_images_within_a_folder(path: str, found: Any) -> None:
    assert ImageIndex(Path("nowhere"), SOME).within(path) == found


def test_words_in_a_file_name_say_no_subset() -> None:
    index = ImageIndex(Path("nowhere"), ["images/val/train_1.jpg"])
    assert index.resolve("train_1", "labels/val") == "images/val/train_1.jpg"
