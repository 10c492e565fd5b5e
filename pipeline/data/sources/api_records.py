"""Records of images from an API: where an image is, and what is in it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.coco import Box
from pipeline.data.parsed import ParsedBox
from pipeline.data.sources.api_settings import ApiSettings
from pipeline.data.sources.json_paths import ABSENT, find, kind, need
from pipeline.data.sources.loaded_source import Skipped
from pipeline.data.subset_names import subset_named
from pipeline.errors import DataError

_SHORTEST_IMAGE = 48  # characters: the smallest GIF takes as many
_OWN_FIELDS = frozenset({"id", "file_name", "width", "height", "subset"})  # that COCO and the split write themselves


@dataclass(frozen=True)
class ApiRecord:
    """An image of an API, not fetched yet.

    Attributes:
        where: Its place in the source, for messages.
        url: Its URL; empty if `data` holds its bytes.
        data: Its bytes.
        name: The file name that the source gives it; empty if it gives none.
        hint: The URL or path to take a name from if it has none; empty for `url`.
        size: Declared width and height in pixels; zeros if they are not declared.
        boxes: The objects in it.
        in_pixels: Whether boxes are in pixels; otherwise in fractions of the image's size.
        subset: `train`, `eval` or `test`; empty if the source does not say.
        extra: Other fields to keep.
        left_out: Shapes on it that could not be taken.
        annotated: Whether the source says what is in the image, if only that nothing is.
    """

    where: str
    url: str = ""
    data: bytes = b""
    name: str = ""
    hint: str = ""
    size: tuple[int, int] = (0, 0)
    boxes: tuple[ParsedBox, ...] = ()
    in_pixels: bool = True
    subset: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[Skipped, ...] = ()
    annotated: bool = True


def read_record(item: Any, settings: ApiSettings, *, where: str) -> ApiRecord:
    """Read an item of a page as the settings say. Its URL stays as it is, relative or not.

    Raises:
        DataError: A path leads nowhere, or to a value of the wrong kind; names item and path.
    """
    reference = need(item, settings.image, setting="image", where=where)
    if reference is not None and not isinstance(reference, str):
        raise _wrong_path("image", kind(reference), where, "a URL, or base64 data")
    url, data = _reference(reference or "", where)
    left_out: list[Skipped] = []
    boxes = [_box(each, settings, place, left_out) for place, each in _boxes(item, settings, where)]
    return ApiRecord(
        where,
        url,
        data,
        name=_name(item, settings, where),
        size=_size(item, settings, where),
        boxes=tuple(each for each in boxes if each),
        in_pixels=settings.units == "pixels",
        subset=subset_named(str(find(item, settings.subset))) if settings.subset else "",
        extra=read_extra(item, settings),
        left_out=tuple(left_out),
        annotated=not settings.boxes or find(item, settings.boxes) not in (ABSENT, None),
    )


def read_extra(value: Any, settings: ApiSettings) -> dict[str, Any]:
    """The fields to keep of an item, by their paths; those named like COCO's own fields as `source_…`."""
    there = {path: found for path in settings.metadata_paths if (found := find(value, path)) is not ABSENT}
    return {f"source_{path}" if path in _OWN_FIELDS else path: found for path, found in there.items()}


def as_number(value: Any) -> float | None:
    """A number, or a text that is one; otherwise None. NaN and infinity pass: validation finds them."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _wrong_path(setting: str, found: str, where: str, expected: str) -> DataError:
    remedy = f"set api.{setting} to the right path, or correct the item"
    return DataError(f"api.{setting} leads to {found}", where=where, expected=expected, remedy=remedy)


def _reference(reference: str, where: str) -> tuple[str, bytes]:
    """A URL, or the bytes of a `data:` URL or of bare base64."""
    text = reference.strip()
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise DataError("the image's data URL is not in base64", where=where, remedy="encode it in base64")
    elif not _bare_base64(text):
        return text, b""
    try:
        return "", base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error:
        raise DataError("the image's base64 data is broken", where=where) from None


def _bare_base64(text: str) -> bool:
    """Whether a text is the start of a JPEG, PNG, GIF, WebP or TIFF in base64, which no URL looks like."""
    return len(text) >= _SHORTEST_IMAGE and text.startswith(
        ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkqA", "TU0AK")
    )


def _name(item: Any, settings: ApiSettings, where: str) -> str:
    if not settings.name:
        return ""
    name = need(item, settings.name, setting="name", where=where)
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        raise _wrong_path("name", kind(name), where, "a file name")
    return str(name)


def _size(item: Any, settings: ApiSettings, where: str) -> tuple[int, int]:
    """The declared size, or zeros if one of the two is not given."""
    sides = []
    for setting, path in (("width", settings.width), ("height", settings.height)):
        value = need(item, path, setting=setting, where=where) if path else None
        number = as_number(value)
        if value is not None and (number is None or not number.is_integer() or number < 1):
            raise _wrong_path(setting, "no size in pixels", where, "a whole number from 1")
        sides.append(int(number or 0))
    return (sides[0], sides[1]) if all(sides) else (0, 0)


def _boxes(item: Any, settings: ApiSettings, where: str) -> list[tuple[str, Any]]:
    """The boxes of an item with their places; none if the path leads nowhere, which the caller counts."""
    if not settings.boxes:
        return []
    found = find(item, settings.boxes)
    if found is ABSENT or found is None:
        return []
    if isinstance(found, dict):
        return [(where, found)]
    if not isinstance(found, list):
        raise _wrong_path("boxes", kind(found), where, "a list of boxes")
    return [(f"{where}, box {index}", each) for index, each in enumerate(found)]


def _box(box: Any, settings: ApiSettings, where: str, left_out: list[Skipped]) -> ParsedBox | None:
    label = need(box, settings.label, setting="label", where=where)
    values = [need(box, path, setting="box", where=where) for path in settings.box_paths]
    if len(values) == 1:
        if isinstance(values[0], list) and len(values[0]) == 4:
            values = values[0]
        elif values[0] is not None:
            raise _wrong_path("box", kind(values[0]), where, "a list of four numbers")
    if settings.boxes == "." and label in (None, "") and all(each is None for each in values):
        return None  # an item that is a box, and has none: there is nothing in its image
    if label in (None, "") or None in values:
        left_out.append(Skipped(where, f"it has no {'label' if label in (None, '') else 'place'}"))
        return None
    if not isinstance(label, str | int) or isinstance(label, bool):
        raise _wrong_path("label", kind(label), where, "the class's name")
    numbers = [as_number(each) for each in values]
    if None in numbers:
        raise _wrong_path("box", "a value that is no number", where, "four numbers")
    scale = {"pixels": 1.0, "fraction": 1.0, "percent": 0.01}[settings.units]
    corners = _as_xywh([scale * number for number in numbers if number is not None], settings.box_format)
    return ParsedBox(str(label), corners)


def _as_xywh(numbers: list[float], box_format: str) -> Box:
    a, b, c, d = numbers
    if box_format == "xyxy":
        return (a, b, c - a, d - b)
    if box_format == "cxcywh":
        return (a - c / 2, b - d / 2, c, d)
    return (a, b, c, d)
