"""From what a format's reader found to a COCO dataset: the images are told, measured, and put in a subset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.image_pairing import Reference, pair
from pipeline.data.parsed import NO_SIZE, ParsedImage, to_coco


@dataclass(frozen=True, slots=True)
class Record:
    """What an annotation file says of an image.

    The image's name and size are set by `assemble`, its size only where none is declared in `reference`.
    """

    reference: Reference
    image: ParsedImage
    in_fractions: bool = False  # whether the boxes are fractions of the image's size


def assemble(
    records: Iterable[Record],
    files: AnnotationFiles,
    images: ImageIndex,
    classes: Sequence[str] = (),
    *,
    subsets: Mapping[str, str] = {},
    listed: Iterable[str] = (),
) -> CocoDataset:
    """Tell the image of each record, and build the dataset; see `to_coco` for `classes`.

    An image without a subset of its own has that of `subsets`, of its annotation file's folder or name, or of its own
    folder. Images that are only `listed` are not annotated.
    """
    found = list(records)
    names = pair([each.reference for each in found], images, files.faults, pair_by=files.pair_by)
    parsed = [_image(each, name, images, subsets) for each, name in zip(found, names, strict=True)]
    only_listed = set(listed).difference(names)
    parsed += [_listed(name, images, subsets) for name in only_listed]
    return to_coco(parsed, classes)


def _listed(name: str, images: ImageIndex, subsets: Mapping[str, str]) -> ParsedImage:
    subset = subsets.get(name) or images.subset_of(name.rpartition("/")[0])
    return ParsedImage(name, *images.size(name), subset=subset, annotated=False)


def _image(record: Record, name: str, images: ImageIndex, subsets: Mapping[str, str]) -> ParsedImage:
    image, reference = record.image, record.reference
    size = reference.size if all(reference.size) else images.size(name)
    boxes, left_out = image.boxes, image.left_out
    if record.in_fractions and boxes:
        if all(size):
            boxes = [each.scaled(*size) for each in boxes]
        else:
            boxes, left_out = (), {**left_out, NO_SIZE: len(boxes)}
    by_file = reference.file.rpartition("/")[0] if reference.own else reference.file
    subset = image.subset or subsets.get(name) or images.subset_of(by_file) or images.subset_of(name.rpartition("/")[0])
    return replace(image, name=name, width=size[0], height=size[1], boxes=boxes, left_out=left_out, subset=subset)
