"""Rules on categories: each once, under one name, and with enough objects to learn from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from pipeline.data.checks.findings import DID, Action, Facts, Finding, Result, Severity, with_annotations
from pipeline.data.coco import Annotation, Category, CocoDataset


def duplicate_category_ids(dataset: CocoDataset, _: Facts, __: Action) -> Result:
    """One category per id: the first keeps it, and the objects, which name it by id, are taken for the first's."""
    findings: list[Finding] = []
    first: dict[int, Category] = {}
    for category in dataset.categories:
        if first.setdefault(category.id, category) is not category:
            detail = f"the id is that of '{first[category.id].name}'"
            findings.append(Finding("duplicate-category-id", "error", category_item(category), "dropped", detail))
    return (replace(dataset, categories=tuple(first.values())) if findings else dataset), findings


def duplicate_category_names(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """One category per name: a repair moves the objects to the first."""
    return _merged(
        dataset, "duplicate-category-name", "error", {each.id: each.name for each in dataset.categories}, action
    )


def similar_category_names(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """No two categories whose names differ only in case or spaces: a repair moves the objects to the first."""
    keys = {each.id: "".join(each.name.split()).casefold() for each in dataset.categories}
    return _merged(dataset, "similar-category-names", "warning", keys, action)


def rare_categories(dataset: CocoDataset, _: Facts, action: Action, *, fewest: int) -> Result:
    """Every category that is used has objects in `fewest` images, so that each part of a split can have one."""
    images: defaultdict[int, set[int]] = defaultdict(set)
    for each in dataset.annotations:
        known = images[each.category_id]
        if not each.iscrowd:
            known.add(each.image_id)
    problems = {
        category.id: f"objects in {len(images[category.id])} images, fewer than {fewest}"
        for category in dataset.categories
        if category.id in images and len(images[category.id]) < fewest
    }
    return _judged(dataset, "rare-category", "warning", problems, action)


def unused_categories(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Every category has an object."""
    used = {each.category_id for each in dataset.annotations}
    problems = {category.id: "no object is of it" for category in dataset.categories if category.id not in used}
    return _judged(dataset, "unused-category", "info", problems, action)


def category_item(category: Category) -> str:
    """How a finding names a category."""
    return f"category {category.id} ({category.name})"


def _merged(dataset: CocoDataset, rule: str, severity: Severity, keys: Mapping[int, str], action: Action) -> Result:
    """Meet categories of the same key as an earlier one; `keys` by id, which are unique here."""
    findings: list[Finding] = []
    first: dict[str, Category] = {}
    moved: dict[int, int] = {}
    for category in dataset.categories:
        into = first.setdefault(keys[category.id], category)
        if into is not category:
            moved[category.id] = into.id
            detail = f"as {category_item(into)}" + ("; its objects moved there" if action == "repair" else "")
            findings.append(Finding(rule, severity, category_item(category), DID[action], detail))
    if not moved or action == "report":
        return dataset, findings
    if action == "drop":
        return _without(dataset, moved), findings

    def renumbered(each: Annotation) -> Annotation:
        return replace(each, category_id=moved[each.category_id]) if each.category_id in moved else each

    dataset = with_annotations(dataset, map(renumbered, dataset.annotations))
    return replace(dataset, categories=tuple(first.values())), findings


def _judged(dataset: CocoDataset, rule: str, severity: Severity, problems: Mapping[int, str], action: Action) -> Result:
    findings = [
        Finding(rule, severity, category_item(category), DID[action], problems[category.id])
        for category in dataset.categories
        if category.id in problems
    ]
    return (_without(dataset, problems) if problems and action == "drop" else dataset), findings


def _without(dataset: CocoDataset, ids: Mapping[int, object]) -> CocoDataset:
    kept = tuple(category for category in dataset.categories if category.id not in ids)
    annotations = (each for each in dataset.annotations if each.category_id not in ids)
    return replace(with_annotations(dataset, annotations), categories=kept)
