from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.detection.epochs import HEADER, EpochRecord, epoch_line, read_epochs, write_epochs
from pipeline.errors import DataError

LOSS = {"loss": 12.345, "loss_bbox": 4.0, "loss_cls": 1.5, "loss_obj": 6.845}
HISTORY = (
    EpochRecord(0, {}, 0.0, 0.1, 1 / 3),
    EpochRecord(1, LOSS, 1e-4),
    EpochRecord(2, {**LOSS, "loss_l1": 0.25}, 5e-6, 0.25, 0.5),
)


def test_an_epoch_is_a_line() -> None:
    lines = [epoch_line(record, 12, speed) for record, speed in zip(HISTORY, (None, 31.4, 1234.0), strict=True)]
    assert [HEADER, *lines] == [
        "  epoch   loss   bbox    cls    obj     l1    rate  img/s    mAP  mAP50",
        "   0/12      -      -      -      -      -       -      -  0.100  0.333",
        "   1/12  12.35   4.00   1.50   6.84      - 1.0e-04     31      -      -",
        "   2/12  12.35   4.00   1.50   6.84   0.25 5.0e-06   1234  0.250  0.500",
    ]
    assert len(HEADER) + 6 <= 80  # as `log` indents it


def test_the_file_has_every_digit(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_epochs(path, HISTORY)
    assert path.read_text().splitlines() == [
        "epoch,loss,loss_bbox,loss_cls,loss_l1,loss_obj,learning_rate,mAP,mAP50",
        "0,,,,,,0.0,0.1,0.3333333333333333",
        "1,12.345,4.0,1.5,,6.845,0.0001,,",
        "2,12.345,4.0,1.5,0.25,6.845,5e-06,0.25,0.5",
    ]
    assert read_epochs(path) == HISTORY
    write_epochs(path, ())
    assert read_epochs(path) == ()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("epoch,loss\n1,2\n", id="columns missing"),
        pytest.param("epoch,learning_rate,mAP,mAP50\n1,x,,\n", id="no number"),
        pytest.param("epoch,learning_rate,mAP,mAP50\n1,0.1\n", id="a short line"),
        pytest.param("epoch,learning_rate,mAP,mAP50\n1,0.1,,,3\n", id="a long line"),
    ],
)
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=r"table of epochs cannot be read[\s\S]*results\.csv[\s\S]*learning_rate"):
        read_epochs(path)
