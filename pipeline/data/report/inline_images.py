"""Images drawn once, and shown with the same bytes in a notebook and on a page."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from pipeline.data.figures import Chart


@dataclass(frozen=True)
class InlineImage:
    """A PNG or JPEG file with a text, or a text alone where there is no image."""

    alt: str  # what the image shows, for those who cannot see it
    data: bytes = field(default=b"", repr=False)
    width: int = 0  # pixels
    height: int = 0
    caption: str = ""  # a line below it

    def __html__(self) -> str:
        if not self.data:
            pane = "background:#eee;color:#555;padding:2.5em .8em;text-align:center;font-size:.85em"
            return f'<div style="{pane}">{escape(self.alt)}</div>'
        kind = "png" if self.data.startswith(b"\x89PNG") else "jpeg"
        url = f"data:image/{kind};base64,{base64.b64encode(self.data).decode('ascii')}"
        size = f'width="{self.width}" height="{self.height}"'
        return f'<img src="{url}" {size} alt="{escape(self.alt)}" style="max-width:100%;height:auto">'


@dataclass(frozen=True)
class FigureList:
    """Charts, one below the other."""

    images: tuple[InlineImage, ...]

    def __html__(self) -> str:
        figure = '<figure class="chart" style="margin:0 0 1em">{}</figure>'
        return "".join(figure.format(each.__html__()) for each in self.images)

    _repr_html_ = __html__


@dataclass(frozen=True)
class Gallery:
    """Rows of small images by their headings; a sentence where there are none."""

    rows: Mapping[str, Sequence[InlineImage]] = field(repr=False)
    nothing: str = "There is nothing to show."

    def __html__(self) -> str:
        return "".join(_row(*row) for row in self.rows.items()) or f"<p>{escape(self.nothing)}</p>"

    _repr_html_ = __html__


@dataclass(frozen=True)
class Sections:
    """Charts and galleries under headings."""

    parts: Mapping[str, FigureList | Gallery] = field(repr=False)

    def _repr_html_(self) -> str:
        style = "margin:1.2em 0 .4em;font-size:1.2em"
        return "".join(f'<h2 style="{style}">{escape(name)}</h2>{each.__html__()}' for name, each in self.parts.items())


def draw(*charts: Chart) -> FigureList:
    """Draw charts, each once; their titles become the alternative texts."""
    images = []
    for chart in charts:
        data = chart.to_png()
        titles = [chart.get_suptitle()] + [axes.get_title(loc="left") or axes.get_title() for axes in chart.axes]
        width, height = struct.unpack(">II", data[16:24])  # PNG's first chunk, IHDR
        images.append(InlineImage("; ".join(filter(None, titles)), data, width, height))
    return FigureList(tuple(images))


def _row(heading: str, images: Sequence[InlineImage]) -> str:
    title = f'<h3 style="margin:.8em 0 .3em;font-size:1em">{escape(heading)}</h3>' if heading else ""
    tiles = []
    for each in images:
        style = f"margin:0;width:{max(each.width, 150)}px;max-width:100%;overflow-wrap:anywhere"
        caption = f'<figcaption style="font-size:.8em">{escape(each.caption)}</figcaption>' if each.caption else ""
        tiles.append(f'<figure style="{style}">{each.__html__()}{caption}</figure>')
    style = "display:flex;flex-wrap:wrap;gap:.6em;align-items:flex-start"
    return f'<section class="row">{title}<div style="{style}">{"".join(tiles)}</div></section>'
