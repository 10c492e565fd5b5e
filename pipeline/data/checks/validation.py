"""Validation of a dataset by the table of rules: problems are reported, repaired or dropped, and always listed.

Chosen actions are checked before any image is read. A problem that would crash or falsify training, pycocotools or the
service cannot only be reported.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.checks.duplicate_rules import duplicate_groups
from pipeline.data.checks.findings import Action, Finding, Findings
from pipeline.data.checks.rule_table import RuleLimits, rules
from pipeline.data.checks.rules import Facts, Result, ValidationRule, drop_images
from pipeline.data.coco import CocoDataset
from pipeline.data.images import inspect
from pipeline.data.tables import Exclusion, Table, exclude
from pipeline.errors import DataError, UsageError, did_you_mean

log = logging.getLogger(__name__)

RULES: tuple[ValidationRule, ...] = rules()
EMPTIED = "image-without-usable-box"
NONE_LEFT = "their annotations were all dropped"
_CHOOSES_CLASSES = "rare-category"  # an image of unwanted classes only is background


@dataclass(frozen=True)
class Validation:
    """A sound dataset, and how it came to be.

    Attributes:
        dataset: The remaining dataset, with unique ids, known references, and finite boxes with an area.
        findings: What was found.
        upright: File names of images that EXIF wants turned; their boxes are turned already, and `write_subset` must
            turn the pixels.
        groups: Near duplicates, which must stay together in a split: file name to the name of its group; images without
            one are absent.
        exclusions: How many images each rule dropped or merged, and how many lost all their annotations.
    """

    dataset: CocoDataset
    findings: Findings
    upright: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    exclusions: tuple[Exclusion, ...] = ()

    def __str__(self) -> str:
        return str(self.findings)

    def _repr_html_(self) -> str:
        return self.findings._repr_html_()


def validate(
    dataset: CocoDataset,
    images_folder: Path,
    *,
    actions: Mapping[str, str] = {},
    min_box_side: float = RuleLimits.min_box_side,
    covering_share: float = RuleLimits.covering_share,
    overlap: float = RuleLimits.overlap,
    rare_images: int = RuleLimits.rare_images,
    reserved: Collection[str] = (),
) -> Validation:
    """Check a dataset by the rules, decoding every image once.

    Args:
        dataset: A dataset from outside.
        images_folder: The folder of its images.
        actions: `report`, `repair` or `drop` by the rule's name; other rules take their default. `rules_table` shows
            both.
        min_box_side: See `RuleLimits`, as for the other three.
        covering_share: Share of its image from which on a box covers it.
        overlap: Intersection over union above which two boxes are one object's.
        rare_images: Fewest images of a category.
        reserved: File names of a fixed test set: of equal images, the one in it stays.

    Raises:
        UsageError: No rule has such a name, a rule cannot do what is asked of it, or a limit is out of range.
        DataError: No image is left.
    """
    table = rules(RuleLimits(min_box_side, covering_share, overlap, rare_images), frozenset(reserved))
    chosen = _chosen(actions, table)
    facts = inspect(images_folder, sorted({image.file_name for image in dataset.images}))
    validation = apply_rules(dataset, facts, table, actions=chosen)
    if not validation.dataset.images:
        raise DataError(
            f"none of the {len(dataset.images)} images can be used",
            where=images_folder,
            expected="images that the annotations name and OpenCV can decode",
            remedy=f"look at the findings:\n{validation.findings}",
        )
    return validation


def apply_rules(
    dataset: CocoDataset, facts: Facts, table: Sequence[ValidationRule] = RULES, *, actions: Mapping[str, str] = {}
) -> Validation:
    """Apply rules one after another; applied again, they repair and drop nothing more.

    An image that loses its last annotation to a rule is dropped too (`image-without-usable-box`): something was drawn
    on it, so it is not background. An image that came without annotations stays, and so does one with a crowd region
    left. The rule on rare categories drops no image, as it chooses classes.

    Args:
        dataset: The dataset to check.
        facts: Facts about every file it names.
        table: The rules, in order.
        actions: Actions other than the default, by the rule's name.

    Raises:
        UsageError: No rule has such a name, or a rule cannot do what is asked of it.
    """
    chosen = _chosen(actions, table)
    records: list[Finding] = []
    counts: dict[str, int] = {}
    loaded, none_left = len(dataset.images), 0
    for rule in table:
        before = dataset
        dataset, found = rule.check(before, facts, chosen[rule.name])
        counts[f"by the rule {rule.name}"] = len(before.images) - len(dataset.images)
        records += [Finding(rule.name, rule.severity, *each) for each in found]
        if found:
            log.info("%s: %d %s", rule.name, len(found), found[0].action)
        if rule.name != _CHOOSES_CLASSES:
            dataset, emptied = _without_emptied(before, dataset, rule.name)
            records += [Finding(EMPTIED, "warning", *each) for each in emptied]
            none_left += len(emptied)
    counts[NONE_LEFT] = none_left
    upright = sorted({image.file_name for image in dataset.images if facts[image.file_name].orientation != 1})
    groups, exclusions = duplicate_groups(dataset, facts), exclude(counts, loaded)
    return Validation(dataset, Findings(tuple(records)), tuple(upright), groups, exclusions)


def rules_table(table: Sequence[ValidationRule] = RULES) -> Table:
    """Every rule with its default action and the actions that may be chosen."""
    rows = tuple((each.name, each.severity, each.default, ", ".join(each.allowed), each.summary) for each in table)
    return Table(f"{len(rows)} rules, in the order in which they are applied", _COLUMNS, rows)


_COLUMNS = ("rule", "severity", "default", "allowed", "what")


def _chosen(actions: Mapping[str, str], table: Sequence[ValidationRule]) -> dict[str, Action]:
    """The action of every rule."""
    named = {rule.name: rule for rule in table}
    chosen = {rule.name: rule.default for rule in table}
    for name, wanted in actions.items():
        if name not in named:
            remedy = did_you_mean(name, named, otherwise=f"there are: {', '.join(named)}", most=3)
            raise UsageError(f"there is no rule '{name}'", remedy=remedy)
        allowed = {str(each): each for each in named[name].allowed}
        if str(wanted) not in allowed:
            raise UsageError(
                f"the rule '{name}' cannot '{wanted}'{_reason(named[name], wanted)}",
                expected=" or ".join(allowed),
                remedy="choose one of these, or leave the rule out for its default",
            )
        chosen[name] = allowed[str(wanted)]
    return chosen


def _without_emptied(before: CocoDataset, after: CocoDataset, rule: str) -> Result:
    """The dataset after a rule, without the images that lost their last annotation to it."""
    if after.annotations is before.annotations:
        return after, []
    had = {each.image_id for each in before.annotations}
    emptied = {image.id: f"{rule} took its last annotation" for image in after.background_images if image.id in had}
    return drop_images(after, emptied)


def _reason(rule: ValidationRule, wanted: str) -> str:
    """Why a rule does not allow an action, for an error."""
    if wanted == "report" and rule.why:
        return f": {rule.summary.partition(';')[0]}, and {rule.why}"
    return ": there is nothing that it could become" if wanted == "repair" else ""
