from __future__ import annotations

import csv
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from pipeline.data.boxes import turn_upright
from pipeline.data.coco import Annotation, Category, CocoDataset, Image, read_coco
from pipeline.data.rules.inspection import ImageFacts, inspect
from pipeline.data.subsets import write_subset
from pipeline.data.validation import apply_rules, validate
from pipeline.errors import DataError

FACTS = {"a.png": ImageFacts(60, 40), "b.png": ImageFacts(60, 40)}
A, B = Image(1, "a.png", 60, 40), Image(2, "b.png", 60, 40)
BOX = Annotation(1, 1, 1, (5.0, 5.0, 20.0, 10.0), 200.0)
CROWD = replace(BOX, iscrowd=1, segmentation={"counts": [0, 2400], "size": [40, 60]})
CATS = (Category(1, "cat"), Category(2, "dog"))


def dataset(images=(A, B), annotations=(BOX,), categories=CATS):
    return CocoDataset(tuple(images), tuple(annotations), tuple(categories))


def box(*bbox, **fields):
    return replace(BOX, bbox=tuple(map(float, bbox)), area=float(bbox[2] * bbox[3]), **fields)


RULE_CASES = [
    pytest.param(dataset(), dataset(), [], id="sound"),
    pytest.param(
        dataset(categories=(*CATS, Category(1, "cow"))),
        dataset(),
        [("duplicate category", "dropped")],
        id="category id",
    ),
    pytest.param(
        dataset(categories=(*CATS, Category(9, "cat")), annotations=[replace(BOX, category_id=9)]),
        dataset(),
        [("duplicate category", "fixed")],
        id="category name",
    ),
    pytest.param(
        dataset([A, B, replace(A, file_name="b.png")]), dataset(), [("duplicate image", "dropped")], id="image id"
    ),
    pytest.param(
        dataset([A, B, replace(A, id=7)], [replace(BOX, image_id=7)]),
        dataset(),
        [("duplicate image", "fixed")],
        id="image file",
    ),
    pytest.param(
        dataset(annotations=[BOX, box(0, 0, 9, 9)]),
        dataset(annotations=[BOX, box(0, 0, 9, 9, id=2)]),
        [("annotation id", "fixed")],
        id="annotation id twice",
    ),
    pytest.param(
        dataset(annotations=[replace(BOX, id=0)]), dataset(), [("annotation id", "fixed")], id="annotation id 0"
    ),
    pytest.param(
        dataset(annotations=[BOX, box(0, 0, 9, 9, id=2, image_id=5)]),
        dataset(),
        [("unknown reference", "dropped")],
        id="unknown image",
    ),
    pytest.param(
        dataset(annotations=[BOX, box(0, 0, 9, 9, id=2, category_id=5)]),
        dataset(),
        [("unknown reference", "dropped")],
        id="unknown category",
    ),
    pytest.param(
        dataset(annotations=[box(5, 5, float("nan"), 10), box(float("inf"), 5, 9, 9, id=2)]),
        dataset(annotations=[]),
        [("unsound box", "dropped")] * 2,
        id="not finite",
    ),
    pytest.param(
        dataset(annotations=[box(5, 5, 0, 10), box(5, 5, -3, -3, id=2)]),
        dataset(annotations=[]),
        [("unsound box", "dropped")] * 2,
        id="no area",
    ),
    pytest.param(
        dataset(annotations=[box(50, -5, 20, 20)]),
        dataset(annotations=[box(50, 0, 10, 15)]),
        [("box outside image", "fixed"), ("wrong area", "fixed")],
        id="partly outside",
    ),
    pytest.param(
        dataset(annotations=[box(60, 5, 20, 20)]),
        dataset(annotations=[]),
        [("box outside image", "dropped")],
        id="outside",
    ),
    pytest.param(
        dataset(annotations=[box(40.004, 5, 20, 20)]), dataset(annotations=[box(40.004, 5, 20, 20)]), [], id="rounding"
    ),
    pytest.param(
        dataset(annotations=[BOX, replace(BOX, id=2)]), dataset(), [("duplicate box", "dropped")], id="box twice"
    ),
    pytest.param(
        dataset(annotations=[BOX, replace(BOX, id=2, category_id=2)]),
        dataset(annotations=[BOX, replace(BOX, id=2, category_id=2)]),
        [("duplicate box", "kept")],
        id="box of two classes",
    ),
    pytest.param(
        dataset(annotations=[replace(CROWD, id=1), replace(CROWD, id=2, category_id=2), replace(BOX, id=3)]),
        dataset(annotations=[replace(CROWD, id=1), replace(CROWD, id=2, category_id=2), replace(BOX, id=3)]),
        [],
        id="a region ignored for two classes, and an object that fills it",
    ),
    pytest.param(
        dataset(annotations=[CROWD, replace(CROWD, id=2)]),
        dataset(annotations=[CROWD]),
        [("duplicate box", "dropped")],
        id="crowd twice",
    ),
    pytest.param(
        dataset(annotations=[replace(CROWD, bbox=(-5.0, -5.0, 90.0, 90.0), area=8100.0)]),
        dataset(annotations=[replace(CROWD, bbox=(0.0, 0.0, 60.0, 40.0), area=2400.0)]),
        [("box outside image", "fixed"), ("wrong area", "fixed")],
        id="crowd over the edges",
    ),
    pytest.param(
        dataset(
            annotations=[replace(BOX, area=area, id=i) for i, area in enumerate((0.0, 500.0, float("nan")), 1)][:1]
        ),
        dataset(),
        [("wrong area", "fixed")],
        id="area 0",
    ),
    pytest.param(
        dataset(annotations=[replace(BOX, area=500.0)]), dataset(), [("wrong area", "fixed")], id="area above the box"
    ),
    pytest.param(
        dataset(annotations=[replace(BOX, area=float("nan"))]),
        dataset(),
        [("wrong area", "fixed")],
        id="area not finite",
    ),
    pytest.param(
        dataset(annotations=[replace(BOX, area=120.0)]), dataset(annotations=[replace(BOX, area=120.0)]), [], id="mask"
    ),
    pytest.param(
        dataset([replace(A, width=40, height=60), B]), dataset(), [("declared size", "fixed")], id="size swapped"
    ),
    pytest.param(
        dataset([replace(A, width=30, height=20), B], [box(2.5, 2.5, 10, 5)]),
        dataset(),
        [("declared size", "fixed")],
        id="picture resized",
    ),
    pytest.param(dataset([replace(A, width=0), B]), dataset(), [("declared size", "fixed")], id="no size"),
]


