"""From samples to a data set for labelling, and back through the loading of any data set."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from kept_samples import NOON, encoded, keep, sample_of
from pictures import exif_of, smooth
from PIL import Image
from pycocotools.coco import COCO

from pipeline.client.sample_collection import collect_samples
from pipeline.data.coco import read_coco
from pipeline.data.loading import load_annotations, load_source
from pipeline.errors import DataError, MissingError, UsageError
from pipeline.serving.api_types import DetectedObject
from pipeline.serving.sample_places import LocalFolder, open_place


def found(score: float, label: str = "bright", class_id: int = 1) -> DetectedObject:
    return DetectedObject(box=[10.5, 8.25, 40.125, 40.5], score=score, label=label, class_id=class_id)


@pytest.fixture
def place(tmp_path: Path) -> LocalFolder:
    """Three images and a copy of the first, which is less interesting."""
    folder = LocalFolder(tmp_path / "samples", create=True)
    for number, (interest, reasons, scores) in enumerate(
        [(0.96, ("uncertain",), [0.9, 0.2]), (1.0, ("unusual", "uncertain"), []), (0.5, ("random",), [0.4])]
    ):
        image = encoded(smooth(number), ".jpg")
        details = {"interest": interest, "reasons": reasons, "detections": tuple(map(found, scores))}
        keep(folder, image, sample_of(image, ".jpg", number, **details))
    copy = encoded(smooth(0)[:, ::-1], ".webp")
    keep(folder, copy, sample_of(copy, ".webp", 3, interest=0.955))
    return folder


def test_the_most_interesting_come_first_and_copies_are_left_out(place: LocalFolder, tmp_path: Path) -> None:
    made = collect_samples(place, tmp_path / "set")
    assert (made.samples, made.images, made.boxes, made.similar, made.broken) == (4, 3, 2, 1, ())
    assert made.reasons == {"unusual": 1, "uncertain": 2, "random": 1}
    assert (made.first, made.last) == (NOON, NOON + timedelta(minutes=2))
    content = json.loads((tmp_path / "set" / "annotations.json").read_bytes())
    assert [image["sample"]["reasons"][0] for image in content["images"]] == ["unusual", "uncertain", "random"]
    assert content["images"][0]["date_captured"] == "2026-11-29 12:01:00"
    assert [(each["image_id"], each["score"]) for each in content["annotations"]] == [(2, 0.9), (3, 0.4)]
    assert content["annotations"][0]["bbox"] == [10.5, 8.25, 29.625, 32.25]
    assert content["categories"] == [{"id": 1, "name": "dim"}, {"id": 2, "name": "bright"}]
    names = [image["file_name"] for image in content["images"]]
    assert sorted(path.name for path in (tmp_path / "set" / "images").iterdir()) == sorted(names)
    assert (tmp_path / "set" / "images" / names[1]).read_bytes() == encoded(smooth(0), ".jpg")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_loading_the_data_set_gives_it_exactly(place: LocalFolder, tmp_path: Path) -> None:
    turned = io.BytesIO()
    Image.fromarray(smooth(9, (120, 80))).save(turned, "JPEG", exif=exif_of(6))
    box = (found(0.8),)
    keep(place, turned.getvalue(), sample_of(turned.getvalue(), ".jpg", width=80, height=120, detections=box))
    collect_samples(place, tmp_path / "set")
    images, annotations = tmp_path / "images", tmp_path / "annotations"
    source = load_source(str(tmp_path / "set"), images, annotations, cache=tmp_path / "cache")
    loaded = load_annotations(
        source, tmp_path / "loaded", images=images, annotations=annotations, cache=tmp_path / "cache"
    )
    assert (loaded.images, loaded.annotations, loaded.classes) == (4, 3, ("dim", "bright"))
    assert (loaded.missing_images, loaded.unannotated_images, loaded.unusable_images) == (0, 0, 0)
    ours, theirs = read_coco(tmp_path / "set" / "annotations.json"), read_coco(tmp_path / "loaded" / "annotations.json")

    def boxes(dataset: Any) -> Any:
        names = {image.id: image.file_name.removeprefix("images/") for image in dataset.images}
        classes = {each.id: each.name for each in dataset.categories}
        return sorted((names[each.image_id], classes[each.category_id], each.bbox) for each in dataset.annotations)

    assert boxes(theirs) == boxes(ours)
    assert {(image.file_name, image.width, image.height) for image in theirs.images} == {
        (f"images/{image.file_name}", image.width, image.height) for image in ours.images
    }
    for image in theirs.images:
        assert (images / image.file_name).read_bytes() == (tmp_path / "set" / image.file_name).read_bytes()
    assert len(COCO(str(tmp_path / "set" / "annotations.json")).getAnnIds()) == 3


@cases(
    "options, images, boxes",
    {
        "a limit": ({"limit": 1}, 1, 0),
        "a low threshold": ({"threshold": 0.1}, 3, 3),
        "a high threshold": ({"threshold": 0.95}, 3, 0),
        "a time": ({"since": NOON + timedelta(minutes=2)}, 2, 1),  # of the copies only the later is left
    },
)
def test_options(place: LocalFolder, tmp_path: Path, options: dict[str, Any], images: int, boxes: int) -> None:
    made = collect_samples(place, tmp_path / "set", **options)
    assert (made.images, made.boxes) == (images, boxes)


def test_classes_of_several_models_are_one_list(place: LocalFolder, tmp_path: Path) -> None:
    image = encoded(smooth(50))
    newer = sample_of(
        image, number=60, model="object_detector:2", classes=("cat", "bright"), detections=(found(0.9, "bright", 1),)
    )
    keep(place, image, newer)
    made = collect_samples(place, tmp_path / "set")
    assert set(made.models) == {"object_detector:1", "object_detector:2"}
    dataset = read_coco(tmp_path / "set" / "annotations.json")
    assert dataset.classes == ("cat", "bright", "dim")
    assert {each.category_id for each in dataset.annotations} == {2}


def test_broken_samples_are_left_out_and_named(place: LocalFolder, tmp_path: Path) -> None:
    image, other, third = (encoded(smooth(seed)) for seed in (30, 31, 32))
    keep(place, image[:300], sample_of(image))
    keep(place, other, sample_of(other))
    place.write(sample_of(other).sha256 + ".json", b'{"image": "../../etc/passwd"}')
    keep(place, third, sample_of(third))
    place.remove(sample_of(third).image)  # it goes while we read
    made = collect_samples(place, tmp_path / "set")
    assert set(made.broken) == {sample_of(each).sha256 + ".json" for each in (image, other)}
    assert made.images == 3


def test_nothing_is_written_where_nothing_can_be_collected(place: LocalFolder, tmp_path: Path) -> None:
    target = tmp_path / "set"
    with pytest.raises(MissingError, match="there are no samples from 2026-12-24 00:00 UTC on"):
        collect_samples(place, target, since=NOON.replace(month=12, day=24, hour=0))
    empty = LocalFolder(tmp_path / "empty", create=True)
    with pytest.raises(MissingError, match=r"there are no samples\n.*\n.*DETECTOR_SAMPLES"):
        collect_samples(empty, target)
    empty.write("0" * 64 + ".json", b"{}")
    with pytest.raises(DataError, match="none of 1 samples can be read"):
        collect_samples(empty, target)
    assert not target.exists()
    target.mkdir()
    collect_samples(place, target)
    before = (target / "annotations.json").read_bytes()
    with pytest.raises(UsageError, match="is not empty"):
        collect_samples(place, target)
    assert (target / "annotations.json").read_bytes() == before


def test_from_s3(place: LocalFolder, tmp_path: Path, s3: str) -> None:
    remote = open_place(f"{s3}/collected")
    for file in place.files():
        remote.write(file.name, place.read(file.name))
    made = collect_samples(open_place(f"{s3}/collected"), tmp_path / "remote")
    assert made == collect_samples(place, tmp_path / "local")
    for path in (tmp_path / "local").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "remote" / path.relative_to(tmp_path / "local")).read_bytes()
