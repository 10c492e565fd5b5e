from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import messy
import numpy as np
import pytest
from cases import cases
from crowded import crowded
from faults import FAULTS, Draft, plant
from hypothesis import given, settings
from hypothesis import strategies as st
from operations import lines_run
from pictures import exif_of
from PIL import Image as Picture
from pycocotools.coco import COCO

from pipeline.data.checks import box_rules
from pipeline.data.checks.findings import DID, Finding
from pipeline.data.checks.validation import LOADING_RULES, RULES, Validation, apply_rules, validate
from pipeline.data.coco import Annotation, Category, CocoDataset, Image, read_coco, write_coco
from pipeline.data.dataset_folder import write_subset
from pipeline.data.images import ImageFacts
from pipeline.data.tables import account
from pipeline.errors import DataError, UsageError

FACTS = {"a.png": ImageFacts(60, 40), "b.png": ImageFacts(60, 40)}
A, B = Image(1, "a.png", 60, 40), Image(2, "b.png", 60, 40)
BOX = Annotation(1, 1, 1, (5.0, 5.0, 20.0, 10.0), 200.0)
CROWD = replace(BOX, iscrowd=1, segmentation={"counts": [0, 2400], "size": [40, 60]})
CATS = (Category(1, "cat"), Category(2, "dog"))
ON_THE_WHOLE = {"rare-category", "unused-category", "image-without-box"}  # in data sets as small as these, always


def dataset(images: Any = (A, B), annotations: Any = (BOX,), categories: Any = CATS) -> Any:
    return CocoDataset(tuple(images), tuple(annotations), tuple(categories))


def box(*bbox: Any, **fields: Any) -> Any:
    return replace(BOX, bbox=tuple(map(float, bbox)), area=float(bbox[2] * bbox[3]), **fields)


def changes(validation: Validation) -> list[tuple[str, str]]:
    """What was not only reported."""
    return [(each.rule, each.item) for each in validation.findings if each.action != "reported"]


def accounted(given_: CocoDataset, found: Validation) -> None:
    """Every image and box is kept, or excluded for a reason."""
    account("images", len(given_.images), len(found.dataset.images), found.exclusions)
    account("boxes", len(given_.annotations), len(found.dataset.annotations), found.exclusions)
    assert all(0 < each.count <= each.of for each in found.exclusions)


# Where rules work together; a rule alone is tested beside it, and by the planted faults.
@cases(
    "annotations, left, findings",
    {
        "on top of another of another class or image": (
            [BOX, box(5, 5, 20, 9.5, id=2, category_id=2), box(5, 5, 20, 9.5, id=3, image_id=2)],
            None,
            [],
        ),
        "rounding": ([box(40.004, 5, 20, 20)], None, []),
        "a region ignored for two classes, and an object that fills it": (
            [CROWD, replace(CROWD, id=2, category_id=2), replace(BOX, id=3)],
            None,
            [],
        ),
        "crowd twice": ([CROWD, replace(CROWD, id=2)], [CROWD], [("duplicate-box", "dropped")]),
        "crowd over the edges": (
            [replace(CROWD, bbox=(-5.0, -5.0, 90.0, 90.0), area=8100.0)],
            [replace(CROWD, bbox=(0.0, 0.0, 60.0, 40.0), area=2400.0)],
            [("box-partly-outside", "repaired")],
        ),
    },
)
def test_rule(annotations: Any, left: Any, findings: Any) -> None:
    found = apply_rules(dataset(annotations=annotations), FACTS)
    assert found.dataset == dataset(annotations=left or annotations)
    assert [(each.rule, each.action) for each in found.findings if each.rule not in ON_THE_WHOLE] == findings


NO_AREA = box(5, 5, 0, 10)
RARE = Annotation(2, 2, 2, (5.0, 5.0, 20.0, 10.0), 200.0)