@pytest.mark.parametrize(("given_", "expected", "findings"), RULE_CASES)
def test_rule(given_, expected, findings):
    found = apply_rules(given_, FACTS)
    assert found.dataset == expected
    assert [(each.rule, each.action) for each in found.findings] == findings


def test_unreadable_images_go_with_their_boxes():
    facts = FACTS | {"a.png": ImageFacts(problem="the file is missing")}
    found = apply_rules(dataset(), facts)
    assert found.dataset == dataset([B], [])
    (finding,) = found.findings
    assert (finding.rule, finding.item, finding.action) == ("unreadable image", "image 1 (a.png)", "dropped")
    assert finding.detail == "the file is missing; 1 boxes went with it"


numbers = st.one_of(
    st.integers(-70, 130).map(float), st.floats(-1e3, 1e3), st.floats(), st.sampled_from([0.0, 1e-9, 60.0, 59.999])
)
names_ = st.sampled_from(["a.png", "b.png", "c.png", "gone.png"])
small = st.integers(0, 4)
sizes = st.sampled_from([0, 20, 30, 40, 59, 60])
messy = st.builds(
    CocoDataset,
    st.lists(st.builds(Image, small, names_, sizes, sizes), max_size=6).map(tuple),
    st.lists(
        st.builds(
            Annotation, small, small, small, st.tuples(numbers, numbers, numbers, numbers), numbers, st.integers(0, 1)
        ),
        max_size=12,
    ).map(tuple),
    st.lists(st.builds(Category, small, st.sampled_from(["cat", "dog", "cow"])), max_size=4).map(tuple),
)
MESSY_FACTS = {
    "a.png": ImageFacts(60, 40),
    "b.png": ImageFacts(40, 60, 6),
    "c.png": ImageFacts(30, 30, 3),
    "gone.png": ImageFacts(problem="the file is missing"),
}


