"""Validation of a dataset by the table of rules: problems are reported, repaired or dropped, and always listed.

Chosen actions are checked before any image is read. A problem that would crash or falsify training, pycocotools or the
service cannot only be reported. Some problems are found while the data is loaded; their findings come first.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pipeline.data.checks import box_rules, image_rules, record_rules
from pipeline.data.checks.findings import Action, Finding, Findings
from pipeline.data.checks.rules import Result, Subject, settle
from pipeline.data.checks.rules import ValidationRule as Rule
from pipeline.data.coco import CocoDataset
from pipeline.data.images import ImageFacts, Kind, inspect
from pipeline.data.tables import Exclusion, exclude
from pipeline.errors import DataError, UsageError, did_you_mean

log = logging.getLogger(__name__)

_NONE_LEFT = "their annotations were all dropped"
_CHOOSES_CLASSES = "rare-category"  # an image of unwanted classes only is background
_ANY: tuple[Action, ...] = ("report", "repair", "drop")
_CHANGE: tuple[Action, ...] = ("repair", "drop")
_SEE: tuple[Action, ...] = ("report", "drop")
_DROP: tuple[Action, ...] = ("drop",)
_AMBIGUOUS = "objects name it by its id, so the two could not be distinguished"
_NEVER_FOUND = "evaluation would count it as an object never found"
_UNREADABLE: tuple[tuple[str, Kind, str], ...] = (
    ("missing-image", "missing", "an image's file is not there"),
    ("empty-image-file", "empty", "an image's file has no bytes"),
    ("truncated-image", "truncated", "an image's file ends before its pixels do"),
    ("corrupt-image", "corrupt", "an image's file is damaged in the middle"),
    ("undecodable-image", "undecodable", "an image's file cannot be decoded"),
    ("refused-image", "refused", "the service would refuse the image: its bytes or its pixels"),
)


def _found_on_loading(subject: Subject, _: Action) -> Result:
    """Change nothing: these rules were applied when the data was loaded."""
    return subject.dataset, []


LOADING_RULES: tuple[Rule, ...] = (
    Rule("unreadable-annotation", "error", "drop", _DROP, _found_on_loading,
         "a record of the annotations that cannot be read", "nothing is known of it"),
    Rule("converted-image", "info", "repair", ("repair",), _found_on_loading,
         "an image of more than 8 bits a channel, or of several frames; repair: 8 bits, the first frame",
         "training and the service cannot take it"),
)  # fmt: skip

# The order matters. First records must be unambiguous: categories and images once each, unique ids, nothing that
# belongs to nothing. Then files: later rules rely on a readable file for every image. Then images are turned upright
# and declared sizes corrected, as both move boxes. Then equal files are merged. Then boxes one by one, from impossible
# to only odd; rules that change boxes come before those that compare boxes. Areas and masks follow, which are compared
# with the boxes. Last come rules on the whole dataset: similar images, of which the one with the most boxes is kept,
# and categories and images with too little left. So no rule makes work for one before it, and a second pass changes
# nothing.
RULES: tuple[Rule, ...] = (
    Rule("duplicate-category-id", "error", "drop", _DROP, partial(record_rules.duplicate_ids, kind="categories"),
         "two categories of one id; the first stays", _AMBIGUOUS),
    Rule("duplicate-category-name", "error", "repair", _CHANGE, record_rules.duplicate_names,
         "two categories of one name; repair: one", "the detector would have one class twice"),
    Rule("similar-category-names", "warning", "report", _ANY,
         partial(record_rules.duplicate_names, key=record_rules.without_case_and_spaces),
         "names that differ only in case or spaces; repair: one category"),
    Rule("duplicate-image-id", "error", "drop", _DROP, partial(record_rules.duplicate_ids, kind="images"),
         "two images of one id; the first stays", _AMBIGUOUS),
    Rule("duplicate-image-file", "error", "repair", _CHANGE, record_rules.duplicate_files,
         "two images of one file; repair: one, with the boxes of both",
         "training and the split would count it twice"),
    Rule("duplicate-annotation-id", "error", "repair", _CHANGE, record_rules.duplicate_annotation_ids,
         "two annotations of one id; repair: a new id", "pycocotools would see only one of them"),
    Rule("annotation-id-below-one", "error", "repair", _CHANGE, record_rules.annotation_ids_below_one,
         "an annotation id of 0 or less; repair: a new id", "pycocotools takes id 0 for never found"),
    Rule("unknown-image", "error", "drop", _DROP, partial(record_rules.unknown_owners, kind="images"),
         "an annotation in an image that is not listed", "pycocotools fails on it"),
    Rule("unknown-category", "error", "drop", _DROP, partial(record_rules.unknown_owners, kind="categories"),
         "an annotation of a category that is not listed", "training fails on it"),
    *(Rule(name, "error", "drop", _DROP, partial(image_rules.unreadable_images, kind=kind), summary,
           "training or the service fails on it") for name, kind, summary in _UNREADABLE),
    Rule("exif-orientation", "warning", "repair", _CHANGE, image_rules.exif_orientation,
         "an image stored turned; repair: image and boxes upright, without masks",
         "boxes would lie elsewhere than objects"),
    Rule("wrong-image-size", "error", "repair", _CHANGE, image_rules.resized_images,
         "no size, or the file's scaled; repair: the file's, boxes scaled, without masks",
         "boxes are held against the size"),
    Rule("unrelated-image-size", "error", "drop", _CHANGE, image_rules.unrelated_sizes,
         "another shape than the file's, or its sides swapped; repair: the file's, boxes left if they fit",
         "boxes may lie elsewhere than objects"),
    Rule("exact-duplicate-image", "warning", "drop", _ANY, image_rules.exact_duplicates,
         "the same image, byte for byte, in two files; repair: the boxes of both; drop: that with fewer"),
    Rule("box-not-finite", "error", "drop", _DROP, box_rules.boxes_not_finite,
         "a box with NaN, infinite or absurd numbers", "nothing can be computed with it"),
    Rule("negative-box-side", "error", "repair", _CHANGE, box_rules.negative_sides,
         "a negative width or height; repair: the corners the right way round", _NEVER_FOUND),
    Rule("box-without-area", "error", "drop", _DROP, box_rules.boxes_without_area,
         "a width or height of 0", _NEVER_FOUND),
    Rule("box-outside-image", "error", "drop", _DROP, box_rules.boxes_outside,
         "a box with nothing of it in the image", _NEVER_FOUND),
    Rule("box-partly-outside", "warning", "repair", _ANY, box_rules.boxes_partly_outside,
         "a box over the image's edge; repair: clipped"),
    Rule("tiny-box", "warning", "drop", _SEE, box_rules.tiny_boxes,
         "a side below 1 px (min_box_side)"),
    Rule("covering-box", "warning", "report", _SEE, box_rules.covering_boxes,
         "a box over 98% of the image or more"),
    Rule("duplicate-box", "warning", "drop", _SEE, box_rules.duplicate_boxes,
         "the same box twice for one category"),
    Rule("box-of-two-categories", "warning", "report", _SEE, box_rules.boxes_of_two_categories,
         "the same box for two categories; drop: the later one"),
    Rule("overlapping-boxes", "warning", "report", _SEE, box_rules.overlapping_boxes,
         "boxes of one category with an IoU above 0.9; drop: the later one"),
    Rule("wrong-area", "warning", "repair", _CHANGE, box_rules.wrong_areas,
         "an area of 0 or less, or above the box's; repair: the box's", "evaluation sorts objects by it"),
    Rule("malformed-segmentation", "error", "repair", _CHANGE, box_rules.malformed_segmentations,
         "a mask that cannot be read; repair: the box stays, without mask", "pycocotools fails on it"),
    Rule("segmentation-outside-image", "warning", "repair", _ANY, box_rules.segmentations_outside,
         "an outline that leaves the image; repair: the box stays, without mask"),
    Rule("near-duplicate-image", "warning", "report", _SEE, image_rules.near_duplicates,
         "an image that looks like another; a split keeps them together; drop: that with fewer boxes"),
    Rule("rare-category", "warning", "report", _SEE, record_rules.rare_categories,
         "objects in fewer than 3 images: too few to split"),
    Rule("unused-category", "info", "report", _SEE,
         partial(record_rules.without_annotation, kind="categories", detail="no object is of it"),
         "a category without an object"),
    Rule("image-without-box", "info", "report", _SEE,
         partial(record_rules.without_annotation, kind="images", detail="no annotation is in it"),
         "an image without an annotation: background in training"),
)  # fmt: skip


@dataclass(frozen=True)
class Validation:
    """A sound dataset, and how it came to be."""

    dataset: CocoDataset  # what is left, with unique ids, known references, and finite boxes with an area
    findings: Findings
    upright: tuple[str, ...] = ()  # files that EXIF wants turned; boxes are turned, pixels must be by `write_subset`
    groups: Mapping[str, str] = field(default_factory=dict)  # of near duplicates, by file name
    exclusions: tuple[Exclusion, ...] = ()  # images and boxes that each rule dropped; images that lost all annotations


def validate(
    dataset: CocoDataset,
    images_folder: Path,
    *,
    actions: Mapping[str, str] = {},
    min_box_side: float = 1.0,
    reserved: Collection[str] = (),
    loaded: Sequence[Finding] = (),
) -> Validation:
    """Check a dataset by the rules, decoding every image once.

    Rules without an action take their default; `min_box_side` is in pixels. Of equal images the one stays whose file
    name is in `reserved`, a fixed test set. What was found when the dataset was loaded is in `loaded`.

    Raises:
        UsageError: No rule has such a name, or a rule cannot do what is asked of it.
        DataError: No image is left, or no object of those there were.
    """
    check_actions(actions)  # refused before an image is read
    facts = inspect(images_folder, sorted({image.file_name for image in dataset.images}))
    validation = apply_rules(dataset, facts, actions=actions, min_box_side=min_box_side, reserved=frozenset(reserved))
    if not validation.dataset.images:
        raise DataError(
            f"none of the {len(dataset.images)} images can be used",
            where=images_folder,
            expected="images that the annotations name and OpenCV can decode",
            remedy=f"look at the findings:\n{validation.findings}",
        )
    objects, left = (sum(not each.iscrowd for each in has.annotations) for has in (dataset, validation.dataset))
    if objects and not left:
        raise DataError(
            f"none of the {objects} boxes can be used",
            expected="boxes that the rules leave",
            remedy=f"look at the findings:\n{validation.findings}",
        )
    return replace(validation, findings=Findings((*loaded, *validation.findings)))


def apply_rules(
    dataset: CocoDataset,
    facts: Mapping[str, ImageFacts],
    *,
    actions: Mapping[str, str] = {},
    min_box_side: float = 1.0,
    reserved: Collection[str] = (),
) -> Validation:
    """Apply the rules one after another; applied again, they repair and drop nothing more. See `validate`.

    An image that loses its last annotation to a rule is dropped too (`image-without-usable-box`): something was drawn
    on it, so it is not background. An image that came without annotations stays, and so does one with a crowd region
    left. The rule on rare categories drops no image, as it chooses classes. The boxes of a dropped image are excluded
    by the same rule; those that a repair moves to another image stay.
    """
    chosen = check_actions(actions)
    records: list[Finding] = []
    images, boxes = Counter[str](), Counter[str]()
    subject = Subject(dataset, facts, min_box_side, reserved)
    for rule in RULES:
        before = subject.dataset
        after, found = rule.check(subject, chosen[rule.name])
        reason = f"by the rule {rule.name}"
        images[reason] = len(before.images) - len(after.images)
        boxes[reason] = len(before.annotations) - len(after.annotations)
        records += [Finding(rule.name, rule.severity, *each) for each in found]
        if found:
            log.info("%s: %d %s", rule.name, len(found), found[0][1])
        if after.annotations is not before.annotations and rule.name != _CHOOSES_CLASSES:
            after, emptied = _without_emptied(before, after, rule.name)
            records += [Finding("image-without-usable-box", "warning", *each) for each in emptied]
            images[_NONE_LEFT] += len(emptied)
        if after is not before:
            subject = replace(subject, dataset=after)
    exclusions = exclude(images, len(dataset.images)) + exclude(boxes, len(dataset.annotations), what="boxes")
    dataset = subject.dataset
    upright = sorted({image.file_name for image in dataset.images if facts[image.file_name].orientation != 1})
    groups = image_rules.duplicate_groups(dataset, facts)
    return Validation(dataset, Findings(tuple(records)), tuple(upright), groups, exclusions)


def _without_emptied(before: CocoDataset, after: CocoDataset, rule: str) -> Result:
    had = {each.image_id for each in before.annotations} - {each.image_id for each in after.annotations}
    details = {row: f"{rule} took its last annotation" for row, image in enumerate(after.images) if image.id in had}
    return settle(Subject(after, {}), "images", details, "drop")


def check_actions(actions: Mapping[str, str]) -> dict[str, Action]:
    """The action of every rule; a `UsageError` where there is no such rule, or it cannot do that."""
    named = {rule.name: rule for rule in (*LOADING_RULES, *RULES)}
    chosen = {name: rule.default for name, rule in named.items()}
    for name, wanted in actions.items():
        if name not in named:
            remedy = did_you_mean(name, named, otherwise=f"there are: {', '.join(named)}", most=3)
            raise UsageError(f"there is no rule '{name}'", remedy=remedy)
        rule = named[name]
        allowed = {str(each): each for each in rule.allowed}
        if str(wanted) not in allowed:
            why = ": there is nothing that it could become" if wanted == "repair" else ""
            if wanted == "report" and rule.why:
                why = f": {rule.summary.partition(';')[0]}, and {rule.why}"
            raise UsageError(
                f"the rule '{name}' cannot '{wanted}'{why}",
                expected=" or ".join(allowed),
                remedy="choose one of these, or leave the rule out for its default",
            )
        chosen[name] = allowed[str(wanted)]
    return chosen