@cases(
    "annotations, actions, left",
    {
        "no area": ([NO_AREA], {}, "b.png"),
        "outside": ([box(60, 5, 20, 20)], {}, "b.png"),
        "an unknown category": ([replace(BOX, category_id=5)], {}, "b.png"),
        "too small": ([box(5, 5, 0.5, 10)], {}, "b.png"),
        "a crowd region without area": ([replace(NO_AREA, iscrowd=1)], {}, "b.png"),
        "as the user wants": ([box(0, 0, 60, 40)], {"covering-box": "drop"}, "b.png"),
        "one of two boxes": ([NO_AREA, replace(BOX, id=2)], {}, "a.png b.png"),
        "all but a crowd region": ([NO_AREA, replace(CROWD, id=2)], {}, "a.png b.png"),
        "of a class not to be known": ([BOX, RARE], {"rare-category": "drop"}, "a.png b.png"),
        "there were none": ([], {}, "a.png b.png"),
        "there were none, and background is not wanted": ([], {"image-without-box": "drop"}, ""),
        "dropped, and background is not wanted": ([NO_AREA], {"image-without-box": "drop"}, ""),
    },
)
def test_an_image_that_loses_all_its_annotations_is_no_background(
    annotations: list[Any], actions: dict[Any, Any], left: str
) -> None:
    found = apply_rules(dataset(annotations=annotations), FACTS, actions=actions)
    assert " ".join(image.file_name for image in found.dataset.images) == left
    lost = [each for each in found.exclusions if each.reason == "their annotations were all dropped"]
    emptied = [each.file_name for each in found.findings if each.rule == "image-without-usable-box"]
    assert sum(each.count for each in lost) == len(emptied)
    assert (emptied == ["a.png"]) == (bool(annotations) and "a.png" not in left)
    accounted(dataset(annotations=annotations), found)
    if annotations == [NO_AREA] and not actions:
        assert list(map(str, found.exclusions)) == [
            "1 of 2 images excluded: their annotations were all dropped",
            "1 of 1 boxes excluded: by the rule box-without-area",
        ]
        (said,) = [each for each in found.findings if each.rule == "image-without-usable-box"]
        assert (said.item, said.detail) == ("image 1 (a.png)", "box-without-area took its last annotation")


@settings(max_examples=150, deadline=None)
@given(messy.datasets, st.one_of(st.just({}), messy.actions))
def test_whatever_comes_in_what_comes_out_is_sound_and_stays(given_: Any, actions: Any) -> None:
    found = apply_rules(given_, messy.FACTS, actions=actions)
    accounted(given_, found)
    turned = {name: replace(messy.FACTS[name], orientation=1) for name in found.upright}  # as `write_subset` does
    again = apply_rules(found.dataset, messy.FACTS | turned, actions=actions)
    assert again.dataset == found.dataset
    assert not changes(again)
    assert again.groups == found.groups
    sound = found.dataset
    images = {image.id: image for image in sound.images}
    assert len(images) == len(sound.images) == len({image.file_name for image in sound.images})
    assert len({each.id for each in sound.annotations if each.id > 0}) == len(sound.annotations)
    categories = {category.id for category in sound.categories}
    assert len(categories) == len(sound.categories) == len(set(sound.classes))
    if actions.get("rare-category") != "drop":
        assert not {image.id for image in sound.background_images} & {each.image_id for each in given_.annotations}
    clipped = actions.get("box-partly-outside") != "report"
    for each in sound.annotations:
        x, y, width, height = each.bbox
        image = images[each.image_id]
        assert each.category_id in categories
        assert min(width, height) > 0
        assert not clipped or min(x, y) >= -0.02
        assert not clipped or x + width <= image.width + 0.02
        assert not clipped or y + height <= image.height + 0.02
        assert 0 < each.area <= width * height * 1.001 + 1


