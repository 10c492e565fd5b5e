"""A limit of the quality gate as a config states it.

mAP50 >= 0.5                  a figure of the test set
AP[person] >= 0.4             of one class; AP[*] of each
mAP >= given                  not worse than the given weights, beyond chance
AP[*] >= earlier - 0.02       no class falls by more than 0.02 against the earlier model, beyond chance
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipeline.errors import UsageError, did_you_mean
from pipeline.evaluation.reference_names import TITLES
from pipeline.metrics.named_figures import CLASS_FIGURES, FIGURES

EVERY_CLASS = "*"

_NUMBER = r"\d*\.?\d+"
_LIMIT = re.compile(
    rf"(?P<figure>\w+)\s*(\[(?P<label>[^\]]+)\])?\s*(?P<sign>>=|<=)\s*"
    rf"((?P<value>{_NUMBER})|(?P<reference>[a-z]+)(\s*(?P<side>[+-])\s*(?P<offset>{_NUMBER}))?)"
)
_FORM = "FIGURE >= NUMBER, FIGURE[CLASS] >= NUMBER, or FIGURE >= given|earlier|pytorch - NUMBER; with >= or <="


@dataclass(frozen=True)
class Limit:
    """One limit; with a `reference` the `value` is what may be added to or missing from its figure."""

    text: str
    figure: str  # a name in `FIGURES`, or with a class in `CLASS_FIGURES`
    label: str  # the class, `*` for each; empty for a figure of the test set
    is_minimum: bool
    value: float
    reference: str = ""


def check_limits(texts: Sequence[str]) -> None:
    """Check limits before there is a test set; the classes in them may be any.

    Raises:
        UsageError: As `read_limits`.
    """
    for text in texts:
        _read(text, None)


def read_limits(texts: Sequence[str], classes: Collection[str]) -> tuple[Limit, ...]:
    """Read the limits for a test set with these classes.

    Raises:
        UsageError: A text is no limit; or it names a figure, a class or a reference that there is not.
    """
    return tuple(_read(text, classes) for text in texts)


def _read(text: str, classes: Collection[str] | None) -> Limit:
    found = _LIMIT.fullmatch(text.strip())
    if not found:
        raise UsageError(f"'{text}' is no limit", where="limits", expected=_FORM, remedy='such as "mAP50 >= 0.5"')
    label, reference = (found["label"] or "").strip(), found["reference"] or ""
    of_class = f" of {label}" if label else ""
    _require("figure" + (" of a class" if label else ""), found["figure"], CLASS_FIGURES if label else FIGURES, text)
    if label and label != EVERY_CLASS and classes is not None:
        _require("class", label, classes, text)
    if reference:
        _require("reference", reference, TITLES, text)
        if label and found["figure"] != "AP":
            problem = f"{found['figure']}{of_class} cannot be compared with another model"
            raise UsageError(problem, where=f"limits: {text}", expected="AP of a class, or a figure of the test set")
    offset = float(found["offset"] or 0) * (-1 if found["side"] == "-" else 1)
    value = offset if reference else float(found["value"])
    return Limit(text.strip(), found["figure"], label, found["sign"] == ">=", value, reference)


def _require(kind: str, name: str, known: Collection[str], text: str) -> None:
    if name not in known:
        raise UsageError(
            f"there is no {kind} '{name}'",
            where=f"limits: {text}",
            expected=f"one of {', '.join(known)}",
            remedy=did_you_mean(name, known, cutoff=0.4),
        )
