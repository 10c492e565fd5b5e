"""The base of all figures: palette, charts without pyplot, and images with labelled boxes drawn on them.

Pixels are `(height, width, 3)` uint8 BGR.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline.data.fonts import FONT, ShapedFont, add_families, find_fonts, needs_shaping
from pipeline.errors import DataError, MissingError

Pixels = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.floating]

# Okabe and Ito, Color Universal Design (2008), distinct with any kind of colour vision:
# blue, orange, green, pink, sky, vermilion, yellow, black
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")

_LABEL = 12  # pixels


class Chart(Figure):
    """A figure in inches that a notebook shows, without pyplot, whose state other cells could change.

    Texts are drawn in any script, and as they are: what is between dollars is no formula.
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), layout="constrained", facecolor="white")
        FigureCanvasAgg(self)

    def draw(self, renderer: RendererBase) -> None:
        """Draw all texts with fonts that have their letters."""
        texts = [each for each in self.findobj(Text) if isinstance(each, Text)]
        families = add_families(find_fonts("".join(each.get_text() for each in texts))[1:])
        for each in texts:
            each.set_parse_math(False)
            if families:
                each.set_fontfamily(list(dict.fromkeys([*each.get_fontfamily(), *families])))
        super().draw(renderer)

    def to_png(self, dpi: float = 100) -> bytes:
        """The figure as a PNG file."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()

    _repr_png_ = to_png


def read_pixels(path: Path) -> Pixels:
    """Decode an image file, turned upright as EXIF says; an error if it is missing or broken."""
    return _decode(path, cv2.IMREAD_COLOR)


def read_shades(path: Path) -> Pixels:
    """Decode an image file to shades of grey `(height, width)`, at an eighth of its size, which is fast for JPEG."""
    return _decode(path, cv2.IMREAD_REDUCED_GRAYSCALE_8)


def _decode(path: Path, flags: int) -> Pixels:
    try:
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
    except FileNotFoundError as error:
        raise MissingError("an image of the dataset is missing", where=path) from error
    except cv2.error:  # an empty file
        pixels = None
    if pixels is None:
        raise DataError("an image of the dataset cannot be decoded", where=path)
    return pixels.astype(np.uint8, copy=False)


def scale(pixels: Pixels, zoom: float) -> Pixels:
    """Resize an image by a factor, to at least one pixel a side."""
    size = max(round(pixels.shape[1] * zoom), 1), max(round(pixels.shape[0] * zoom), 1)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC).astype(np.uint8)


def outline(pixels: Pixels, box: Boxes, colour: str, thickness: int) -> None:
    """Draw the edge of a box `(x, y, width, height)` into the image, unless it is not finite."""
    if not np.isfinite(box).all():
        return
    height, width = pixels.shape[:2]
    corners = np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]])
    left, top, right, bottom = np.clip(corners, -20, [width + 20, height + 20] * 2).round().astype(int).tolist()
    cv2.rectangle(pixels, (left, top), (right, bottom), sv.Color.from_hex(colour).as_bgr(), thickness)


def draw_labelled(
    pixels: Pixels,
    boxes: Boxes,
    colours: Sequence[str],
    texts: Sequence[str | None],
    *,
    label: int = _LABEL,
    thickness: int = 2,
) -> Pixels:
    """Draw boxes `(N, 4)` and their labels, later ones on top, on a copy of an image; None stands for no label.

    `label` is the height of the letters, and `thickness` that of the edges, in pixels.
    """
    drawn = pixels.copy()
    for box, colour in zip(boxes, colours, strict=True):
        outline(drawn, box, colour, thickness)
    rows = [row for row, text in enumerate(texts) if text is not None]
    if not rows:
        return drawn
    palette = sorted(set(colours))
    detections = sv.Detections(
        xyxy=np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])[rows].astype(np.float32),
        class_id=np.array([palette.index(colours[row]) for row in rows]),
    )
    annotator = sv.RichLabelAnnotator(
        sv.ColorPalette.from_hex(palette),
        text_color=sv.ColorPalette.from_hex([_readable_on(colour) for colour in palette]),
        font_path=FONT,
        font_size=label,
        text_padding=thickness,
        smart_position=True,
    )
    if any(needs_shaping(texts[row] or "") for row in rows):
        annotator.font = ShapedFont(label)
    return np.asarray(annotator.annotate(drawn, detections, [texts[row] for row in rows]), np.uint8)


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """The image as a JPEG file."""
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _readable_on(colour: str) -> str:
    """Black or white, whichever stands out from a colour (luma of ITU-R BT.601)."""
    luma = sum(weight * int(colour[i : i + 2], 16) for weight, i in ((0.299, 1), (0.587, 3), (0.114, 5)))
    return "#000000" if luma > 100 else "#FFFFFF"
