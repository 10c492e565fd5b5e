"""The data report: one HTML page about a prepared dataset, and its findings as a file for a spreadsheet.

The page and a notebook show the same figures: `write_report` draws each once, and returns them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from pipeline.data.checks.findings import SEVERITIES, Findings
from pipeline.data.checks.validation import Validation
from pipeline.data.coco import CocoDataset
from pipeline.data.dataset_origin import DatasetOrigin
from pipeline.data.fonts import missing_fonts, unwritten
from pipeline.data.report import dataset_figures as figures
from pipeline.data.report.box_columns import BoxColumns
from pipeline.data.report.inline_images import FigureList, Gallery, Sections, draw
from pipeline.data.report.page_templates import render_page
from pipeline.data.report.preparation import Preparation
from pipeline.data.report.sample_images import class_samples, worst_examples
from pipeline.data.split.dataset_split import Split
from pipeline.data.tables import Cell, Counted, Exclusion, Table, account, exclusions_table

log = logging.getLogger(__name__)

_TEMPLATE = "data_report.html.j2"
_MOST_CONCERNS = 40  # lines; all are in the file
_CONCERN = ("severity", "rule", "item", "detail")
_FINDINGS = "findings.csv"


@dataclass(frozen=True, repr=False)
class DataReport:
    """A written report and its parts."""

    path: Path  # the page; `findings.csv` lies beside it
    counts: Table  # images, boxes and classes of each subset
    findings: Findings  # of validation and split
    figures: Sections  # all of the page, by heading

    def __str__(self) -> str:
        return f"Data report, {self.path.stat().st_size / 1e6:.1f} MB\n{self.counts}"

    __repr__ = __str__  # what a notebook leaves in a log

    def _repr_html_(self) -> str:
        return self.counts._repr_html_()


def write_report(
    folder: Path,
    *,
    checked: Validation,
    parts: Split,
    selected: CocoDataset,
    images_folder: Path,
    sample_images: int = 4,
    seed: int = 0,
    exclusions: Sequence[Exclusion] = (),
    preparation: Preparation = Preparation(),  # noqa: B008 - it is frozen
) -> DataReport:
    """Write `report.html`, which needs no network, no script and no other file, and `findings.csv`.

    `parts` is the split of `selected`, of which at most `sample_images` of each class are shown; the seed decides
    which. `exclusions` are all that led from the source to the three sets. The head states where the data came from, as
    `selected` has it, and its `preparation`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    every = (*checked.findings, *parts.findings)
    findings = Findings(sorted(every, key=lambda each: SEVERITIES.index(each.severity)))
    drawn: dict[str, FigureList | Gallery] = {
        "Worst examples": worst_examples(findings, images_folder),
        "Classes": draw(figures.class_histogram(parts)),
        "Boxes": draw(
            figures.boxes_per_image(parts),
            figures.box_sizes(selected),
            figures.aspect_ratios(selected),
            figures.heat_map(parts),
        ),
        "Images": draw(figures.image_sizes(selected)),
        "Classes together": draw(figures.co_occurrence(selected)),
        "Samples": class_samples(selected, images_folder, count=sample_images, seed=seed),
    }
    if missing := missing_fonts(selected.categories):
        log.warning("%s", missing)
    columns = ("subset", "images", "without boxes", "boxes", "per image", "crowd regions", "classes", "megapixels")
    rows = tuple(_count_row(name, each) for name, each in {**parts.subsets, "all": selected}.items())
    counts = Table("Images, boxes and classes", columns, rows)
    report = DataReport(folder / "report.html", counts, findings, Sections(drawn))
    concerns = tuple(attrgetter(*_CONCERN)(each) for each in parts.findings[:_MOST_CONCERNS])
    more = f"; the first {_MOST_CONCERNS} of {len(parts.findings)}" if len(parts.findings) > _MOST_CONCERNS else ""
    page = render_page(
        "pipeline.data",
        "report",
        _TEMPLATE,
        {"cell": _cell, "count_of": _count_of, "moment": _moment},
        report=report,
        origin=DatasetOrigin.of(selected),
        preparation=preparation,
        csv=_FINDINGS,
        tiles={
            "images": len(selected.images),
            "boxes": len(BoxColumns.of(selected).boxes),
            "classes": len(selected.categories),
            **{f"{name} images": len(each.images) for name, each in parts.subsets.items()},
            "findings": len(findings),
        },
        accounts=_accounts(parts, exclusions),
        exclusions=exclusions_table(exclusions),
        shares=parts.shares,
        concerns=Table(f"Findings of the split{more}", _CONCERN, concerns),
        fonts=missing,
        unwritten=unwritten(selected.categories),
    )
    report.path.write_text(page, encoding="utf-8")
    findings.write_csv(folder / _FINDINGS)
    log.info("data report of %.1f MB", report.path.stat().st_size / 1e6)
    return report


def _accounts(parts: Split, exclusions: Sequence[Exclusion]) -> list[str]:
    """Where the images and boxes of the source are: in the three sets, or excluded."""
    kept: dict[Counted, int] = {
        "images": sum(len(each.images) for each in parts.subsets.values()),
        "boxes": sum(len(each.annotations) for each in parts.subsets.values()),
    }
    excluded = {what: sum(each.count for each in exclusions if each.what == what) for what in kept}
    return [account(what, count + excluded[what], count, exclusions) for what, count in kept.items()]


def _count_row(name: str, dataset: CocoDataset) -> tuple[Cell, ...]:
    columns = BoxColumns.of(dataset)
    images, boxes, crowds = len(dataset.images), len(columns.boxes), sum(each.iscrowd for each in dataset.annotations)
    empty, classes = int((columns.per_image() == 0).sum()), len(np.unique(columns.classes))
    megapixels = float(columns.sizes.prod(axis=1).sum() / 1e6)
    return name, images, empty, boxes, boxes / max(1, images), crowds, classes, megapixels


def _cell(value: object) -> str:
    """A number with thin spaces between thousands, floats with one decimal; anything else as it is."""
    if not isinstance(value, int | float):
        return str(value)
    return format(value, ",.1f" if isinstance(value, float) else ",").replace(",", "\u2009")


def _count_of(count: int, what: str) -> str:
    """`1 image`, `2 images`."""
    return f"{_cell(count)} {what}{'s' * (count != 1)}"


def _moment(time: str) -> str:
    """`2026-03-01 12:30 UTC` for ISO 8601 in UTC."""
    return f"{time[:10]} {time[11:16]} UTC"