class TestFiles:
    """Against real files, as `validate` sees them."""

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("drawn_on", ["stored", "upright"])
    def test_exif_orientation(self, tmp_path: Path, orientation: Any, drawn_on: str) -> None:
        """A white patch on black: after writing, the box is still around it, whichever picture it was drawn on."""
        stored = np.zeros((40, 60, 3), np.uint8)
        stored[4:14, 8:32] = 255
        (tmp_path / "in").mkdir()
        Picture.fromarray(stored).save(tmp_path / "in/a.png", exif=exif_of(orientation))
        upright = cv2.imread(str(tmp_path / "in/a.png"))
        reference = upright if drawn_on == "upright" or orientation < 5 else stored
        image = Image(1, "a.png", reference.shape[1], reference.shape[0])
        bbox = tuple(map(float, cv2.boundingRect(reference[..., 0])))
        outline = [[bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1], bbox[0], bbox[1] + bbox[3]]]
        found = validate(dataset([image], [replace(BOX, bbox=bbox, area=240.0, segmentation=outline)]), tmp_path / "in")
        (left,) = found.dataset.annotations
        assert left.segmentation == (outline if reference is upright or orientation == 1 else None)
        assert found.upright == (() if orientation == 1 else ("a.png",))
        write_subset(found.dataset, tmp_path / "in", tmp_path / "out", upright=found.upright)
        with Picture.open(tmp_path / "out/images/a.png") as picture:
            pixels = np.array(picture)
            assert picture.getexif().get(0x0112, 1) == 1
        (written,) = read_coco(tmp_path / "out/annotations.json").annotations
        assert written.bbox == tuple(map(float, cv2.boundingRect(pixels[..., 0])))
        again = validate(read_coco(tmp_path / "out/annotations.json"), tmp_path / "out/images")
        assert not changes(again)
        assert again.upright == ()

    def test_nothing_left_is_an_error(self, tiny: tuple[CocoDataset, Path]) -> None:
        with pytest.raises(DataError, match=r"none of the 3 images[\s\S]*missing-image"):
            validate(tiny[0], tiny[1] / "elsewhere")

    def test_no_object_left_is_an_error_in_other_words(self, tiny: tuple[CocoDataset, Path]) -> None:
        crowd = Annotation(4, 3, 7, (5.0, 5.0, 20.0, 10.0), 200.0, 1)
        given_ = replace(tiny[0], annotations=(*tiny[0].annotations, crowd))
        with pytest.raises(DataError, match=r"none of the 3 boxes can be used[\s\S]*tiny-box"):
            validate(given_, tiny[1], min_box_side=50)

    def test_what_loading_found_comes_first(self, tiny: tuple[CocoDataset, Path]) -> None:
        told = Finding("unreadable-annotation", "error", "record a.csv:3", "dropped", "no number", source="a.csv:3")
        found = validate(*tiny, loaded=(told,), actions={"unreadable-annotation": "drop"}).findings
        assert found[0] == told
        assert found[1:] == validate(*tiny).findings

    def test_real_photographs_are_sound(self, tmp_path: Path, real_data: Path) -> None:
        with zipfile.ZipFile(real_data / "val2017.zip") as archive:
            archive.extractall(tmp_path)
        with zipfile.ZipFile(real_data / "annotations_trainval2017.zip") as archive:
            archive.extractall(tmp_path)
        raw = read_coco(tmp_path / "annotations/instances_val2017.json")
        found = validate(raw, tmp_path / "val2017")
        assert not changes(found)
        assert found.dataset == raw
        assert found.upright == ()


def with_faults(folder: Any, rules: Any) -> tuple[Any, ...]:
    """The data set with these faults as a file brings it, its pictures' folder, and what is to be found."""
    draft = Draft(folder / "in")
    expected = plant(draft, rules)
    write_coco(draft.dataset, folder / "in.json")
    return read_coco(folder / "in.json"), draft.images_folder, sorted(expected)


