from __future__ import annotations

from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, StrictUndefined

from pipeline.detection.epochs import RESULTS, EpochRecord, write_epochs
from pipeline.evaluation.training_epochs import TrainingEpochs, read_training_epochs

DASH = "\N{EN DASH}"


class Rows(HTMLParser):
    """The cells of a page's table, row by row, and all its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1] and self.tags[-1] in ("th", "td"):
            self.rows[-1][-1] += data.strip()


def rendered(epochs: TrainingEpochs | None) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("pipeline.evaluation.report").joinpath("epochs.html.j2").read_text("utf-8")
    return environment.from_string(source).render(epochs=epochs, charts={"Epochs": "CHART"})


def written(folder: Path, count: int) -> TrainingEpochs | None:
    """Of a training from given weights, of which every second epoch is validated; the last two are equally good."""
    values = {epoch: min(epoch, count - 3) / 100 for epoch in range(0, count + 1, 2)}
    history = [EpochRecord(0, {}, 0.0, 0.0, 0.0)]
    for epoch in range(1, count + 1):
        loss = {"loss_cls": 0.5, "loss": 10.0 / epoch} | ({"loss_l1": 0.125} if epoch == count else {})
        history.append(EpochRecord(epoch, loss, 1e-3, values.get(epoch), values.get(epoch)))
    write_epochs(folder / RESULTS, history)
    return read_training_epochs(folder)


def test_the_table_has_every_epoch_and_marks_the_best(tmp_path: Path) -> None:
    found = written(tmp_path, 8)
    assert found is not None
    assert (found.best, found.losses, found.is_long) == (6, ("loss", "loss_cls", "loss_l1"), False)
    page = Rows(rendered(found))
    header, given, first, *_, best, seventh, last = page.rows
    assert header == ["epoch", "loss", "cls", "l1", "learning rate", "mAP", "mAP50"]
    assert given == ["0", DASH, DASH, DASH, DASH, "0.0000", "0.0000"]
    assert first == ["1", "10.000", "0.500", DASH, "1.0e-03", DASH, DASH]
    assert best == ["6 (best)", "1.667", "0.500", DASH, "1.0e-03", "0.0500", "0.0500"]
    assert seventh[0] == "7"
    assert last == ["8", "1.250", "0.500", "0.125", "1.0e-03", "0.0500", "0.0500"]
    assert "details" not in page.tags
    assert len(page.rows) == 10


@pytest.mark.parametrize(("count", "folded"), [(19, False), (20, True)])
def test_a_long_table_is_folded(count: int, folded: bool, tmp_path: Path) -> None:
    page = Rows(rendered(written(tmp_path, count)))
    assert ("details" in page.tags) == folded
    assert len(page.rows) == count + 2


def test_without_epochs_there_is_no_section(tmp_path: Path) -> None:
    """An earlier version wrote no file, and of weights that are packed as they are there is no epoch."""
    assert read_training_epochs(tmp_path) is None
    write_epochs(tmp_path / RESULTS, ())
    assert read_training_epochs(tmp_path) is None
    assert rendered(None).strip() == ""
