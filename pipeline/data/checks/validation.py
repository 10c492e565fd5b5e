"""A data set held to the table of rules: what falls short is reported, repaired or dropped, as chosen, and always said.

Chosen actions are checked before an image is looked at. What would crash or falsify training, pycocotools or the
service cannot only be reported.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from pipeline.data.checks.duplicate_rules import duplicate_groups
from pipeline.data.checks.findings import Action, Facts, Finding, Findings, Result, Rule, drop_images
from pipeline.data.checks.rule_table import Limits, rules
from pipeline.data.coco import CocoDataset
from pipeline.data.exclusions import Exclusion, exclude
from pipeline.data.image_facts import inspect
from pipeline.data.tables import Table
from pipeline.errors import DataError, UsageError

logger = logging.getLogger(__name__)

RULES: tuple[Rule, ...] = rules()
EMPTIED = "image-without-usable-box"
NONE_LEFT = "their annotations were all dropped"
_CHOOSES_CLASSES = "rare-category"  # what only shows classes that a detector is not to know is background for it


@dataclass(frozen=True)
class Validation:
    """A sound data set, and how it came to be.

    Attributes:
        dataset: What is left, with unique ids, known references, and boxes that can be computed with.
        findings: What was found on the way there.
        upright: File names of images that EXIF wants turned; their boxes are already where they will be, so
            `write_subset` must turn the pixels.
        groups: What must stay together in a split, because it shows the same: file name to the name of its group;
            images alone are not in it.
        exclusions: How many images which rule dropped, or put together with another; and how many rules left without
            any of their annotations.
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
    min_box_side: float = Limits.min_box_side,
    covering_share: float = Limits.covering_share,
    overlap: float = Limits.overlap,
    rare_images: int = Limits.rare_images,
    reserved: Collection[str] = (),
) -> Validation:
    """Hold a data set to the rules, decoding every image once.

    Args:
        dataset: As it came from outside.
        images_folder: Where its images are.
        actions: What to do about what a rule finds, `report`, `repair` or `drop` by the rule's name; for the others
            their default. `rules_table` shows both.
        min_box_side: See `Limits`, as for the other three.
        covering_share: Of an image, from which on a box covers it.
        overlap: Intersection over union above which two boxes are one object's.
        rare_images: Fewest images of a category.
        reserved: File names of a fixed test set: of equal pictures, the one in it stays.

    Raises:
        UsageError: No rule has such a name, a rule cannot do what is asked of it, or a limit makes no sense.
        DataError: No image is left.
    """
    table = rules(Limits(min_box_side, covering_share, overlap, rare_images), frozenset(reserved))
    chosen = _chosen(actions, table)
    facts = inspect(images_folder, sorted({image.file_name for image in dataset.images}))
    validation = apply_rules(dataset, facts, table, actions=chosen)
    if not validation.dataset.images:
        raise DataError(
            f"None of the {len(dataset.images)} images can be used",
            where=images_folder,
            expected="images that the annotations name and OpenCV can decode",
            remedy=f"look at the findings:\n{validation.findings}",
        )
    return validation


def apply_rules(
    dataset: CocoDataset, facts: Facts, table: Sequence[Rule] = RULES, *, actions: Mapping[str, str] = {}
) -> Validation:
    """Hold a data set to rules, one after another; the same again repairs and drops nothing more.

    An image that loses its last annotation to a rule is dropped too (`image-without-usable-box`): something was drawn
    on it, so it is no background. One that came without annotations stays, and so does one that keeps a crowd region.
    The rule on rare categories takes no image along, as it chooses classes.

    Args:
        dataset: What to check.
        facts: What is known of every file it names.
        table: Which rules, in order.
        actions: What to do where it is not the rule's default, by the rule's name.

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
        records += found
        if found:
            logger.info("%s: %d %s", rule.name, len(found), found[0].action)
        if rule.name != _CHOOSES_CLASSES:
            dataset, emptied = _without_emptied(before, dataset, rule.name)
            records += emptied
            none_left += len(emptied)
    counts[NONE_LEFT] = none_left
    upright = sorted({image.file_name for image in dataset.images if facts[image.file_name].orientation != 1})
    groups, exclusions = duplicate_groups(dataset, facts), exclude(counts, loaded)
    return Validation(dataset, Findings(tuple(records)), tuple(upright), groups, exclusions)


def rules_table(table: Sequence[Rule] = RULES) -> Table:
    """Every rule, what is done by default about what it finds, and what may be chosen instead."""
    rows = tuple((each.name, each.severity, each.default, ", ".join(each.allowed), each.summary) for each in table)
    return Table(f"{len(rows)} rules, in the order they are applied in", _COLUMNS, rows)


_COLUMNS = ("rule", "severity", "default", "allowed", "what")


def _chosen(actions: Mapping[str, str], table: Sequence[Rule]) -> dict[str, Action]:
    """The action of every rule."""
    named = {rule.name: rule for rule in table}
    chosen = {rule.name: rule.default for rule in table}
    for name, wanted in actions.items():
        if name not in named:
            near = get_close_matches(str(name), named, 3, 0.5)
            remedy = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(named)}"
            raise UsageError(f"There is no rule '{name}'", remedy=remedy)
        allowed = {str(each): each for each in named[name].allowed}
        if str(wanted) not in allowed:
            raise UsageError(
                f"The rule '{name}' cannot '{wanted}'{_reason(named[name], wanted)}",
                expected=" or ".join(allowed),
                remedy="choose one of these, or leave the rule out for its default",
            )
        chosen[name] = allowed[str(wanted)]
    return chosen


def _without_emptied(before: CocoDataset, after: CocoDataset, rule: str) -> Result:
    """What a rule left, without the images whose last annotation it took."""
    if after.annotations is before.annotations:
        return after, []
    had = {each.image_id for each in before.annotations}
    emptied = {image.id: f"{rule} took its last annotation" for image in after.background_images if image.id in had}
    return drop_images(after, EMPTIED, "warning", emptied)


def _reason(rule: Rule, wanted: str) -> str:
    """Why a rule does not do what is wanted, where there is more to say than that it does not."""
    if wanted == "report" and rule.why:
        return f": {rule.summary.partition(';')[0]}, and {rule.why}"
    return ": there is nothing that it could become" if wanted == "repair" else ""
