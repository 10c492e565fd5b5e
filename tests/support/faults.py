"""A data set of real images with exactly one planted fault of each kind, and what a finding must say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from pictures import exif_of
from pycocotools import mask

from pipeline.data.coco import Annotation, Box, Category, CocoDataset, Image

WIDTH, HEIGHT = 96, 80
CAT, DOG = 1, 2
BOX: Box = (10.0, 12.0, 40.0, 30.0)
ELSEWHERE: Box = (55.0, 45.0, 30.0, 25.0)
OUTLINE = [[10.0, 12.0, 50.0, 12.0, 50.0, 42.0, 10.0, 42.0]]
RUNS = {"size": [HEIGHT, WIDTH], "counts": [812, 30, HEIGHT * WIDTH - 842]}
RUNS_AS_TEXT = {"size": [HEIGHT, WIDTH], "counts": mask.frPyObjects(RUNS, HEIGHT, WIDTH)["counts"].decode()}


@dataclass
class Draft:
    """A sound data set of six images, cats and dogs, to plant faults in; `images_folder` is its folder."""

    images_folder: Path
    images: list[Image] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    categories: list[Category] = field(default_factory=lambda: [Category(CAT, "cat"), Category(DOG, "dog")])

    def __post_init__(self) -> None:
        self.images_folder.mkdir(parents=True)
        masks = (OUTLINE, RUNS, RUNS_AS_TEXT, [], None, None)
        for number, segmentation in enumerate(masks):
            image = self.image(f"sound{number}.png", box=None)
            self.box(image, category=1 + number % 2, segmentation=segmentation)

    @property
    def dataset(self) -> CocoDataset:
        return CocoDataset(tuple(self.images), tuple(self.annotations), tuple(self.categories))

    def image(self, name: str, *, box: Box | None = BOX) -> Image:
        """A new image unlike the others, with one cat in it unless told otherwise."""
        image = Image(len(self.images) + 1, name, WIDTH, HEIGHT)
        write_image(self.images_folder / name, seed=image.id)
        self.images.append(image)
        if box:
            self.box(image, box)
        return image

    def box(self, image: Image, box: Box = BOX, category: int = CAT, **fields: Any) -> Annotation:
        """A new annotation."""
        new = Annotation(len(self.annotations) + 1, image.id, category, box, box[2] * box[3])
        self.annotations.append(replace(new, **fields))
        return self.annotations[-1]


def write_image(path: Path, seed: int) -> None:
    """Blotches of colour with some noise over them: two seeds look nothing alike, in the large and in the small."""
    rng = np.random.default_rng(seed)
    blotches = cv2.resize(rng.uniform(0, 255, (7, 8, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    pixels = np.clip(blotches + rng.normal(0, 6, blotches.shape), 0, 255).astype(np.uint8)
    if not cv2.imwrite(str(path), pixels):
        raise OSError(path)


def image_item(image: Image) -> str:
    return f"image {image.id} ({image.file_name})"


def annotation_item(annotation: Annotation) -> str:
    return f"annotation {annotation.id} in image {annotation.image_id}"


def plant(draft: Draft, rules: Iterable[str]) -> list[tuple[str, str]]:
    """Plant these rules' faults; the rule and item that are then to be found of each, in no order."""
    return [(rule, FAULTS[rule](draft)) for rule in rules]


def _duplicate_category_id(draft: Draft) -> str:
    draft.categories.append(Category(CAT, "cow"))
    return f"category {CAT} (cow)"


def _duplicate_image_id(draft: Draft) -> str:
    image = replace(draft.image("then.png", box=None), id=draft.images[0].id)
    draft.images[-1] = image
    return image_item(image)


def _duplicate_image_file(draft: Draft) -> str:
    image = replace(draft.image("twice.png"), id=900)
    draft.images.append(image)
    draft.box(image, ELSEWHERE)
    return image_item(image)


def _category(name: str, *images: str) -> Callable[[Draft], str]:
    """A category of an object in each of these images."""

    def fault(draft: Draft) -> str:
        draft.categories.append(Category(60 + len(draft.categories), name))
        for image in images:
            draft.box(draft.image(image), ELSEWHERE, category=draft.categories[-1].id)
        return f"category {draft.categories[-1].id} ({name})"

    return fault


def _broken(name: str, change: Callable[[bytes], bytes] | None) -> Callable[[Draft], str]:
    """A image whose bytes are changed; None: whose file is taken away."""

    def fault(draft: Draft) -> str:
        image = draft.image(name)
        path = draft.images_folder / name
        if change is None:
            path.unlink()
        else:
            path.write_bytes(change(path.read_bytes()))
        return image_item(image)

    return fault


