from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.data.report.dataset_figures import box_sizes, image_sizes
from pipeline.data.report.inline_images import FigureList, Gallery, GalleryRow, InlineImage, Sections, draw


def test_charts_are_drawn_once_and_shown_as_they_are(two_classes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    charts = [box_sizes(two_classes.dataset), image_sizes(two_classes.dataset)]
    drawn = []
    to_png = type(charts[0]).to_png
    monkeypatch.setattr(type(charts[0]), "to_png", lambda chart: drawn.append(chart) or to_png(chart))
    figures = draw(*charts)
    html = [figures._repr_html_(), figures.__html__()]
    assert drawn == charts
    assert html[0] == html[1]
    for picture in figures.images:
        assert base64.b64encode(picture.data).decode() in html[0]
        pixels = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape[:2] == (picture.height, picture.width)
    assert figures.images[1].alt == "Sizes of 5 images: 2 different, 80% are 200 x 100; Megapixels, median 0.02"


def test_words_from_outside_are_escaped() -> None:
    evil = '"><script>alert(1)</script>'
    gallery = Gallery((GalleryRow(evil, (InlineImage(evil, b"\xff\xd8\xff", 1, 1, evil), InlineImage(evil))),), evil)
    assert "<script" not in gallery._repr_html_()
    assert "<script" not in FigureList((InlineImage(evil, b"\x89PNG", 1, 1),)).__html__()
    assert "<script" not in Sections({evil: gallery})._repr_html_()
    assert "<script" not in Gallery((), evil)._repr_html_()
    assert gallery._repr_html_().count("&lt;script&gt;") == 4


def test_what_a_log_gets_of_it_is_short() -> None:
    """A notebook keeps the plain text of a figure beside the figure."""
    assert len(repr(Gallery((GalleryRow("a", (InlineImage("b", b"x" * 100_000),) * 99),)))) < 200