def written(validation: Any, pictures: Any, folder: Any) -> tuple[Any, ...]:
    """The validated data set as `data_prep` writes it, and what pycocotools makes of it."""
    write_subset(validation.dataset, pictures, folder, upright=validation.upright)
    json.loads((folder / "annotations.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    coco = COCO(str(folder / "annotations.json"))
    assert len(coco.getAnnIds()) == len(validation.dataset.annotations)
    for each in coco.loadAnns(coco.getAnnIds()):
        if each.get("segmentation"):
            image = coco.imgs[each["image_id"]]
            assert coco.annToMask(each).shape == (image["height"], image["width"])
    return read_coco(folder / "annotations.json"), folder / "images"


class TestPlantedFaults:
    """The findings name exactly what was planted, and what is written is sound."""

    def test_every_rule_has_one(self) -> None:
        assert [rule.name for rule in RULES] == list(FAULTS)

    def test_without_one_nothing_is_found(self, tmp_path: Path) -> None:
        sound, pictures, _ = with_faults(tmp_path, [])
        found = validate(sound, pictures)
        assert found.findings == ()
        assert found.dataset == sound

    @pytest.mark.parametrize("name", FAULTS)
    def test_one(self, tmp_path: Path, name: Any) -> None:
        (rule,) = (rule for rule in RULES if rule.name == name)
        for action in rule.allowed:
            given_, pictures, expected = with_faults(tmp_path / action, [rule.name])
            found = validate(given_, pictures, actions={rule.name: action})
            assert [(each.rule, each.item) for each in found.findings] == expected
            finding = found.findings[0]
            assert (finding.severity, finding.action) == (rule.severity, DID[action])
            assert (found.dataset == given_) == (action == "report")
            accounted(given_, found)
            again = validate(*written(found, pictures, tmp_path / action / "out"), actions={rule.name: action})
            assert not changes(again)
            assert [each.rule for each in again.findings] == [rule.name] * (action == "report")

    def test_all(self, tmp_path: Path) -> None:
        given_, pictures, expected = with_faults(tmp_path, FAULTS)
        found = validate(given_, pictures)
        assert sorted((each.rule, each.item) for each in found.findings) == expected
        accounted(given_, found)
        again = validate(*written(found, pictures, tmp_path / "out"))
        assert not changes(again)
        reported = {rule.name for rule in RULES if rule.default == "report"}
        assert {each.rule for each in again.findings} == reported

    @pytest.mark.slow
    def test_what_is_written_can_be_trained_on(self, tmp_path: Path) -> None:
        from pipeline.detection.hyperparameters import TrainingOptions
        from pipeline.detection.training import train

        given_, pictures, _ = with_faults(tmp_path, FAULTS)
        found = validate(given_, pictures)
        written(found, pictures, tmp_path / "train")
        (tmp_path / "model").mkdir()
        options = TrainingOptions(detector="yolox-nano", image_size=64, epochs=1, batch_size=4, seed=0)
        result = train(options, tmp_path / "train", tmp_path / "train", tmp_path / "model")
        assert np.isfinite(result.history[0].loss["loss"])
        assert result.history[0].mAP is not None


class TestActions:
    @cases(
        "actions, message",
        {
            "near a name": ({"tiny-boxes": "drop"}, r"no rule 'tiny-boxes'[\s\S]*did you mean 'tiny-box'"),
            "no name": ({"zzz": "drop"}, r"no rule 'zzz'[\s\S]*there are: unreadable-annotation, "),
            "would crash": (
                {"unknown-image": "report"},
                r"cannot 'report': an annotation in an image that is not listed, and pycoco[\s\S]*drop",
            ),
            "no repair": ({"tiny-box": "repair"}, r"nothing that it could become[\s\S]*report or drop"),
            "found on loading": (
                {"unreadable-annotation": "report"},
                r"cannot 'report': a record of the annotations that cannot be read, and nothing[\s\S]*drop",
            ),
            "converted on loading": ({"converted-image": "drop"}, r"cannot 'drop'[\s\S]*repair"),
            "no action": ({"tiny-box": "fix"}, r"cannot 'fix'[\s\S]*report or drop"),
            "no text": ({"tiny-box": ["drop"]}, r"cannot '\['drop'\]'"),
        },
    )
    def test_what_cannot_be_done_is_refused_before_an_image_is_read(
        self, tmp_path: Path, actions: dict[Any, Any], message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            validate(dataset(), tmp_path / "nowhere", actions=actions)

    def test_a_limit_moves_the_line(self, tmp_path: Path) -> None:
        draft = Draft(tmp_path / "in")
        draft.box(draft.images[0], (20.0, 12.0, 40.0, 32.0))
        for most, found in ((1, False), (31, True)):
            findings = validate(draft.dataset, draft.images_folder, min_box_side=most).findings
            assert ("tiny-box" in {each.rule for each in findings}) == found

    def test_what_would_crash_cannot_only_be_reported(self) -> None:
        rules = (*LOADING_RULES, *RULES)
        assert all(("report" in rule.allowed) == (not rule.why) for rule in rules)
        assert all(rule.default in rule.allowed for rule in rules)


@cases(
    "images, classes",
    {"more boxes an image": (25, 80), "more boxes of one class an image": (25, 1), "more images": (500, 80)},
)
def test_work_grows_with_the_boxes_and_not_with_their_square(
    monkeypatch: pytest.MonkeyPatch, images: int, classes: int
) -> None:
    few, many = (work_of_rules(monkeypatch, *each, classes) for each in ((250, 25), (5_000, images)))
    assert many <= 25 * few


def work_of_rules(monkeypatch: pytest.MonkeyPatch, boxes: Any, images: Any, classes: Any) -> Any:
    """Lines that all rules run on made-up boxes, and pairs of boxes compared in numpy."""
    given_ = crowded(boxes, images, classes)
    facts = {image.file_name: ImageFacts(640, 480, digest=image.file_name) for image in given_.images}
    pairs = 0

    def counted(one: Any, other: Any) -> Any:
        nonlocal pairs
        pairs += len(other)
        return overlap_too_much(one, other)

    overlap_too_much = box_rules._overlap_too_much
    with monkeypatch.context() as patch:
        patch.setattr(box_rules, "_overlap_too_much", counted)
        return lines_run(lambda: apply_rules(given_, facts)) + pairs


def test_what_the_service_would_refuse_is_dropped_and_said(tmp_path: Path) -> None:
    """Limits and formats are the service's own; a picture beyond them would fail only after training."""
    from pipeline.data import images
    from pipeline.serving.decoding import FORMATS, MAX_PIXELS
    from pipeline.serving.settings import read_settings

    limits = read_settings(0.3, 0.01, {}).limits
    assert images.MAX_PIXELS == MAX_PIXELS == limits["pixels"]
    assert limits["body_bytes"] > images.MAX_BYTES
    assert len(FORMATS) == 4
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".tif"):
        assert cv2.imwrite(str(tmp_path / f"a{suffix}"), np.full((8, 8, 3), 200, np.uint8))
    facts = images.inspect(tmp_path, sorted(path.name for path in tmp_path.iterdir()))
    assert {name for name, fact in facts.items() if fact.problem} == {"a.tif"}