@settings(max_examples=400)
@given(messy)
def test_whatever_comes_in_what_comes_out_is_sound_and_stays(messy):
    found = apply_rules(messy, MESSY_FACTS)
    again = apply_rules(found.dataset, MESSY_FACTS)
    assert again.dataset == found.dataset
    assert {each.rule for each in again.findings if each.action != "kept"} <= {"EXIF orientation"}
    sound = found.dataset
    images = {image.id: image for image in sound.images}
    assert len(images) == len(sound.images) == len({image.file_name for image in sound.images})
    assert len({each.id for each in sound.annotations} - {0}) == len(sound.annotations)
    categories = {category.id for category in sound.categories}
    assert len(categories) == len(sound.categories) == len(set(sound.classes))
    for each in sound.annotations:
        x, y, width, height = each.bbox
        image = images[each.image_id]
        assert each.category_id in categories
        assert min(width, height) > 0
        assert min(x, y) >= -0.02
        assert x + width <= image.width + 0.02
        assert y + height <= image.height + 0.02
        assert 0 < each.area <= width * height * 1.001 + 1


class TestFiles:
    """Against real files, as `validate` sees them."""

    def test_inspection(self, tmp_path, write_picture):
        for suffix in (".jpg", ".png", ".webp", ".bmp"):
            write_picture(tmp_path / f"whole{suffix}", 50, 30)
            data = (tmp_path / f"whole{suffix}").read_bytes()
            (tmp_path / f"cut{suffix}").write_bytes(data[: len(data) // 2])
        (tmp_path / "empty.jpg").touch()
        (tmp_path / "text.jpg").write_text("hello")
        names = sorted(path.name for path in tmp_path.iterdir())
        facts = inspect(tmp_path, [*names, "gone.jpg"])
        for name, fact in facts.items():
            expected = ImageFacts(50, 30) if name.startswith("whole") else ImageFacts(problem=fact.problem or "none")
            assert fact == expected, name
        assert facts["gone.jpg"].problem == "the file is missing"

    def test_sixteen_bits_grey_and_alpha_are_pictures(self, tmp_path):
        rng = np.random.default_rng(0)
        cv2.imwrite(str(tmp_path / "grey.png"), rng.integers(0, 255, (30, 50), np.uint8))
        cv2.imwrite(str(tmp_path / "alpha.png"), rng.integers(0, 255, (30, 50, 4), np.uint8))
        cv2.imwrite(str(tmp_path / "deep.png"), rng.integers(0, 65535, (30, 50, 3), np.uint16))
        facts = inspect(tmp_path, ["grey.png", "alpha.png", "deep.png"])
        assert set(facts.values()) == {ImageFacts(50, 30)}

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("drawn_on", ["stored", "upright"])
    def test_exif_orientation(self, tmp_path, orientation, drawn_on):
        """A white patch on black: after writing, the box is still around it, whichever picture it was drawn on."""
        stored = np.zeros((40, 60, 3), np.uint8)
        stored[4:14, 8:32] = 255
        exif = Picture.Exif()
        exif[0x0112] = orientation
        (tmp_path / "in").mkdir()
        Picture.fromarray(stored).save(tmp_path / "in/a.png", exif=exif)
        upright = cv2.imread(str(tmp_path / "in/a.png"))
        reference = upright if drawn_on == "upright" or orientation < 5 else stored
        image = Image(1, "a.png", reference.shape[1], reference.shape[0])
        bbox = tuple(map(float, cv2.boundingRect(reference[..., 0])))
        found = validate(dataset([image], [replace(BOX, bbox=bbox, area=240.0)]), tmp_path / "in")
        assert found.upright == (() if orientation == 1 else ("a.png",))
        write_subset(found.dataset, tmp_path / "in", tmp_path / "out", upright=found.upright)
        with Picture.open(tmp_path / "out/images/a.png") as picture:
            pixels = np.array(picture)
            assert picture.getexif().get(0x0112, 1) == 1
        (written,) = read_coco(tmp_path / "out/annotations.json").annotations
        assert written.bbox == tuple(map(float, cv2.boundingRect(pixels[..., 0])))
        assert len(validate(read_coco(tmp_path / "out/annotations.json"), tmp_path / "out/images").findings) == 0

    def test_nothing_left_is_an_error(self, tiny):
        with pytest.raises(DataError, match=r"None of the 3 images[\s\S]*unreadable image"):
            validate(tiny[0], tiny[1] / "elsewhere")

    def test_real_photographs_are_sound(self, tmp_path, real_data):
        with zipfile.ZipFile(real_data / "val2017.zip") as archive:
            archive.extractall(tmp_path)
        with zipfile.ZipFile(real_data / "annotations_trainval2017.zip") as archive:
            archive.extractall(tmp_path)
        raw = read_coco(tmp_path / "annotations/instances_val2017.json")
        found = validate(raw, tmp_path / "val2017")
        assert found.findings.records == ()
        assert found.dataset == raw
        assert found.upright == ()


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_turned_box_stays_within(orientation):
    assert turn_upright((0.0, 0.0, 60.0, 40.0), orientation, 40, 60) == (0.0, 0.0, 40.0, 60.0)


class TestFindings:
    @pytest.fixture
    def findings(self):
        image = Image(1, "<b>.png", 60, 40)
        return apply_rules(dataset([image], [box(5, 5, 0, 0, id=i) for i in range(1, 31)]),
                           {"<b>.png": ImageFacts(60, 40)}).findings  # fmt: skip

    def test_counts(self, findings):
        assert findings.summary.rows == (("unsound box", "dropped", 30),)
        assert (findings.count("dropped"), findings.count("fixed"), len(findings)) == (30, 0, 30)
        assert "unsound box  dropped     30" in str(findings)

    def test_html_is_short_and_escaped(self):
        facts = {"<b>.png": ImageFacts(problem="the file is missing"), "a.png": ImageFacts(60, 40)}
        html = apply_rules(dataset([A, Image(2, "<b>.png", 1, 1)]), facts)._repr_html_()
        assert "&lt;b&gt;.png" in html
        assert "<b>" not in html

    def test_html_shows_the_first(self, findings):
        assert findings._repr_html_().count("<tr>") == 2 + 21
        assert "first 20 findings" in findings._repr_html_()

    def test_csv_has_all(self, findings, tmp_path):
        findings.write_csv(tmp_path / "findings.csv")
        with (tmp_path / "findings.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 30
        assert rows[0] == {
            "rule": "unsound box",
            "item": "annotation 1 in image 1",
            "action": "dropped",
            "detail": "the box has no area: (5.0, 5.0, 0.0, 0.0)",
        }

    def test_none(self):
        assert str(apply_rules(dataset(), FACTS)) == "Nothing was found wrong"


def test_what_the_service_would_refuse_is_dropped_and_said(tmp_path):
    """Limits and formats are the service's own; a picture beyond them would fail only after training."""
    from pipeline.data.rules import inspection
    from pipeline.serving.decoding import FORMATS, MAX_PIXELS
    from pipeline.serving.upload import Limits

    assert inspection.MAX_PIXELS == MAX_PIXELS == Limits().pixels
    assert Limits().body_bytes > inspection.MAX_BYTES
    pixels = np.full((8, 8, 3), 200, np.uint8)
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".tif"):
        assert cv2.imwrite(str(tmp_path / f"a{suffix}"), pixels)
    noise = np.random.default_rng(0).integers(0, 255, (3400, 3400, 3), np.uint8)
    assert cv2.imwrite(str(tmp_path / "heavy.bmp"), noise)
    assert cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((7100, 7100, 3), np.uint8))
    facts = inspection.inspect(tmp_path, sorted(path.name for path in tmp_path.iterdir()))
    refused = {name: fact.problem for name, fact in facts.items() if fact.problem}
    assert refused.keys() == {"a.tif", "heavy.bmp", "wide.png"}
    assert "not JPEG, PNG, WebP or BMP" in refused["a.tif"]
    assert "33 MiB are more than 31" in refused["heavy.bmp"]
    assert "50 megapixels are more than 50" in refused["wide.png"]
    assert len(FORMATS) == 4


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_folders_that_only_the_annotations_name(depth):
    from pipeline.data.annotation_source import with_names_as_on_disk

    folders = "".join(f"f{number}/" for number in range(depth))
    dataset = CocoDataset(tuple(Image(i, f"{folders}{i}.jpg", 8, 8) for i in (1, 2)), (), (Category(1, "a"),))
    named = with_names_as_on_disk(dataset, {"1.jpg", "2.jpg"})
    assert [image.file_name for image in named.images] == ["1.jpg", "2.jpg"]
