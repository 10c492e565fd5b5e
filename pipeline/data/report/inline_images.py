"""Images drawn once, and shown with the same bytes in a notebook and on a page."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass, field
from html import escape

from pipeline.data.figures import Chart


@dataclass(frozen=True)
class InlineImage:
    """A PNG or JPEG file with a text, or a text alone where there is no image.

    Attributes:
        alt: What the image shows, for those who cannot see it.
        data: The file; empty where there is no image.
        width: Pixels.
        height: Pixels.
        caption: A line below it.
    """

    alt: str
    data: bytes = field(default=b"", repr=False)
    width: int = 0
    height: int = 0
    caption: str = ""

    @property
    def url(self) -> str:
        """The file as a data URL."""
        kind = "png" if self.data.startswith(b"\x89PNG") else "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True)
class FigureList:
    """Charts, one below the other; a notebook shows a single one as a PNG, which it can export."""

    images: tuple[InlineImage, ...]

    def _repr_png_(self) -> bytes | None:
        return self.images[0].data if len(self.images) == 1 else None

    def _repr_html_(self) -> str | None:
        return None if len(self.images) == 1 else self.__html__()

    def __html__(self) -> str:
        return "".join(
            f'<figure class="chart" style="margin:0 0 1em"><img src="{each.url}" width="{each.width}" '
            f'height="{each.height}" alt="{escape(each.alt)}" style="max-width:100%;height:auto"></figure>'
            for each in self.images
        )


@dataclass(frozen=True)
class GalleryRow:
    """Images side by side under a heading."""

    heading: str
    images: tuple[InlineImage, ...] = field(repr=False)


@dataclass(frozen=True)
class Gallery:
    """Rows of small images; a sentence where there are none."""

    rows: tuple[GalleryRow, ...]
    nothing: str = "There is nothing to show."

    def _repr_html_(self) -> str:
        return "".join(map(_row, self.rows)) or f"<p>{escape(self.nothing)}</p>"

    def __html__(self) -> str:
        return self._repr_html_()


@dataclass(frozen=True)
class Sections:
    """FigureList under headings."""

    parts: tuple[tuple[str, FigureList | Gallery], ...] = field(repr=False)

    def _repr_html_(self) -> str:
        style = "margin:1.2em 0 .4em;font-size:1.2em"
        return "".join(f'<h2 style="{style}">{escape(name)}</h2>{each.__html__()}' for name, each in self.parts)


def draw(*charts: Chart) -> FigureList:
    """Draw charts, each once; their titles become the alternative texts."""
    return FigureList(tuple(map(_drawn, charts)))


def _drawn(chart: Chart) -> InlineImage:
    data = chart.to_png()
    titles = [chart.get_suptitle()] + [axes.get_title(loc="left") or axes.get_title() for axes in chart.axes]
    width, height = struct.unpack(">II", data[16:24])  # PNG's first chunk, IHDR
    return InlineImage("; ".join(filter(None, titles)), data, width, height)


def _row(row: GalleryRow) -> str:
    heading = f'<h3 style="margin:.8em 0 .3em;font-size:1em">{escape(row.heading)}</h3>' if row.heading else ""
    style = "display:flex;flex-wrap:wrap;gap:.6em;align-items:flex-start"
    return f'<section class="row">{heading}<div style="{style}">{"".join(map(_tile, row.images))}</div></section>'


def _tile(image: InlineImage) -> str:
    """An image above its caption; a box with text where there is no image."""
    caption = f'<figcaption style="font-size:.8em">{escape(image.caption)}</figcaption>' if image.caption else ""
    width = max(image.width, 150)
    style = f"margin:0;width:{width}px;max-width:100%;overflow-wrap:anywhere"
    if image.data:
        shown = (
            f'<img src="{image.url}" width="{image.width}" height="{image.height}" alt="{escape(image.alt)}" '
            'style="max-width:100%;height:auto">'
        )
    else:
        pane = "background:#eee;color:#555;padding:2.5em .8em;text-align:center;font-size:.85em"
        shown = f'<div style="{pane}">{escape(image.alt)}</div>'
    return f'<figure style="{style}">{shown}{caption}</figure>'
