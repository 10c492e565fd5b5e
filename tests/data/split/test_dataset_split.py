from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from operations import lines_run

from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.split.dataset_split import split
from pipeline.errors import DataError, UsageError


def dataset_of(labels: Any) -> Any:
    """A data set with an image per item, which shows the classes of that item."""
    images = tuple(Image(i, f"{i}.jpg", 64, 64) for i in range(1, len(labels) + 1))
    pairs = [(i, label) for i, shown in enumerate(labels, 1) for label in sorted(shown)]
    annotations = (Annotation(n, i, label, (0, 0, 9, 9), 81) for n, (i, label) in enumerate(pairs, 1))
    return CocoDataset(images, tuple(annotations), tuple(Category(i, f"class {i}") for i in range(1, 6)))


def with_fields(dataset: Any, fields: Any) -> Any:
    """The data set, with these fields of its images."""
    images = zip(dataset.images, fields, strict=True)
    return replace(dataset, images=tuple(replace(image, extra=extra) for image, extra in images))


def names(dataset: Any) -> Any:
    return {image.file_name for image in dataset.images}


def split_or_none(dataset: Any, **options: Any) -> tuple[Any, ...]:
    """The three subsets, or none where a data set cannot be split so."""
    try:
        parts = split(dataset, **options)
    except (DataError, UsageError):
        return ()
    return tuple(parts.subsets.values())


labels = st.lists(st.sets(st.integers(1, 5)), min_size=1, max_size=60)


