from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.data.report.dataset_figures import box_sizes, image_sizes
from pipeline.data.report.inline_images import draw


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
