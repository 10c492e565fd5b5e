from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import exif_of, png_start
from PIL import Image as Picture

from pipeline.data.checks.findings import Finding
from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.dataset_folder import write_subset
from pipeline.data.figures import PALETTE
from pipeline.data.report.sample_images import (
    choose_findings,
    choose_view,
    class_samples,
    draw_thumbnails,
    sample_grid,
    worst_examples,
)


def shown(gallery: Any) -> Any:
    return {heading: [each.caption for each in images] for heading, images in gallery.rows.items()}


def test_a_row_for_each_class_by_how_frequent_it_is(two_classes: Any) -> None:
    gallery = class_samples(two_classes.dataset, two_classes.folder, count=9)
    rows = shown(gallery)
    assert list(rows) == ["dog (3 boxes)", "cat (2 boxes)"]
    assert sorted(rows["dog (3 boxes)"]) == ["0.png", "1.png", "2.png"]
    assert sorted(rows["cat (2 boxes)"]) == ["0.png", "3.png"]  # not 3.png as a dog: that is a crowd
    assert {each.alt for images in gallery.rows.values() for each in images} >= {"dog in 0.png", "cat in 0.png"}
    none = class_samples(two_classes.dataset, two_classes.folder, count=0)
    assert (none.rows, "No samples were asked for." in none._repr_html_()) == ({}, True)


def test_as_many_as_asked_for_and_the_seed_decides(two_classes: Any) -> None:
    draws = [shown(class_samples(two_classes.dataset, two_classes.folder, count=1, seed=seed)) for seed in range(8)]
    assert all(len(names) == 1 for rows in draws for names in rows.values())
    assert len({rows["dog (3 boxes)"][0] for rows in draws}) > 1


def test_the_order_of_the_records_makes_no_difference(two_classes: Any) -> None:
    dataset = two_classes.dataset
    turned = replace(dataset, images=dataset.images[::-1], annotations=dataset.annotations[::-1])
    assert class_samples(dataset, two_classes.folder) == class_samples(turned, two_classes.folder)


