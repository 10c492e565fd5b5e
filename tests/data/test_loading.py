from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import cases
from pictures import exif_of
from PIL import Image as Picture

from pipeline.data.annotation_matching import read_test_list
from pipeline.data.checks.findings import read_loaded_findings
from pipeline.data.coco import Annotation, Category, CocoDataset, Image, read_coco, write_coco
from pipeline.data.dataset_origin import LOADED_FROM
from pipeline.data.loading import load_annotations, load_source
from pipeline.data.tables import read_exclusions
from pipeline.errors import DataError, MissingError, UsageError


def names(folder: Any) -> Any:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class Place:
    """Folders for one loading."""

    def __init__(self, root: Any) -> None:
        self.images, self.markup, self.out, self.cache = (root / name for name in ("images", "markup", "out", "cache"))

    def source(self, url: Any, **options: Any) -> Any:
        self.raw = load_source(str(url), self.images, self.markup, cache=self.cache, **options)
        return self.raw

    def annotations(self, url: Any = "", **options: Any) -> Any:
        folders = {"images": self.images, "annotations": self.markup, "cache": self.cache}
        return load_annotations(self.raw, self.out, url=str(url), **folders, **options)

    @property
    def dataset(self) -> Any:
        return read_coco(self.out / "annotations.json")


@pytest.fixture
def place(tmp_path: Path) -> Any:
    return Place(tmp_path / "loaded")


@pytest.fixture
def annotated(tiny: tuple[CocoDataset, Path], tmp_path: Path, place: Any) -> Any:
    """The tiny data set, its annotations as a file, `given`, and its images loaded into a folder."""
    place.given = tmp_path / "source.json"
    write_coco(tiny[0], place.given)
    place.source(tiny[1])
    return place


class TestSources:
    def test_sample(self, place: Any) -> None:
        url = "sample://shapes?images=4&size=64"
        assert place.source(url).images == len(names(place.images)) == 4
        loaded = place.annotations()
        assert (loaded.images, loaded.unannotated_images, loaded.url) == (4, 0, url)

    @pytest.mark.parametrize("folder", ["images", "markup"])
    def test_what_another_source_left_is_not_mixed_in(self, tiny: Any, place: Any, folder: Any) -> None:
        getattr(place, folder).mkdir(parents=True)
        (getattr(place, folder) / "old.json").write_text("{}")
        with pytest.raises(UsageError, match="not empty"):
            place.source(tiny[1])

    def test_the_source_is_recorded_in_the_dataset(self, tiny: Any, tmp_path: Path) -> None:
        """With the last names of local places, so that two clones in other folders give the same bytes."""
        found = []
        for clone in ("one", "two"):
            place = Place(tmp_path / clone / "loaded")
            shutil.copytree(tiny[1], tmp_path / clone / "cats")
            write_coco(replace(tiny[0], info={"year": 2026}), tmp_path / clone / "all.json")
            place.source(tmp_path / clone / "cats")
            place.annotations(tmp_path / clone / "all.json")
            found.append((place.out / "annotations.json").read_bytes())
        assert found[0] == found[1]
        record = {"source": "cats", "annotations": "all.json", "format": "coco"}
        assert place.dataset.info == {"year": 2026, "loaded_from": record}

    def test_a_source_without_annotation_files_has_no_format(self, place: Any) -> None:
        url = "sample://shapes?images=4&size=64"
        place.source(url)
        place.annotations()
        assert place.dataset.info["loaded_from"] == {"source": url}

    @cases("source", {"folder": ".", "file in it": "all.json"})
    def test_a_source_in_the_working_directory_has_its_name(
        self, tiny: Any, place: Any, monkeypatch: pytest.MonkeyPatch, source: str
    ) -> None:
        write_coco(tiny[0], tiny[1] / "all.json")
        monkeypatch.chdir(tiny[1])
        place.raw = load_source(source, place.images, place.markup, cache=place.cache)
        place.annotations()
        assert place.dataset.info["loaded_from"] == {"source": tiny[1].name, "format": "coco"}

    def test_no_images(self, tmp_path: Path, place: Any) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in/data.yaml").write_text("names: [cat]")
        with pytest.raises(DataError, match="no images"):
            place.source(tmp_path / "in")