def _damaged(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(64) + data[middle + 64 :]


def _exif(draft: Draft) -> str:
    image = draft.image("tilted.png")
    with PIL.Image.open(draft.images_folder / image.file_name) as opened:
        opened.save(draft.images_folder / image.file_name, exif=exif_of(6))
    return image_item(image)


def _sized(name: str, box: Box, **size: int) -> Callable[[Draft], str]:
    """An image of which the data set says another size."""

    def fault(draft: Draft) -> str:
        draft.images[-1] = replace(draft.image(name, box=box), **size)
        return image_item(draft.images[-1])

    return fault


def _exact_duplicate(draft: Draft) -> str:
    image, copy = draft.image("first.png"), draft.image("first_again.png", box=ELSEWHERE)
    (draft.images_folder / copy.file_name).write_bytes((draft.images_folder / image.file_name).read_bytes())
    return image_item(copy)


def _near_duplicate(draft: Draft) -> str:
    image, copy = draft.image("look.png"), draft.image("look_again.png")
    pixels = cv2.imread(str(draft.images_folder / image.file_name))
    cv2.imwrite(str(draft.images_folder / copy.file_name), np.clip(pixels.astype(int) + 3, 0, 255).astype(np.uint8))
    return image_item(copy)


def _odd(box: Box, **fields: Any) -> Callable[[Draft], str]:
    """A box beside a sound one."""
    return lambda draft: annotation_item(draft.box(draft.image(f"odd{len(draft.images)}.png"), box, **fields))


FAULTS: dict[str, Callable[[Draft], str]] = {
    "duplicate-category-id": _duplicate_category_id,
    "duplicate-category-name": _category("cat", "cats.png"),
    "similar-category-names": _category("D og", "dogs0.png", "dogs1.png", "dogs2.png"),
    "duplicate-image-id": _duplicate_image_id,
    "duplicate-image-file": _duplicate_image_file,
    "duplicate-annotation-id": _odd(ELSEWHERE, id=1),
    "annotation-id-below-one": _odd(ELSEWHERE, id=0),
    "unknown-image": lambda draft: annotation_item(draft.box(Image(999, "", 1, 1))),
    "unknown-category": _odd(ELSEWHERE, category=999),
    "missing-image": _broken("gone.png", None),
    "empty-image-file": _broken("empty.png", lambda data: b""),
    "truncated-image": _broken("cut.jpg", lambda data: data[: len(data) // 2]),
    "corrupt-image": _broken("damaged.png", _damaged),
    "undecodable-image": _broken("text.png", lambda data: b"hello"),
    "refused-image": _broken("wide.png", lambda data: data[:16] + b"\0\0\x99\0" * 2 + data[24:]),
    "exif-orientation": _exif,
    "wrong-image-size": _sized("resized.png", (5.0, 6.0, 20.0, 15.0), width=WIDTH // 2, height=HEIGHT // 2),
    "unrelated-image-size": _sized("swapped.png", BOX, width=HEIGHT, height=WIDTH),
    "exact-duplicate-image": _exact_duplicate,
    "box-not-finite": _odd((5.0, 5.0, float("nan"), 9.0), area=9.0),
    "negative-box-side": _odd((85.0, 70.0, -30.0, -25.0)),
    "box-without-area": _odd((55.0, 45.0, 0.0, 25.0)),
    "box-outside-image": _odd((WIDTH + 1.0, 5.0, 20.0, 20.0)),
    "box-partly-outside": _odd((-5.0, 45.0, 30.0, 25.0)),
    "tiny-box": _odd((55.0, 45.0, 0.5, 25.0)),
    "covering-box": _odd((0.0, 0.0, WIDTH - 0.5, HEIGHT - 0.5)),
    "duplicate-box": _odd(BOX),
    "box-of-two-categories": _odd(BOX, category=DOG),
    "overlapping-boxes": _odd((11.0, 12.0, 40.0, 30.0)),
    "wrong-area": _odd(ELSEWHERE, area=0.0),
    "malformed-segmentation": _odd(ELSEWHERE, segmentation=[[55.0, 45.0, 60.0]]),
    "segmentation-outside-image": _odd(ELSEWHERE, segmentation=[[55.0, 45.0, 85.0, 45.0, 85.0, 700.0]]),
    "near-duplicate-image": _near_duplicate,
    "rare-category": _category("bird", "bird0.png", "bird1.png"),
    "unused-category": _category("ghost"),
    "image-without-box": lambda draft: image_item(draft.image("nothing.png", box=None)),
}
