"""Which file names are those of the images of COCO train2017, from which the public weights for COCO learned.

COCO names an image by its id: `000000000139.jpg` since 2017, `COCO_val2014_000000000139.jpg` before. Train2017 is
train2014 and val2014 without the 5,000 images of val2017. The ids of these are facts from the list of files of
`val2017.zip` (COCO Consortium, https://cocodataset.org; its annotations are CC BY 4.0); the list in `coco_val2017.txt`
was taken from two independent public copies, which are equal.

COCO's test and unlabeled sets since 2017 have names of the same form. They were published without annotations, so an
image of a test set is hardly one of theirs.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from pathlib import PurePosixPath

_LARGEST_ID = 581_929  # of all of COCO; twelve digits above it are another's name, a time of day for instance
_NAME = re.compile(r"(?:COCO_(?:train|val)2014_)?(\d{12})\.jpe?g", re.IGNORECASE)


@cache
def val2017_ids() -> frozenset[int]:
    """The ids of the 5,000 images of COCO val2017."""
    text = resources.files(__package__).joinpath("coco_val2017.txt").read_text("utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return frozenset(int(word) for line in lines for word in line.split())


def is_named_like_train2017(file_name: str) -> bool:
    """Whether a file is named like an image of COCO train2017.

    Args:
        file_name: Of the image, with or without folders.
    """
    found = _NAME.fullmatch(PurePosixPath(file_name).name)
    if found is None:
        return False
    image_id = int(found[1])
    return 0 < image_id <= _LARGEST_ID and image_id not in val2017_ids()