class TestConverted:
    """A picture of another format, and one that is turned on the way."""

    def test_annotations_follow_the_new_name(self, tiny: Any, tmp_path: Path, place: Any) -> None:
        Picture.open(tiny[1] / "1.png").save(tiny[1] / "1.tif")
        (tiny[1] / "1.png").unlink()
        images = (replace(tiny[0].images[0], file_name="1.tif"), *tiny[0].images[1:])
        write_coco(replace(tiny[0], images=images), tiny[1] / "all.json")
        place.source(tiny[1])
        place.annotations()
        assert names(place.images) == ["1.tif.png", "2.png", "3.png"]
        assert [image.file_name for image in place.dataset.images] == ["1.tif.png", "2.png", "3.png"]
        assert without_sources(place.dataset).annotations == tiny[0].annotations

    @pytest.mark.parametrize("declared", ["stored", "upright"])
    def test_boxes_turn_once(self, tmp_path: Path, place: Any, declared: Any, tiny: Any) -> None:
        """A white patch in a sideways photograph: wherever the box was drawn, it ends on the patch."""
        pixels = np.zeros((40, 60, 3), np.uint8)
        pixels[5:15, 10:30] = 255  # as stored: x 10, y 5, width 20, height 10
        (tmp_path / "in").mkdir()
        Picture.fromarray(pixels).save(tmp_path / "in/b.avif", quality=100, exif=exif_of(6))
        # orientation 6: what is up is at the right of the stored picture
        size, box = (
            ((60, 40), (10.0, 5.0, 20.0, 10.0)) if declared == "stored" else ((40, 60), (25.0, 10.0, 10.0, 20.0))
        )
        image = replace(tiny[0].images[0], file_name="b.avif", width=size[0], height=size[1])
        dataset = replace(tiny[0], images=(image,), annotations=(Annotation(1, 1, 7, box, 200.0),))
        write_coco(dataset, tmp_path / "in/all.json")
        place.source(tmp_path / "in")
        place.annotations()
        [name] = [each for each in names(place.images) if each.startswith("b.")]
        with Picture.open(place.images / name) as picture:
            assert (picture.size, picture.getexif().get(0x0112, 1)) == ((40, 60), 1)
            found = np.asarray(picture.convert("L")) > 128
        [image] = place.dataset.images
        [annotation] = place.dataset.annotations
        assert (image.file_name, image.width, image.height, image.extra) == (name, 40, 60, {})
        x, y, width, height = (round(value) for value in annotation.bbox)
        assert found[y : y + height, x : x + width].mean() > 0.9
        assert found.sum() == pytest.approx(width * height, rel=0.1)


def without_sources(dataset: CocoDataset) -> CocoDataset:
    info = {key: value for key, value in dataset.info.items() if key != LOADED_FROM}
    return replace(dataset, info=info, annotations=tuple(replace(each, source="") for each in dataset.annotations))


