"""The worst of what validation found, as pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

import numpy as np

from pipeline.data.checks.findings import Finding
from pipeline.data.report.inline_images import Gallery, Picture, Row
from pipeline.data.report.thumbnails import Shot, develop

_ROOM = (300, 220)  # pixels of a picture
_SEVERITIES = ("error", "warning", "info")


def worst_examples(findings: Iterable[Finding], images_folder: Path, *, count: int = 12) -> Gallery:
    """Pictures of findings, with the box concerned: some of every rule, the severe ones first.

    A box is drawn as it was found, before any repair; a file that cannot be decoded is shown in words.

    Args:
        findings: What was found.
        images_folder: Where the images are.
        count: How many pictures, at most.
    """
    chosen = choose(findings, count)
    shots = [Shot(each.file_name, _boxes(each), np.zeros((0, 4))) for each in chosen]
    developed = develop(images_folder, shots, room=_ROOM)
    pictures = [
        Picture(made.problem or f"{each.rule}: {each.item}", made.jpeg, made.width, made.height, _caption(each))
        for each, made in zip(chosen, developed, strict=True)
    ]
    return Gallery((Row("", tuple(pictures)),) if pictures else (), "No finding is about an image.")


def choose(findings: Iterable[Finding], count: int) -> list[Finding]:
    """Findings to look at: of every rule one, the most severe rules first, then of every rule a second, and so on.

    Those of a rule come in the order of severity and of the findings, each image once.
    """
    rules: defaultdict[str, dict[str, Finding]] = defaultdict(dict)
    for each in sorted(findings, key=lambda each: _SEVERITIES.index(each.severity)):
        if each.file_name:
            rules[each.rule].setdefault(each.file_name, each)
    rounds = zip_longest(*(list(each.values())[:count] for each in rules.values()))
    turns = [each for turn in rounds for each in turn if each is not None]
    order = {rule: place for place, rule in enumerate(rules)}
    return sorted(turns[: max(0, count)], key=lambda each: order[each.rule])


def _boxes(finding: Finding) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([] if finding.bbox is None else finding.bbox, np.float64).reshape(-1, 4)


def _caption(finding: Finding) -> str:
    return f"{finding.rule}, {finding.action}: {finding.detail} ({finding.file_name})"
