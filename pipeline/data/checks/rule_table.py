"""The table of rules: name, severity, and the actions that may be chosen.

The order matters. First records must be unambiguous: categories and images once each, unique ids, nothing that belongs
to nothing. Then files: later rules rely on a readable file for every image. Then images are turned upright and declared
sizes corrected, as both move boxes. Then equal files are merged. Then boxes one by one, from impossible to only odd;
rules that change boxes come before those that compare boxes. Areas and masks follow, which are compared with the boxes.
Last come rules on the whole dataset: similar images, of which the one with the most boxes is kept, and categories and
images with too little left. So no rule makes work for one before it, and a second pass changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pipeline.data.checks import box_rules, duplicate_rules, image_rules, overlap_rules, record_rules
from pipeline.data.checks.findings import Action
from pipeline.data.checks.rules import ValidationRule as Rule
from pipeline.data.images import Kind
from pipeline.errors import UsageError


@dataclass(frozen=True)
class RuleLimits:
    """Thresholds of the rules.

    Attributes:
        min_box_side: Shortest side of an object's box, in pixels; mmdet learns nothing from boxes below 1.
        covering_share: Share of its image from which on a box covers it.
        overlap: Intersection over union above which two boxes of a category are one object's.
        rare_images: Fewest images with objects of a category: one each for train, eval and test.

    Raises:
        UsageError: A value is out of range.
    """

    min_box_side: float = 1.0
    covering_share: float = 0.98
    overlap: float = 0.9
    rare_images: int = 3

    def __post_init__(self) -> None:
        for name, valid, expected in (
            ("min_box_side", self.min_box_side >= 0, "0 or more, in pixels"),
            ("covering_share", 0 < self.covering_share <= 1, "above 0 and at most 1"),
            ("overlap", 0.5 <= self.overlap < 1, "from 0.5 to below 1"),
            ("rare_images", self.rare_images >= 0, "0 or more"),
        ):
            if not valid:
                raise UsageError(f"{name} is {getattr(self, name)}", expected=expected)


_ANY: tuple[Action, ...] = ("report", "repair", "drop")
_CHANGE: tuple[Action, ...] = ("repair", "drop")
_SEE: tuple[Action, ...] = ("report", "drop")
_DROP: tuple[Action, ...] = ("drop",)
_AMBIGUOUS = "objects name it by its id, so the two could not be distinguished"
_TWICE = "training and the split would count it twice"
_UNREADABLE: tuple[tuple[str, Kind, str], ...] = (
    ("missing-image", "missing", "an image's file is not there"),
    ("empty-image-file", "empty", "an image's file has no bytes"),
    ("truncated-image", "truncated", "an image's file ends before its pixels do"),
    ("corrupt-image", "corrupt", "an image's file is damaged in the middle"),
    ("undecodable-image", "undecodable", "an image's file cannot be decoded"),
    ("refused-image", "refused", "the service would refuse the image: its bytes or its pixels"),
)
_NEVER_FOUND = "evaluation would count it as an object never found"


def rules(limits: RuleLimits | None = None, reserved: frozenset[str] = frozenset()) -> tuple[Rule, ...]:
    """All rules, in the order in which they are applied.

    Args:
        limits: Their thresholds.
        reserved: File names of a fixed test set.
    """
    limits = limits or RuleLimits()
    unreadable = (
        Rule(name, "error", "drop", _DROP, partial(image_rules.unreadable_images, kind=kind), summary,
             "training or the service fails on it")
        for name, kind, summary in _UNREADABLE
    )  # fmt: skip
    exact = partial(duplicate_rules.exact_duplicates, reserved=reserved)
    near = partial(duplicate_rules.near_duplicates, reserved=reserved)
    tiny = partial(box_rules.tiny_boxes, shortest=limits.min_box_side)
    covering = partial(box_rules.covering_boxes, share=limits.covering_share)
    overlapping = partial(overlap_rules.overlapping_boxes, most=limits.overlap)
    rare = partial(record_rules.rare_categories, fewest=limits.rare_images)
    return (
        Rule("duplicate-category-id", "error", "drop", _DROP, record_rules.duplicate_category_ids,
             "two categories of one id; the first stays", _AMBIGUOUS),
        Rule("duplicate-category-name", "error", "repair", _CHANGE, record_rules.duplicate_category_names,
             "two categories of one name; repair: one", "the detector would have one class twice"),
        Rule("similar-category-names", "warning", "report", _ANY, record_rules.similar_category_names,
             "names that differ only in case or spaces; repair: one category"),
        Rule("duplicate-image-id", "error", "drop", _DROP, record_rules.duplicate_image_ids,
             "two images of one id; the first stays", _AMBIGUOUS),
        Rule("duplicate-image-file", "error", "repair", _CHANGE, record_rules.duplicate_image_files,
             "two images of one file; repair: one, with the boxes of both", _TWICE),
        Rule("duplicate-annotation-id", "error", "repair", _CHANGE, record_rules.duplicate_annotation_ids,
             "two annotations of one id; repair: a new id", "pycocotools would see only one of them"),
        Rule("annotation-id-below-one", "error", "repair", _CHANGE, record_rules.annotation_ids_below_one,
             "an annotation id of 0 or less; repair: a new id", "pycocotools takes id 0 for never found"),
        Rule("unknown-image", "error", "drop", _DROP, record_rules.unknown_images,
             "an annotation in an image that is not listed", "pycocotools fails on it"),
        Rule("unknown-category", "error", "drop", _DROP, record_rules.unknown_categories,
             "an annotation of a category that is not listed", "training fails on it"),
        *unreadable,
        Rule("exif-orientation", "warning", "repair", _CHANGE, image_rules.exif_orientation,
             "an image stored turned; repair: image and boxes upright", "boxes would lie elsewhere than objects"),
        Rule("wrong-image-size", "error", "repair", _CHANGE, image_rules.resized_images,
             "no size, or the file's scaled; repair: the file's, boxes scaled", "boxes are held against the size"),
        Rule("unrelated-image-size", "error", "drop", _CHANGE, image_rules.unrelated_sizes,
             "another shape than the file's, or its sides swapped; repair: the file's, boxes left if they fit",
             "boxes may lie elsewhere than objects"),
        Rule("exact-duplicate-image", "warning", "drop", _ANY, exact,
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
        Rule("tiny-box", "warning", "drop", _SEE, tiny,
             f"a side below {limits.min_box_side:g} px (min_box_side)"),
        Rule("covering-box", "warning", "report", _SEE, covering,
             f"a box over {limits.covering_share:.0%} of the image or more (covering_share)"),
        Rule("duplicate-box", "warning", "drop", _SEE, overlap_rules.duplicate_boxes,
             "the same box twice for one category"),
        Rule("box-of-two-categories", "warning", "report", _SEE, overlap_rules.boxes_of_two_categories,
             "the same box for two categories; drop: the later one"),
        Rule("overlapping-boxes", "warning", "report", _SEE, overlapping,
             f"boxes of one category with an IoU above {limits.overlap:g} (overlap); drop: the later one"),
        Rule("wrong-area", "warning", "repair", _CHANGE, box_rules.wrong_areas,
             "an area of 0 or less, or above the box's; repair: the box's", "evaluation sorts objects by it"),
        Rule("malformed-segmentation", "error", "repair", _CHANGE, box_rules.malformed_segmentations,
             "a mask that cannot be read; repair: the box stays, without mask", "pycocotools fails on it"),
        Rule("segmentation-outside-image", "warning", "repair", _ANY, box_rules.segmentations_outside,
             "an outline that leaves the image; repair: the box stays, without mask"),
        Rule("near-duplicate-image", "warning", "report", _SEE, near,
             "an image that looks like another; a split keeps them together; drop: that with fewer boxes"),
        Rule("rare-category", "warning", "report", _SEE, rare,
             f"objects in fewer than {limits.rare_images} images (rare_images): too few to split"),
        Rule("unused-category", "info", "report", _SEE, record_rules.unused_categories,
             "a category without an object"),
        Rule("image-without-box", "info", "report", _SEE, record_rules.images_without_box,
             "an image without an annotation: background in training"),
    )  # fmt: skip