class TestAnnotations:
    def test_file(self, annotated: Any, tiny: Any, write_picture: Any) -> None:
        write_picture(annotated.images / "more.png", 9, 9)
        loaded = annotated.annotations(annotated.given)
        assert without_sources(annotated.dataset) == tiny[0]
        assert annotated.dataset.annotations[2].source == "source.json: annotations[2]"
        assert (loaded.images, loaded.annotations, loaded.classes) == (3, 3, ("cat", "dog"))
        assert (loaded.unannotated_images, loaded.missing_images, loaded.test_images) == (1, 0, 0)
        assert names(annotated.out) == ["annotations.json", "exclusions.json"]
        assert loaded.notes == (
            "images: 4 loaded = 3 kept + 1 excluded",
            "boxes: 3 loaded = 3 kept + 0 excluded",
            "1 of 4 images excluded: nobody annotated them",
        )
        assert list(map(str, read_exclusions(annotated.out))) == list(loaded.notes)[2:]
        assert read_test_list(annotated.out) == ()
        assert [path.name for path in annotated.out.parent.iterdir() if path.name.startswith("tmp")] == []

    def test_a_finding_about_a_converted_image_names_the_file_it_became(self, place: Any, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        Picture.fromarray(np.full((40, 60), 4000, np.uint16)).save(tmp_path / "in/a.tif")
        box = Annotation(1, 1, 1, (5.0, 5.0, 20.0, 10.0), 200.0)
        write_coco(CocoDataset((Image(1, "a.tif", 60, 40),), (box,), (Category(1, "cat"),)), tmp_path / "in/a.json")
        place.source(tmp_path / "in")
        place.annotations()
        (found,) = read_loaded_findings(place.out)
        assert (found.rule, found.item, found.file_name) == ("converted-image", "image a.tif", "a.tif.png")
        assert found.file_name == place.dataset.images[0].file_name

    def test_boxes_that_cannot_be_read_are_findings(self, annotated: Any, tiny: Any) -> None:
        boxes = tuple(Annotation(i, i % 3 + 1, 7, (5, 5, 9, 9), 81) for i in range(1, 11))
        write_coco(replace(tiny[0], annotations=boxes), annotated.given)
        raw = json.loads(annotated.given.read_text())
        raw["annotations"][4]["category_id"] = None
        annotated.given.write_text(json.dumps(raw))
        loaded = annotated.annotations(annotated.given)
        (found,) = read_loaded_findings(annotated.out)
        place = "source.json: annotations[4]"
        assert (found.rule, found.severity, found.action, found.source) == (
            *("unreadable-annotation", "error", "dropped"),
            place,
        )
        assert found.detail == "category_id is absent where the id of a category was expected"
        assert f"{place}: {found.detail}" in loaded.notes
        assert names(annotated.out) == ["annotations.json", "exclusions.json", "findings.json"]

    def test_none_are_there(self, annotated: Any) -> None:
        with pytest.raises(DataError, match=r"no files at all(?s:.*)do: .*annotations_url"):
            annotated.annotations()

    @pytest.mark.parametrize(
        ("absent", "options"), [(["2.png"], {}), (["1.png", "2.png", "3.png"], {"missing_images": "drop"})]
    )
    def test_absent_images_are_refused(self, annotated: Any, absent: list[str], options: dict[str, str]) -> None:
        """All of them even where they may be dropped."""
        for name in absent:
            (annotated.images / name).unlink()
        with pytest.raises(DataError, match=rf"{len(absent)} of the 3 images .* absent: {absent[0]}"):
            annotated.annotations(annotated.given, **options)

    def test_absent_image_is_dropped_when_asked(self, annotated: Any, tmp_path: Path) -> None:
        (annotated.images / "2.png").unlink()
        (tmp_path / "list.txt").write_text("2.png\n3.png\n")
        loaded = annotated.annotations(annotated.given, missing_images="drop", test_list_url=str(tmp_path / "list.txt"))
        assert loaded.notes == (
            "images: 3 loaded = 2 kept + 1 excluded",
            "boxes: 3 loaded = 1 kept + 2 excluded",
            "1 of 3 images and 2 of 3 boxes excluded: their files are absent",
        )
        assert (loaded.images, loaded.annotations, loaded.missing_images, loaded.test_images) == (2, 1, 1, 1)
        assert (annotated.out / "test_images.txt").read_text() == "3.png\n"

    @pytest.mark.parametrize(
        ("options", "says"), [({"format": "coca"}, "coco"), ({"sha256": "0" * 64}, "without a URL")]
    )
    def test_wrong_options(self, annotated: Any, options: dict[str, str], says: str) -> None:
        with pytest.raises(UsageError, match=says):
            annotated.annotations("" if "sha256" in options else annotated.given, **options)

    def test_names_of_the_test_list_are_those_that_the_user_knows(
        self, tmp_path: Path, write_picture: Any, place: Any
    ) -> None:
        """In the folder, as in the annotations, before conversion, and without suffix."""
        for name in "1234":
            write_picture(tmp_path / f"in/{name}.png", 9, 9)
        Picture.open(tmp_path / "in/2.png").save(tmp_path / "in/2.tif")
        (tmp_path / "in/2.png").unlink()
        files = ["images/1.png", "images/2.tif", "images/3.png", "images/4.png"]
        images = tuple(Image(i, name, 9, 9) for i, name in enumerate(files, 1))
        boxes = tuple(Annotation(i, i, 1, (1, 1, 2, 2), 4) for i in range(1, 5))
        write_coco(CocoDataset(images, boxes, (Category(1, "cat"),)), tmp_path / "all.json")
        (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfimages/1.png\r\n 1.png \n\n2.tif\n4\n")
        place.source(tmp_path / "in")
        loaded = place.annotations(tmp_path / "all.json", test_list_url=str(tmp_path / "list.txt"))
        assert loaded.test_images == 3
        assert read_test_list(place.out) == ("1.png", "2.tif.png", "4.png")

    @cases(
        "content, problem",
        {
            "unknown": (b"4.png\n1.png", "names 1 images .* since the annotations do not name them: 4.png"),
            "empty": (b"\n", "empty"),
            "no text": (b"\xff\xfe1", "not a text"),
            "several of that name": (b"a", r"2 images match 'a'"),
        },
    )
    def test_a_wrong_test_list(
        self, annotated: Any, write_picture: Any, tmp_path: Path, content: bytes, problem: str
    ) -> None:
        for name in ("a.png", "a.jpg"):
            write_picture(annotated.images / name, 9, 9)
        (tmp_path / "list.txt").write_bytes(content)
        with pytest.raises(DataError, match=problem) as error:
            annotated.annotations(annotated.given, test_list_url=str(tmp_path / "list.txt"))
        assert f"where:    {tmp_path / 'list.txt'}\n" in f"{error.value}\n"

    def test_a_class_map_of_an_earlier_version_is_not_left_out_in_silence(self, tmp_path: Path) -> None:
        (tmp_path / "class_map.csv").write_text("from,to\ncat,animal\n")
        with pytest.raises(DataError, match=r"class_map_url(?s:.*)rename and drop_classes"):
            read_test_list(tmp_path)


class TestDescriptions:
    """Names of classes that come apart from the images and their labels."""

    @pytest.fixture
    def labelled(self, tmp_path: Path, write_picture: Callable[[Path, int, int], None], place: Any) -> tuple[Any, ...]:
        for name in "ab":
            write_picture(tmp_path / f"set/images/train/{name}.png", 20, 10)
            (tmp_path / "set/labels/train").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"set/labels/train/{name}.txt").write_text("1 0.5 0.5 0.2 0.4\n")
        return tmp_path / "set", place

    @cases(
        "name, content",
        {
            "YAML": ("coco128.yaml", "path: ../coco128\ntrain: images/train\nnames: [cat, dog]\n"),
            "list": ("classes.txt", "cat\ndog\n"),
        },
    )
    @pytest.mark.parametrize("own", ["", "names: [x, y]"])
    def test_they_go_with_the_sources_labels(
        self, labelled: Any, tmp_path: Path, name: str, content: Any, own: Any
    ) -> None:
        folder, place = labelled
        if own:
            (folder / "data.yaml").write_text(own)
        (tmp_path / name).write_text(content)
        place.source(folder)
        loaded = place.annotations(tmp_path / name)
        assert (loaded.images, loaded.annotations, loaded.classes) == (2, 2, ("cat", "dog"))
        assert loaded.url == str(tmp_path / name)
        assert place.dataset.annotations[0].bbox == pytest.approx((8, 3, 4, 4))
        assert {place.dataset.categories[each.category_id - 1].name for each in place.dataset.annotations} == {"dog"}
        record = {"source": "set", "format": "yolo"}
        assert place.dataset.info["loaded_from"] == record, "the annotations lay beside the images"

    def test_open_images(self, tmp_path: Path, write_picture: Any, place: Any) -> None:
        write_picture(tmp_path / "set/a.png", 20, 10)
        (tmp_path / "set/boxes.csv").write_text("ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/1,0,0.5,0,1\n")
        (tmp_path / "class-descriptions-boxable.csv").write_text("/m/1,Cat\n")
        place.source(tmp_path / "set")
        assert place.annotations(tmp_path / "class-descriptions-boxable.csv").classes == ("Cat",)

    def test_those_that_change_nothing_are_refused(self, annotated: Any, tiny: Any, tmp_path: Path) -> None:
        write_coco(tiny[0], annotated.markup / "all.json")
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
        with pytest.raises(DataError, match=r"only name classes.*coco(?s:.*)annotations_url empty"):
            annotated.annotations(tmp_path / "classes.txt")

    def test_labels_at_the_url_take_the_place_of_the_sources(self, labelled: Any, tmp_path: Path) -> None:
        folder, place = labelled
        place.source(folder)
        (tmp_path / "other").mkdir()
        (tmp_path / "other/a.txt").write_text("0 0.5 0.5 1 1\n")
        (tmp_path / "other/classes.txt").write_text("bird\n")
        loaded = place.annotations(tmp_path / "other")
        assert (loaded.annotations, loaded.classes) == (1, ("bird",))


@pytest.mark.parametrize(
    ("kept", "says"),
    [(3, "no box in 3 images, read as coco"), (0, "no image, read as coco")],
    ids=["no box", "nothing"],
)
def test_no_box_or_image(annotated: Any, tiny: Any, kept: int, says: str) -> None:
    write_coco(replace(tiny[0], annotations=(), images=tiny[0].images[:kept]), annotated.given)
    with pytest.raises(DataError, match=says):
        annotated.annotations(annotated.given)
    assert not names(annotated.out)


class TestPlaces:
    """Errors name what the user named, and never a folder that files were put into on the way."""

    @cases(
        "files, where",
        {
            "YOLO": ({"labels/a.txt": "5 0 0 1 1", "classes.txt": "cat"}, "in: labels/a.txt:1"),
            "COCO": (
                {"x/a.json": '{"images": 1, "annotations": [], "categories": 0, "bbox": 0}', "b.yaml": "x: 1"},
                "in: x/a.json",
            ),
            "CVAT": ({"a.xml": "<annotations>", "b.xml": "<annotations/>"}, "in: a.xml"),
            "no names": ({"labels/a.txt": "0 0 0 1 1"}, "in"),
            "unknown": ({"a.txt": "x"}, "in"),
        },
    )
    @pytest.mark.parametrize("apart", [False, True])
    def test_file(self, tmp_path: Path, write_picture: Any, place: Any, files: Any, where: Any, apart: Any) -> None:
        write_picture(tmp_path / "pictures/images/a.png", 9, 9)
        for name, text in files.items():
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if not apart:
            (tmp_path / "pictures/images").rename(tmp_path / "in/images")
        place.source(tmp_path / ("pictures" if apart else "in"))
        with pytest.raises((DataError, MissingError)) as error:
            place.annotations(tmp_path / "in" if apart else "")
        assert f"where:    {tmp_path / where}\n" in f"{error.value}\n"
        assert "tmp" not in str(error.value).replace(str(tmp_path), "")
        assert str(place.markup) not in str(error.value)

    def test_one_file(self, annotated: Any, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text("{}")
        with pytest.raises(MissingError) as error:
            annotated.annotations(tmp_path / "a.json", member="none.json")
        assert f"where:    {tmp_path / 'a.json'}\n" in str(error.value)

    def test_two_sources_together(self, tmp_path: Path, write_picture: Any, place: Any) -> None:
        write_picture(tmp_path / "in/a.png", 9, 9)
        (tmp_path / "in/a.txt").write_text("5 0 0 1 1")
        (tmp_path / "data.yaml").write_text("names: [cat]")
        place.source(tmp_path / "in")
        with pytest.raises(DataError) as error:
            place.annotations(tmp_path / "data.yaml")
        assert f"where:    {tmp_path / 'in'}: a.txt:1\n" in str(error.value)
        (tmp_path / "data.yaml").write_text("names: 3")
        with pytest.raises(DataError) as error:
            place.annotations(tmp_path / "data.yaml")
        assert f"where:    {tmp_path / 'data.yaml'}\n" in str(error.value)