def long_tailed(count: Any, classes: Any, seed: Any = 0) -> Any:
    """Images that show 0 to 5 classes, some a hundred times rarer than others; as many boxes as COCO val2017."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, classes + 1)
    return [
        set((1 + rng.choice(classes, rng.integers(0, 6), p=weights / weights.sum())).tolist()) for _ in range(count)
    ]


videos = st.sampled_from([None, "v", "w", "x", "y"])
subsets = st.sampled_from([None, None, "train", "train", "eval", "test"])
pictures = st.lists(
    st.tuples(st.sets(st.integers(1, 5)), videos, subsets, st.sampled_from(["", "", "p", "q", "r"])),
    min_size=1,
    max_size=40,
)
modes = st.sampled_from(["balanced", "stable"])


def described(pictures: Any) -> tuple[Any, ...]:
    """A data set and its groups of near duplicates, of pictures told by classes, video, subset and duplicates."""
    plain = dataset_of([shown for shown, *_ in pictures])
    extra = [
        {key: value for key, value in (("video", video), ("subset", subset)) if value}
        for _, video, subset, _ in pictures
    ]
    groups = {image.file_name: key for image, (*_, key) in zip(plain.images, pictures, strict=True) if key}
    return with_fields(plain, extra), groups


def owners(parts: Any) -> Any:
    """The subset of each image by its file name."""
    return {image.file_name: name for name, part in parts.subsets.items() for image in part.images}


def sizes_of(parts: Any) -> Any:
    return tuple(len(part.images) for part in parts.subsets.values())


def found_by(rule: Any, parts: Any) -> Any:
    return [each for each in parts.findings if each.rule == rule]


@settings(deadline=None)
@given(
    pictures,
    modes,
    st.sampled_from(["honour", "ignore"]),
    st.booleans(),
    st.sets(st.integers(1, 50), max_size=3),
    st.sampled_from(["", "none"]),
)
def test_partition_of_what_is_not_left_out(
    pictures: Any, mode: Any, source_split: Any, by_video: Any, listed: Any, unasked: Any
) -> None:
    """Each image in one subset or left out with a finding; no group in two, but those that the data divided so."""
    dataset, groups = described(pictures)
    test_names = {f"{i}.jpg" for i in listed}
    options = {
        "mode": mode,
        "groups": groups,
        "group_by": "video" if by_video and any(video for _, video, *_ in pictures) else unasked,
        "source_split": source_split,
        "test_names": test_names,
    }
    try:
        parts = split(dataset, **options)
    except DataError:
        return
    found = owners(parts)
    left_out = {each.file_name for each in parts.findings if each.action == "dropped"}
    assert len(found) == sum(sizes_of(parts))
    assert set(found) | left_out == names(dataset)
    assert not set(found) & left_out
    boxes = [each.id for part in parts.subsets.values() for each in part.annotations]
    kept = {image.id for image in dataset.images if image.file_name in found}
    assert sorted(boxes) == [each.id for each in dataset.annotations if each.image_id in kept]
    assert not test_names or names(parts.test) == test_names & names(dataset)
    for key in set(groups.values()):
        assert len({found[name] for name, own in groups.items() if own == key and name in found}) <= 1
    if options["group_by"] == "video":
        told = {each.item for each in parts.findings if each.action == "reported"}
        for video in {video for _, video, *_ in pictures if video}:
            members = [image for image in dataset.images if image.extra.get("video") == video]
            of_video = {found[image.file_name] for image in members if image.file_name in found}
            said = {image.extra.get("subset") for image in members}
            assert len(of_video) <= 1 or (of_video <= said and f'video "{video}"' in told)
    order = np.random.default_rng(len(pictures)).permutation(len(dataset.images))
    turned = replace(dataset, images=tuple(dataset.images[i] for i in order), annotations=dataset.annotations[::-1])
    again = split(turned, **options)
    assert owners(again) == found
    assert again.findings == parts.findings


def in_clips(*scenes: Any) -> Any:
    """Three images a scene, of clips with so many scenes; the scenes of each clip are counted from 1."""
    fields = [
        {"video": f"clip {clip}", "scene": scene}
        for clip, count in enumerate(scenes)
        for scene in range(1, count + 1)
        for _ in range(3)
    ]
    return with_fields(dataset_of([{1}] * len(fields)), fields)


def divided(dataset: Any, parts: Any, *fields: Any) -> Any:
    """How many values of the fields are in more than one subset."""
    found, where = owners(parts), {}
    for image in dataset.images:
        where.setdefault(tuple(image.extra[each] for each in fields), set()).add(found[image.file_name])
    return sum(len(each) > 1 for each in where.values())


@cases(
    "scenes, kept, divided_, said",
    {
        "enough clips": ([2] * 20, ["video"], [], "group_by=none splits them"),
        "enough scenes": ([9, 9], ["video", "scene"], ["video"], "those of one scene stay together"),
    },
)
def test_frames_of_a_clip_stay_together_unasked(
    scenes: Any, kept: Any, divided_: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = in_clips(*scenes)
    parts = split(dataset)
    assert divided(dataset, parts, *kept) == 0
    assert not divided_ or divided(dataset, parts, *divided_) > 0
    assert caplog.text.count(said) == 1
    assert not found_by("split-within-a-clip", parts)


@pytest.mark.parametrize("scenes", [(1,), (2,), (1, 1)], ids=["a scene", "two scenes", "two clips"])
def test_too_few_scenes_are_divided_and_it_is_said(scenes: tuple[Any, ...], caplog: pytest.LogCaptureFixture) -> None:
    dataset = in_clips(*scenes)
    parts = split(dataset, train_share=0.34, eval_share=0.33)
    (finding,) = found_by("split-within-a-clip", parts)
    assert (finding.severity, finding.action) == ("warning", "reported")
    assert finding.item.startswith('video "clip 0"')
    assert "split-within-a-clip" in caplog.text


def test_clips_without_scenes_beside_clips_with_them() -> None:
    """Where scenes are kept whole, frames of no scene are in none: it is said that these are shared out."""
    scened, plain = in_clips(9), [Image(100 + i, f"x{i}.jpg", 9, 9, {"video": "other"}) for i in range(9)]
    parts = split(replace(scened, images=(*scened.images, *plain)))
    assert divided(scened, parts, "scene") == 0
    assert [each.item for each in found_by("split-within-a-clip", parts)] == ['video "other"']


def test_grouping_turned_off(caplog: pytest.LogCaptureFixture) -> None:
    dataset = in_clips(*[2] * 20)
    parts = split(dataset, group_by="none")
    bare = split(with_fields(dataset, [{}] * len(dataset.images)))
    assert owners(parts) == owners(bare)
    assert "group_by" not in caplog.text
    assert not found_by("split-within-a-clip", parts)


def test_most_images_in_one_group_is_said(caplog: pytest.LogCaptureFixture) -> None:
    split(dataset_of([{1}] * 20), groups={f"{i}.jpg": "x" for i in range(1, 13)}, seed=1)
    assert "the largest group, that of 1.jpg, has 12 images and is not divided, of 20 images" in caplog.text


@settings(deadline=None)
@given(pictures, st.integers(1, 30), st.integers(0, 9))
def test_adding_images_moves_no_other_in_stable_mode(pictures: Any, more: Any, seed: Any) -> None:
    dataset, groups = described(pictures)
    more_images = tuple(Image(1000 + i, f"more {i}.jpg", 9, 9, {"video": "new"} if i % 3 else {}) for i in range(more))
    larger = replace(dataset, images=dataset.images + more_images)
    if not any(video for _, video, *_ in pictures):
        return
    try:
        before = split(dataset, mode="stable", groups=groups, group_by="video", seed=seed)
    except DataError:
        return
    brought = {subset for *_, subset, _ in pictures} - {None}
    if len(brought) == 1:  # beside images that have none, a single subset starts to be a split
        return
    after = owners(split(larger, mode="stable", groups=groups, group_by="video", seed=seed))
    assert {name: after[name] for name in owners(before)} == owners(before)
    assert names(larger) - set(after) == names(dataset) - set(owners(before))


def in_videos(count: Any, length: Any, seed: Any = 0) -> Any:
    """Images of which each `length` ones in a row are of one video, and show nearly the same."""
    shown = long_tailed(-(-count // length), 5, seed)
    plain = dataset_of([shown[i // length] for i in range(count)])
    return with_fields(plain, [{"video": i // length} for i in range(count)])


def test_adding_frames_to_a_video_and_duplicates_to_a_group_moves_none_in_stable_mode() -> None:
    dataset = in_videos(300, 6)
    groups = {f"{i}.jpg": f"{i // 50}" for i in range(50, 300, 50)}
    options = {"mode": "stable", "group_by": "video", "groups": groups}
    before = owners(split(dataset, **options))
    frames = tuple(Image(1000 + i, f"0 first {i}.jpg", 9, 9, {"video": i}) for i in range(50))
    after = owners(
        split(replace(dataset, images=dataset.images + frames), mode="stable", group_by="video", groups=groups)
    )
    assert {name: after[name] for name in before} == before
    assert all(after[f"0 first {i}.jpg"] == after[f"{6 * i + 1}.jpg"] for i in range(50))


@pytest.mark.parametrize(
    ("subsets", "options", "sizes"),
    [
        pytest.param({"train": 60, "eval": 20, "test": 20}, {}, (60, 20, 20), id="as the data say"),
        pytest.param({"train": 60, "eval": 20, "test": 20}, {"source_split": "ignore"}, (70, 15, 15), id="ignored"),
        pytest.param({"train": 40, "eval": 10, "test": 30, None: 20}, {}, (57, 13, 30), id="the others fill up"),
        pytest.param({"train": 85, "test": 15}, {}, (70, 15, 15), id="eval out of train"),
        pytest.param({"train": 34, "test": 66}, {}, (28, 6, 66), id="eval out of train in the ratio of their shares"),
        pytest.param({"train": 34, "eval": 66}, {}, (28, 66, 6), id="test out of train"),
        pytest.param({"train": 34, "eval": 66}, {"eval_share": 0.3}, (34, 66, 0), id="no test wanted"),
        pytest.param({"train": 50, "eval": 50}, {"train_share": 0.0, "eval_share": 1.0}, (50, 50, 0), id="no share"),
        pytest.param({"test": 10, None: 90}, {}, (70, 15, 15), id="test alone and others"),
        pytest.param({"train": 100}, {}, (70, 15, 15), id="train alone"),
        pytest.param({"train": 50, "eval": 40, "test": 10}, {"test_names": {f"{i}.jpg" for i in range(91, 101)}},
                     (50, 40, 10), id="with a list"),
        pytest.param({"train": 40, "eval": 50, "test": 10}, {"test_names": {f"{i}.jpg" for i in range(1, 11)}},
                     (40, 50, 10), id="the list takes from train and gives back test"),
    ],
)  # fmt: skip
def test_a_split_that_comes_with_the_data(
    subsets: dict[Any, Any], options: dict[Any, Any], sizes: tuple[Any, ...]
) -> None:
    said = [subset for subset, count in subsets.items() for _ in range(count)]
    dataset = with_fields(dataset_of(long_tailed(100, 5)), [{"subset": each} if each else {} for each in said])
    parts = split(dataset, **options)
    assert sizes_of(parts) == sizes
    assert not any(each.action == "dropped" for each in parts.findings)
    stable = owners(split(dataset, mode="stable", **options))
    if options.get("source_split") != "ignore" and len(set(subsets) - {None}) > 1:
        lacking = {"train", "eval", "test"} - set(subsets)
        for image in dataset.images:
            own = image.extra.get("subset")
            if own and "test_names" not in options:
                allowed = {own} | (lacking if own == "train" else set())
                assert {owners(parts)[image.file_name], stable[image.file_name]} <= allowed


def test_a_video_divided_by_the_data_gives_nothing_to_the_set_they_lack() -> None:
    plain = in_videos(200, 20)
    said = [{"subset": "test" if image.id % 2 or image.id > 190 else "train"} for image in plain.images]
    images = [replace(image, extra={**image.extra, **more}) for image, more in zip(plain.images, said, strict=True)]
    singles = [Image(1000 + i, f"single {i}.jpg", 9, 9, {"subset": "train"}) for i in range(40)]
    for mode in ("balanced", "stable"):
        found = owners(split(replace(plain, images=(*images, *singles)), group_by="video", mode=mode))
        assert all(found[image.file_name] == image.extra["subset"] for image in images)
        assert "eval" in {found[image.file_name] for image in singles}


def test_crowd_regions_are_no_objects_and_no_background() -> None:
    """They neither count in the shares nor make a class present, and an image of them alone is not empty."""
    dataset = dataset_of([{1}] * 20)
    crowd = [Annotation(100 + i, i, 2, (0, 0, 9, 9), 81, 1) for i in range(1, 21)]
    parts = split(replace(dataset, annotations=(*dataset.annotations, *crowd)))
    assert parts.shares.rows[1] == ("class 2", *[0, 0.0] * 6)
    assert "class 'class 2'" in {each.item for each in parts.findings}
    dataset = dataset_of([{1}] * 8 + [set()] * 8)
    dataset = replace(dataset, annotations=(*dataset.annotations, Annotation(99, 9, 1, (0, 0, 9, 9), 81, 1)))
    assert [image.id for image in dataset.background_images] == [10, 11, 12, 13, 14, 15, 16]
    parts = split(dataset, max_empty_share=0.0)
    assert sum(each.count for each in parts.exclusions) == len(dataset.images) - sum(sizes_of(parts))
    assert parts.train.background == 0


@cases(
    "shown, options, found",
    {
        "an empty subset lacks no class": ([{1}] * 9, {"train_share": 1.0, "eval_share": 0.0}, {}),
        "a group too large for its share": (
            [{1}] * 100,
            {"groups": {f"{i}.jpg": "x" for i in range(1, 91)}},
            {
                "train set": "90 of 100 images where 70 were asked for: the largest group, that of 1.jpg, has 90",
                "eval set": "5 of 100 images where 15 were asked for",
                "test set": "5 of 100 images where 15 were asked for",
            },
        ),
        "classes absent from a subset, and one from all": (
            [{1, 2}] * 2 + [{1}] * 18,
            {"seed": 3},
            {"class 'class 2'": "in 2 images, none of them in ", "class 'unicorn'": "no image shows it"},
        ),
    },
)
def test_findings_and_a_line_of_each_rule_in_the_log(
    shown: Any, options: dict[str, Any], found: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    used = set().union(*shown)
    categories = (*(Category(i, f"class {i}") for i in used), *[Category(9, "unicorn")] * ("class 'unicorn'" in found))
    parts = split(replace(dataset_of(shown), categories=categories), **options)
    assert {each.item for each in parts.findings} == found.keys()
    assert all(each.detail.startswith(found[each.item]) for each in parts.findings)
    assert {each.severity for each in parts.findings} <= {"warning"}
    if parts.findings:
        first, *others = parts.findings
        assert {each.rule for each in others} == {first.rule}
        more = f"; and {len(others)} more" * bool(others)
        assert caplog.messages.count(f"{first.rule}: {first.item}: {first.detail}{more}") == 1
    absent = [name for name, part in parts.subsets.items() if {each.category_id for each in part.annotations} != used]
    if "class 'class 2'" in found:
        assert parts.findings[0].detail.endswith(f"none of them in {' or '.join(absent)}")


@cases("mode, most", {"balanced": ("balanced", 1), "stable": ("stable", 4 * 7.4)})
@pytest.mark.parametrize("seed", range(3))
def test_background_beside_images_of_many_classes(mode: str, most: Any, seed: Any) -> None:
    dataset = dataset_of(long_tailed(1500, 5, seed))
    parts = split(dataset, mode=mode, seed=seed)
    assert dataset.background > 200
    for part, share in zip(parts.subsets.values(), (0.7, 0.15, 0.15), strict=True):
        assert abs(part.background - share * dataset.background) <= most


@settings(deadline=None)
@given(
    labels,
    modes,
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.99, 1.0]),
    st.sets(st.integers(1, 80), max_size=9),
    st.integers(0, 9),
)
def test_less_background_to_learn_from_moves_no_image(
    labels: Any, mode: Any, most: Any, reserved: Any, seed: Any
) -> None:
    """At most that share of the train set is without a box, and it is the only thing that changes."""
    dataset, listed = dataset_of(labels), {f"{i}.jpg" for i in reserved}
    options = {"mode": mode, "seed": seed, "test_names": listed, "train_share": 0.5, "eval_share": 0.3}
    before = split_or_none(dataset, **options)
    after = split_or_none(dataset, **options, max_empty_share=most)
    if not before or not after:
        assert before == after or before[0].background == len(before[0].images)
        return
    assert after[1:] == before[1:]
    assert names(after[0]) <= names(before[0])
    assert after[0].annotations == before[0].annotations
    assert after[0].background <= most * len(after[0].images) + 1e-6
    left_out = len(before[0].images) - len(after[0].images)
    one_more = (after[0].background + 1) / (len(after[0].images) + 1)
    assert not left_out or one_more > most, "no more is left out than has to be"
    said = split(dataset, **options, max_empty_share=most).exclusions
    assert [str(each) for each in said] == (
        [f"{left_out} of {len(before[0].images)} images excluded from train: background above max_empty_share"]
        if left_out
        else []
    )


def test_which_background_stays_depends_on_the_seed_and_the_names() -> None:
    dataset = dataset_of([{1}] * 40 + [set()] * 40)
    few, more = (split(dataset, mode="stable", max_empty_share=share).train for share in (0.2, 0.4))
    assert names(few) < names(more)
    other = replace(dataset, images=dataset.images[::-1])
    assert names(split(other, mode="stable", max_empty_share=0.2).train) == names(few)


@pytest.mark.parametrize(
    ("count", "classes", "seed", "options", "digest"),
    [
        pytest.param(40, 5, 3, {}, "a54e28f0cd27681f32772b0da68737902ffb92fd1ba847563f602cc0da27e081", id="small"),
        pytest.param(600, 5, 0, {}, "e847866ee62dbe347bece07c46354b2916cda533288e74539287e59ab9bb27aa", id="default"),
        pytest.param(600, 5, 1, {"train_share": 0.5, "eval_share": 0.3},
                     "758218ebe4b8408e59b0869d4240424cd5727d14c98e4ccbc6d38085dd21500e", id="other shares"),
        pytest.param(300, 5, 2, {"test_names": {f"{i}.jpg" for i in range(1, 40)}},
                     "8f24c4a1005f6501743d55ce3bdbc8e8ec5f4f9f22a48929b4d282856ff626bd", id="with a list"),
    ],
)  # fmt: skip
def test_recorded(count: int, classes: int, seed: int, options: dict[Any, Any], digest: str) -> None:
    """Without groups, subsets and background the split is what it was before there were any: runs can be compared."""
    dataset = dataset_of([shown or {1} for shown in long_tailed(count, classes, seed)])
    found = owners(split(dataset, seed=seed, **options))
    letters = "".join({"train": "t", "eval": "e", "test": "v"}[found[f"{i}.jpg"]] for i in range(1, count + 1))
    assert hashlib.sha256(letters.encode()).hexdigest() == digest


def test_work_grows_with_the_images_and_not_with_their_square() -> None:
    def work(count: Any) -> Any:
        dataset = in_videos(count, 5)
        groups = {f"{i}.jpg": f"{i // 7}" for i in range(0, count, 3)}
        return lines_run(lambda: split(dataset, group_by="video", groups=groups))

    assert work(4_000) <= 25 * work(200)  # the square would be 400


@cases(
    "count, options, sizes",
    {
        "all to train": (10, {"train_share": 1.0, "eval_share": 0.0}, (10, 0, 0)),
        "all to test": (10, {"train_share": 0.0, "eval_share": 0.0}, (0, 0, 10)),
        "no test": (10, {"train_share": 0.7, "eval_share": 0.3}, (7, 3, 0)),
        "list": (2, {"train_share": 0, "eval_share": 0, "test_names": ["1.jpg", "2.jpg"]}, (0, 0, 2)),
        "default": (240, {}, (168, 36, 36)),
    },
)
def test_sizes(count: int, options: dict[Any, Any], sizes: tuple[Any, ...]) -> None:
    assert sizes_of(split(dataset_of([{1}] * count), **options)) == sizes


@cases(
    "options, kind, problem",
    {
        "above 1": ({"train_share": 0.8, "eval_share": 0.3}, UsageError, "no shares"),
        "negative": ({"train_share": -0.1}, UsageError, "no shares"),
        "not a number": ({"train_share": float("nan")}, UsageError, "no shares"),
        "too few": ({"train_share": 0.9, "eval_share": 0.02}, DataError, "eval set would be empty"),
        "none for the test set": ({"train_share": 0.9, "eval_share": 0.08}, DataError, "train and eval smaller shares"),
        "all but one on the list": (
            {"test_names": {f"{i}.jpg" for i in range(1, 10)}},
            DataError,
            "(?s)eval set would be empty.*take more images, or give fewer sets a share",
        ),
        "list of others": ({"test_names": {"none.jpg"}}, DataError, "(?s)test list.*list images that validation keeps"),
        "mode": ({"mode": "balance"}, UsageError, "did you mean 'balanced'"),
        "source split": ({"source_split": "honor"}, UsageError, "did you mean 'honour'"),
        "field": ({"group_by": "video"}, UsageError, "no image has a field 'video'"),
        "a single group": (
            {"groups": {f"{i}.jpg": "x" for i in range(11)}},
            DataError,
            "(?s)eval set would be empty.*that of 1.jpg, has 10 images",
        ),
        "none by chance": (
            {"mode": "stable", "train_share": 0.98, "eval_share": 0.01},
            DataError,
            "(?s)eval set would be empty: 1%.*the balanced mode",
        ),
        "nowhere to go": ({"train_share": 0, "eval_share": 0, "test_names": {"1.jpg"}}, UsageError, "no share"),
    },
)
def test_refused(options: dict[Any, Any], kind: Any, problem: str) -> None:
    with pytest.raises(kind, match=problem):
        split(dataset_of([{1}] * 10), **options)


@cases(
    "subsets, options, remedy",
    {
        "the data's own split": (["train"] * 8 + ["eval", "test"], {}, "set source_split to ignore"),
        "all boxes on the list": ([""] * 10, {"test_names": {"9.jpg", "10.jpg"}}, "off the test list"),
        "a small share": ([""] * 10, {"train_share": 0.1, "eval_share": 0.6}, "a larger share"),
    },
)
def test_a_train_set_of_background_alone_is_refused(subsets: Any, options: dict[str, Any], remedy: str) -> None:
    dataset = with_fields(dataset_of([set()] * 8 + [{1}] * 2), [{"subset": subset} for subset in subsets])
    with pytest.raises(DataError, match=f"(?s)no image in it has a box.*{remedy}"):
        split(dataset, max_empty_share=0.5, **options)


def test_shares_table() -> None:
    parts = split(dataset_of([{1}] * 10), train_share=0.5, eval_share=0.2)
    assert parts.shares.rows[0] == ("class 1", 5, 50.0, 5, 50.0, 2, 20.0, 2, 20.0, 3, 30.0, 3, 30.0)
    assert parts.shares.rows[-1][0] == "all"
