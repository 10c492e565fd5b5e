"""Whether the boxes of a data set can be what they should be: corner and sides, in pixels.

Some tools write two corners, or fractions of the image's size, where their format has neither. No single box tells, but
all of them do.
"""

from __future__ import annotations

from pipeline.data.coco import Annotation, CocoDataset
from pipeline.errors import DataError

_OVER = 1.01  # the part of an image that a box may reach
_CORNER = 2  # pixels
_FEW = 4  # one box of so many may leave its image, and fewer say nothing
_EXPECTED = "left, top, width and height in pixels"


def check_boxes(dataset: CocoDataset) -> None:
    """Refuse boxes that are two corners or fractions.

    Raises:
        DataError: More than a quarter of the boxes leave their images, and all boxes would fit if they were two
            corners; or all boxes are in a corner of two pixels.
    """
    sizes = {image.id: (image.width, image.height) for image in dataset.images if image.width > 0 < image.height}
    boxes = [each for each in dataset.annotations if each.image_id in sizes]
    if len(boxes) < _FEW:
        return
    if all(_is_fraction(each, *sizes[each.image_id]) for each in boxes):
        remedy = "multiply x and width by the image's width, y and height by its height"
        problem = f"the boxes are fractions of the image's size: all {len(boxes)} are in a corner of two pixels"
        raise _refused(problem, boxes[0], remedy)
    leaving = [each for each in boxes if _leaves(each, *sizes[each.image_id])]
    if len(leaving) * _FEW > len(boxes) and all(_may_be_corners(each, *sizes[each.image_id]) for each in boxes):
        problem = f"the boxes seem to be two corners: {len(leaving)} of {len(boxes)} leave their images"
        remedy = "subtract x from the width and y from the height, or cut the boxes off at the images' edges"
        raise _refused(problem, leaving[0], remedy)


def _is_fraction(box: Annotation, width: int, height: int) -> bool:
    x, y, across, down = box.bbox
    return min(width, height) > _FEW and 0 <= x <= x + across <= _CORNER and 0 <= y <= y + down <= _CORNER


def _leaves(box: Annotation, width: int, height: int) -> bool:
    x, y, across, down = box.bbox
    return x + across > width * _OVER or y + down > height * _OVER


def _may_be_corners(box: Annotation, width: int, height: int) -> bool:
    left, top, right, bottom = box.bbox
    return 0 <= left < right <= width * _OVER and 0 <= top < bottom <= height * _OVER


def _refused(problem: str, box: Annotation, remedy: str) -> DataError:
    values = ", ".join(f"{value:g}" for value in box.bbox)
    return DataError(f"{problem}, such as {values}", where=box.source, expected=_EXPECTED, remedy=remedy)
