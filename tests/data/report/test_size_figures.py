from __future__ import annotations

import pytest

from pipeline.data.coco import CocoDataset, Image
from pipeline.data.report.dataset_figures import image_sizes


def of_sizes(*sizes):
    return CocoDataset(tuple(Image(i, f"{i}.jpg", *size) for i, size in enumerate(sizes)), (), ())


def test_bubbles_by_how_many():
    left, right = image_sizes(of_sizes(*[(640, 480)] * 9, (480, 640), (2000, 1000))).axes[:2]
    bubbles = left.collections[0]
    assert bubbles.get_offsets().tolist()[0] == [640, 480]  # the most frequent lies below the others
    assert sorted(map(tuple, bubbles.get_offsets())) == [(480, 640), (640, 480), (2000, 1000)]
    areas = bubbles.get_sizes()
    assert areas[0] / areas[1] == pytest.approx(9)
    assert left.get_title(loc="left") == "Sizes of 11 images: 3 different, 82% are 640 x 480"
    heights = [bar.get_height() for bar in right.containers[0]]
    assert sum(heights) == 11
    assert heights[-2] + heights[-1] == 1  # the two megapixels


@pytest.mark.parametrize(
    ("sizes", "title"),
    [
        pytest.param([], "Sizes of 0 images", id="none"),
        pytest.param([(9, 7)] * 3, "Sizes of 3 images: all 9 x 7", id="all-alike"),
        pytest.param([(0, 0)], "Sizes of 1 images: all 0 x 0", id="without-a-size"),
    ],
)
def test_titles(sizes, title):
    chart = image_sizes(of_sizes(*sizes))
    assert chart.axes[0].get_title(loc="left") == title
    assert chart.to_png().startswith(b"\x89PNG")