def test_the_largest_box_of_the_class_is_shown(tmp_path: Path) -> None:
    """The view, all of the image or a part of it, is chosen by the larger of two boxes."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((300, 800, 3), np.uint8))
    boxes = ((700.0, 200.0, 9.0, 9.0), (10.0, 10.0, 700.0, 200.0))
    annotations = tuple(Annotation(i, 1, 1, box, box[2] * box[3]) for i, box in enumerate(boxes))
    dataset = CocoDataset((Image(1, "a.png", 800, 300),), annotations, (Category(1, "cat"),))
    both, small = dataset, replace(dataset, annotations=annotations[:1])
    rows = [next(iter(class_samples(one, tmp_path).rows.values())) for one in (both, small)]
    assert [[(each.width, each.height) for each in row] for row in rows] == [[(260, 98)], [(240, 180)]]


def finding(rule: Any, severity: Any = "warning", file_name: Any = "0.png", bbox: Any = None) -> Any:
    return Finding(rule, severity, f"image {file_name}", "repaired", f"what {rule} found", file_name, bbox)


MANY = [finding("outside", file_name=f"{i}.png") for i in range(50)]
KINDS = [*MANY, finding("broken", "error"), finding("dark", "info")]
FIRST = [("broken", "0.png"), ("outside", "0.png")]


@cases(
    "findings, count, expected",
    {
        "none": ([], 3, []),
        "about-no-image": ([finding("class", file_name="")], 3, []),
        "every-rule-has-a-turn-and-the-severe-come-first": (
            KINDS,
            4,
            [*FIRST, ("outside", "1.png"), ("dark", "0.png")],
        ),
        "too-few-places-go-to-the-severe": (KINDS, 2, FIRST),
        "an-image-once-for-a-rule": ([finding("twice")] * 2, 9, [("twice", "0.png")]),
        "the-severest-of-a-rule": (
            [finding("mixed", "info", "a.png"), finding("mixed", "error", "b.png")],
            1,
            [("mixed", "b.png")],
        ),
        "none-asked-for": (MANY, 0, []),
    },
)
def test_chosen_findings(findings: Any, count: int, expected: list[Any]) -> None:
    assert [(each.rule, each.file_name) for each in choose_findings(findings, count)] == expected


def test_findings_as_images_and_texts(two_classes: Any) -> None:
    (two_classes.folder / "broken.png").write_bytes(b"nothing")
    gallery = worst_examples(
        [
            replace(finding("outside", bbox=(-5.0, 0.0, 30.0, 30.0)), source="a.txt:3"),
            finding("broken", "error", "broken.png"),
            finding("missing", "error", "gone <b>.png"),
        ],
        two_classes.folder,
    )
    broken, missing, outside = gallery.rows[""]
    assert outside.data.startswith(b"\xff\xd8\xff")
    assert outside.caption == "outside, repaired: what outside found (0.png, a.txt:3)"
    assert (broken.data, broken.alt) == (b"", "The file is not an image that can be shown.")
    assert (missing.data, missing.alt) == (b"", "The file is missing.")
    page = gallery._repr_html_()
    assert page.count("<img") == 1
    assert "gone &lt;b&gt;.png" in page
    assert "The file is missing." in page


def pixels(chart: Any) -> Any:
    return cv2.imdecode(np.frombuffer(chart._repr_png_(), np.uint8), cv2.IMREAD_COLOR)


def test_grid_shows_boxes(tiny: tuple[CocoDataset, Path], tmp_path: Path) -> None:
    write_subset(*tiny, tmp_path / "with")
    write_subset(replace(tiny[0], annotations=()), tiny[1], tmp_path / "without")
    bare, boxed = (pixels(sample_grid(tmp_path / name, count=3)) for name in ("without", "with"))
    assert bare.shape == boxed.shape
    assert (bare != boxed).any(axis=2).mean() > 0.01
    assert len(sample_grid(tmp_path / "with", count=2).axes) == 2


def test_grid_of_crowds_many_classes_and_odd_names(tiny: tuple[CocoDataset, Path], tmp_path: Path) -> None:
    dataset, pictures = tiny
    (pictures / "1.png").rename(pictures / "a $b$ 日本.png")
    images = (replace(dataset.images[0], file_name="a $b$ 日本.png"), *dataset.images[1:])
    names = ["日本語", "$x^2$ & y", *(f"class {i}" for i in range(3, 31))]
    categories = tuple(Category(i, name) for i, name in enumerate(names, 1))
    crowd = tuple(Annotation(i, 1, i, (float(i), 2.0, 9.0, 9.0), 81.0, iscrowd=i % 2) for i in range(1, 31))
    write_subset(CocoDataset(images, crowd, categories), pictures, tmp_path / "out")
    chart = sample_grid(tmp_path / "out")
    assert "a $b$ 日本.png" in [axes.get_title() for axes in chart.axes]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(chart).std() > 5


ROOM = (260, 180)
NONE = np.zeros((0, 4))


def boxes(*each: Any) -> Any:
    return np.array(each, np.float64).reshape(-1, 4)


def picture(developed: Any) -> Any:
    assert developed.alt == ""
    pixels = cv2.imdecode(np.frombuffer(developed.data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape[1::-1] == (developed.width, developed.height)
    return pixels.astype(int)


def near(pixels: Any, colour: Any) -> Any:
    bgr = [int(colour[i : i + 2], 16) for i in (5, 3, 1)]
    return np.abs(pixels - bgr).max(axis=2) < 60


def outline_around_green(pixels: Any) -> Any:
    """The rows and columns of the outline, which runs where the green begins."""
    outline, green = np.nonzero(near(pixels, PALETTE[5])), np.nonzero(near(pixels, "#00FF00"))
    assert green[0].size
    for edge, inside in zip(outline, green, strict=True):
        assert 0 <= inside.min() - edge.min() <= 7
        assert 0 <= edge.max() - inside.max() <= 7
    return outline


def photo(path: Path, width: int, height: int, box: Any = (0, 0, 0, 0)) -> None:
    """A picture that is green in one box and black elsewhere."""
    pixels = np.zeros((height, width, 3), np.uint8)
    x, y, across, down = box
    pixels[y : y + down, x : x + across] = (0, 255, 0)
    Picture.fromarray(pixels).save(path)


@cases(
    "box",
    {
        "large": (40, 30, 200, 150),
        "small-so-zoomed": (500, 300, 40, 60),
        "small-in-a-corner": (2, 3, 30, 20),
        "small-in-the-other-corner": (1190, 890, 10, 10),
    },
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_box_is_drawn_around_its_object(tmp_path: Path, name: str, box: tuple[Any, ...]) -> None:
    """Whatever the zoom and the reduced decoding, the outline runs where the green begins."""
    photo(tmp_path / name, 1200, 900, box)
    (developed,) = draw_thumbnails(tmp_path, [(name, boxes(box), NONE)], room=ROOM)
    columns = outline_around_green(picture(developed))[1]
    zoom = min(ROOM[0] / 1200, ROOM[1] / 900)
    assert max(developed.width / ROOM[0], developed.height / ROOM[1]) == pytest.approx(1, abs=0.01)
    if max(box[2:]) < 100:
        assert columns.max() - columns.min() > 1.5 * box[2] * zoom


def test_a_box_outside_of_the_image_is_followed(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 200, 100)
    (developed,) = draw_thumbnails(tmp_path, [("a.png", boxes((180, -20, 40, 40)), NONE)], room=ROOM)
    pixels = picture(developed)
    assert near(pixels, "#EEEEEE")[-1, -1]  # the margin
    assert near(pixels, PALETTE[5]).any(axis=0)[-8:].any()
    assert developed.width / developed.height == pytest.approx(220 / 120, abs=0.02)


@cases(
    "box",
    {
        "far-away": (1e9, 1e9, 1e9, 1e9),
        "endless": (-1e30, 0, 2e30, 10),
        "not-a-number": (float("nan"), 0, 1, 1),
        "infinite": (0, 0, float("inf"), 1),
        "negative": (10, 10, -5, -5),
        "a-point": (10, 10, 0, 0),
    },
)
def test_unsound_boxes_do_no_harm(tmp_path: Path, box: tuple[Any, ...]) -> None:
    photo(tmp_path / "a.png", 200, 100)
    (developed,) = draw_thumbnails(tmp_path, [("a.png", boxes(box), boxes(box))], room=ROOM)
    assert developed.width <= ROOM[0]
    assert developed.height <= ROOM[1]
    picture(developed)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(("width", "height"), [(1600, 800), (800, 800)])
def test_a_picture_is_shown_upright(tmp_path: Path, orientation: int, width: int, height: int) -> None:
    """Boxes are those of the upright picture: the outline must be where the green is then."""
    upright = np.zeros((height, width, 3), np.uint8)
    upright[100:300, 200:700] = (0, 255, 0)
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    Picture.fromarray(np.rot90(upright, turns)).save(tmp_path / "a.jpg", exif=exif_of(orientation))
    (developed,) = draw_thumbnails(tmp_path, [("a.jpg", boxes((200, 100, 500, 200)), NONE)], room=ROOM)
    assert developed.width / developed.height == pytest.approx(width / height, rel=0.02)
    outline_around_green(picture(developed))


@cases(
    "name, data, problem",
    {
        "empty": ("empty.jpg", b"", "The file is not an image that can be shown."),
        "a-path-that-escapes": ("../up.jpg", None, "The file is not an image that can be shown."),
        "no-name": ("", None, "The file is not an image that can be shown."),
        "large": ("large.png", png_start(8000, 8000), "64 megapixels are too many to show."),
        "bomb": ("bomb.png", png_start(50_000, 50_000), "2500 megapixels are too many to show."),
    },
)
def test_what_cannot_be_shown_is_said_and_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes | None, problem: str
) -> None:
    (tmp_path / "in").mkdir()
    Picture.new("RGB", (9, 9)).save(tmp_path / "up.jpg")
    if data is not None:
        (tmp_path / "in" / name).write_bytes(data)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    (developed,) = draw_thumbnails(tmp_path / "in", [(name, NONE, NONE)], room=ROOM)
    assert (developed.alt, developed.data) == (problem, b"")


def test_each_image_is_decoded_once_and_order_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(6):
        photo(tmp_path / f"{i}.png", 100 + 10 * i, 100, (10, 10, 30, 30))
    decoded = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *a: decoded.append(1) or decode(*a))
    shots = [(f"{i % 6}.png", boxes((10, 10, 60, 60)), NONE) for i in range(18)]
    developed = draw_thumbnails(tmp_path, shots, room=ROOM)
    assert len(decoded) == 6
    ratios = [each.width / each.height for each in developed]
    assert ratios == pytest.approx([(100 + 10 * (i % 6)) / 100 for i in range(18)], rel=0.02)


@settings(deadline=None)
@given(
    width=st.integers(1, 9000),
    height=st.integers(1, 9000),
    x=st.floats(0, 0.9),
    y=st.floats(0, 0.9),
    across=st.floats(0.001, 1),
    down=st.floats(0.001, 1),
)
def test_a_view_holds_the_box_and_stays_on_the_image(
    width: Any, height: Any, x: Any, y: Any, across: Any, down: Any
) -> None:
    box = np.array([x * width, y * height, min(across, 1 - x) * width, min(down, 1 - y) * height])
    left, top, right, bottom = choose_view(width, height, box[None])
    slack = 1e-6 * max(width, height)
    assert -slack <= left <= box[0] + slack
    assert -slack <= top <= box[1] + slack
    assert box[0] + box[2] - slack <= right <= width + slack
    assert box[1] + box[3] - slack <= bottom <= height + slack
