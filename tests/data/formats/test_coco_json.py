from __future__ import annotations

from typing import Any

import pytest
from annotation_folder import AnnotationFolder, boxes_of, refusals, subsets_of
from cases import cases

from pipeline.errors import MissingError


def instances(*names: str, kind: str = "cat", first: int = 1, **fields: object) -> dict[str, object]:
    """An instances file with one box an image."""
    return {
        "images": [{"id": first + i, "file_name": name, "width": 100, "height": 50} for i, name in enumerate(names)],
        "annotations": [
            {"id": 7, "image_id": first + i, "category_id": 4, "bbox": [i, 1, 2, 3]} | fields
            for i, _ in enumerate(names)
        ],
        "categories": [{"id": 4, "name": kind}],
    }


CAPTIONS = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}],
    "annotations": [{"id": 1, "image_id": 1, "caption": 'a "bbox" and "categories"'}],
}
RESULTS = [{"image_id": 1, "category_id": 4, "bbox": [0, 0, 1, 1], "score": 0.5}]


def test_one_file_keeps_its_ids(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.image("train/a.jpg", "b.jpg")
    annotation_folder.write({"annotations/instances_val2017.json": instances("a.jpg", "x/b.jpg", first=20)})
    dataset = annotation_folder.read()
    assert [(image.id, image.file_name) for image in dataset.images] == [(20, "train/a.jpg"), (21, "b.jpg")]
    assert [(each.id, each.image_id, each.category_id) for each in dataset.annotations] == [(7, 20, 4), (7, 21, 4)]
    assert subsets_of(dataset) == {"train/a.jpg": "", "b.jpg": ""}, "one part alone is no split"


def test_roboflows_folders_are_put_together_with_their_split(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.image("train/a.jpg", "valid/a.jpg", "valid/b.jpg", "test/c.jpg")
    annotation_folder.write(
        {
            "train/_annotations.coco.json": instances("a.jpg"),
            "valid/_annotations.coco.json": instances("a.jpg", "b.jpg", kind="dog"),
            "test/_annotations.coco.json": instances("c.jpg"),
        }
    )
    dataset = annotation_folder.read()
    assert boxes_of(dataset) == {
        "test/c.jpg": [("cat", 0, 1, 2, 3)],
        "train/a.jpg": [("cat", 0, 1, 2, 3)],
        "valid/a.jpg": [("dog", 0, 1, 2, 3)],
        "valid/b.jpg": [("dog", 1, 1, 2, 3)],
    }
    assert [image.id for image in dataset.images] == [1, 2, 3, 4]
    assert len({each.id for each in dataset.annotations}) == 4
    assert [(each.id, each.name) for each in dataset.categories] == [(1, "cat"), (2, "dog")]
    assert list(subsets_of(dataset).values()) == ["test", "train", "eval", "eval"]


def test_of_several_files_those_with_images_here_count(
    annotation_folder: AnnotationFolder, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = annotation_folder.dataset(
        {
            "annotations/instances_train2017.json": instances("z.jpg", kind="dog"),
            "annotations/instances_val2017.json": instances("a.jpg", first=9),
            "annotations/person_keypoints_val2017.json": instances("a.jpg", kind="person", num_keypoints=2),
            "annotations/captions_val2017.json": CAPTIONS,
            "results.json": RESULTS,
        },
        "a.jpg",
    )
    assert boxes_of(dataset) == {"a.jpg": [("cat", 0, 1, 2, 3)]}
    assert dataset.images[0].id == 9
    assert "none of their images is here: annotations/instances_train2017.json" in caplog.text
    assert "instances beside them: annotations/person_keypoints_val2017.json" in caplog.text


def test_an_image_may_say_its_subset_itself(annotation_folder: AnnotationFolder) -> None:
    names = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    content = instances(*names)
    for image, own in zip(content["images"], ("validation", "night", ["train"], None), strict=True):
        image["subset"] = own
    dataset = annotation_folder.dataset({"train.json": content}, *names)
    assert list(subsets_of(dataset).values()) == ["eval", "train", "train", "train"]


def test_objects_of_nothing_stay_so_when_put_together(annotation_folder: AnnotationFolder) -> None:
    one, other = instances("a.jpg"), instances("b.jpg", image_id=77, category_id=88)
    dataset = annotation_folder.dataset({"a.json": one, "b.json": other}, "a.jpg", "b.jpg")
    orphan = dataset.annotations[1]
    assert orphan.image_id not in {image.id for image in dataset.images}
    assert orphan.category_id not in {each.id for each in dataset.categories}


def test_the_file_named_is_read(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.image("a.jpg")
    files = {"annotations/one.json": instances("a.jpg"), "annotations/two.json": instances("a.jpg", kind="dog")}
    annotation_folder.write(files)
    for member in ("two.json", "archive/annotations/two.json"):
        assert annotation_folder.read(member=member).classes == ("dog",)


@cases(
    "member, said",
    {
        "none": ("three.json", "there is no annotation file 'three.json'.*a/one.json"),
        "several": ("one.json", "2 annotation files match 'one.json'.*a/one.json, b/one.json"),
    },
)
def test_the_file_named_is_missed(annotation_folder: AnnotationFolder, member: str, said: str) -> None:
    annotation_folder.write({"a/one.json": instances("a.jpg"), "b/one.json": instances("a.jpg")})
    with pytest.raises(MissingError, match=f"(?s){said}"):
        annotation_folder.read(member=member)


WITHOUT = {"images": [], "annotations": []}
test_other_json_is_refused = refusals(
    {
        "captions": ({"a.json": CAPTIONS}, "recognised.*no 'bbox' in them, as of captions"),
        "results": ({"a.json": RESULTS}, "recognised.*is a list, as of detection results"),
        "no annotations": ({"a.json": {"images": []}}, "recognised.*has no 'annotations'"),
        "no categories": ({"a.json": WITHOUT}, "recognised.*has no 'categories'"),
    }
)


def test_images_without_a_size_are_measured(annotation_folder: AnnotationFolder) -> None:
    content = instances("a.jpg", "b.jpg", kind="shapes")  # which is a key of LabelMe's files
    del content["images"][0]["width"], content["images"][0]["height"]
    content["images"][1] |= {"width": None, "height": 0}
    dataset = annotation_folder.dataset({"a.json": content}, "a.jpg", "b.jpg")
    assert [(each.width, each.height) for each in dataset.images] == [(100, 50)] * 2


def test_licences_are_kept_once(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.image("a.jpg", "b.jpg")
    one, two = {"id": 1, "name": "x"}, {"id": 2, "name": "y"}
    annotation_folder.write({"a.json": instances("a.jpg") | {"licenses": [one, one]}})
    annotation_folder.write({"b.json": instances("b.jpg") | {"licenses": [two, one]}})
    assert annotation_folder.read().licenses == (one, two)


def test_licences_of_one_id_stay_apart(annotation_folder: AnnotationFolder) -> None:
    """As in exports of two tools: each counts from 1."""
    for name, licences in {"a": ["x", "y"], "b": ["z", "x"], "c": ["z"]}.items():
        annotation_folder.image(f"{name}.jpg")
        content: Any = instances(f"{name}.jpg")
        content["images"][0]["license"] = 1
        numbered = [{"id": i, "name": licence} for i, licence in enumerate(licences, 1)]
        annotation_folder.write({f"{name}.json": content | {"licenses": numbered}})
    dataset = annotation_folder.read()
    names = {each["id"]: each["name"] for each in dataset.licenses}
    assert names == {1: "x", 2: "y", 3: "z"}
    assert [names[image.extra["license"]] for image in dataset.images] == ["x", "z", "z"]


@cases(
    "number, files",
    {
        "none defined": (1, {"a": {1: "x"}, "b": {}}),
        "another defined": (1, {"a": {1: "x"}, "b": {2: "y"}}),
        "an earlier file": (2, {"a": {2: "x"}, "b": {1: "y"}}),
        "a new id": (2, {"a": {1: "x"}, "b": {1: "y"}, "c": {}}),
    },
)
def test_an_image_gets_no_licence_of_another_file(
    annotation_folder: AnnotationFolder, number: int, files: dict[str, dict[int, str]]
) -> None:
    """Each file's image has the given id; only some of the files define it."""
    for name, licences in files.items():
        annotation_folder.image(f"{name}.jpg")
        content: Any = instances(f"{name}.jpg")
        content["images"][0]["license"] = number
        numbered = [{"id": i, "name": licence} for i, licence in licences.items()]
        annotation_folder.write({f"{name}.json": content | {"licenses": numbered}})
    dataset = annotation_folder.read()
    names = {each["id"]: each["name"] for each in dataset.licenses}
    found = [names[image.extra["license"]] if "license" in image.extra else "" for image in dataset.images]
    assert found == [licences.get(number, "") for licences in files.values()]


@cases(
    "infos, expected",
    {
        "alike": ([{"description": "Streets", "year": 2017}] * 2, {"description": "Streets", "year": 2017}),
        "described apart": (
            [
                {"description": "Rome", "year": 2017, "version": "1"},
                {"description": "Bonn", "year": 2018, "version": "1"},
            ],
            {"version": "1", "description": "Rome; Bonn"},
        ),
        "one says nothing": ([{"description": "Rome", "year": 2017}, {}], {"description": "Rome"}),
        "none says anything": ([{}, {}], {}),
    },
)
def test_of_several_files_info_is_what_all_say(
    annotation_folder: AnnotationFolder, infos: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    annotation_folder.image("a.jpg", "b.jpg")
    for name, info in zip("ab", infos, strict=True):
        annotation_folder.write({f"{name}.json": instances(f"{name}.jpg") | {"info": info}})
    assert annotation_folder.read().info == expected


def test_folders_of_classes_are_no_subsets(annotation_folder: AnnotationFolder) -> None:
    names = ("bus/1.jpg", "train/1.jpg", "car/1.jpg", "test/1.jpg")
    dataset = annotation_folder.dataset({name.replace("1.jpg", "a.json"): instances("1.jpg") for name in names}, *names)
    assert set(subsets_of(dataset).items()) == {(name, "") for name in names}


def test_without_any_image_here_all_are_listed(annotation_folder: AnnotationFolder) -> None:
    annotation_folder.write({"train.json": instances("a.jpg"), "val.json": instances("b.jpg")})
    assert subsets_of(annotation_folder.read()) == {"a.jpg": "train", "b.jpg": "eval"}
