"""Make the pictures of the README from a finished demo run.

    make demo
    .venv/bin/python docs/make_images.py

The screenshots need Chromium or Chrome on the PATH.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
REPORTS = {"data_report": "data_report", "quality_report": "model_quality_report"}
WINDOW = (1000, 1100)  # pixels of a page that are shown
COLOURS = 96  # of a palette: what keeps the files small
STEPS = (
    ("data_load", "folder, archive, video,\ndatabase or API", "images,\nannotations,\nweights"),
    ("data_prep", "validate, repair,\nsplit, show", "train, eval,\ntest sets,\ndata report"),
    ("model_train", "fine-tune YOLOX,\nkeep the best epoch", "checkpoints,\ntest image"),
    ("model_pack", "ONNX, parity check,\nBentoML service", "packed\nservice"),
    ("model_eval", "test through the\nREST API, gate", "predictions,\nquality report"),
)


def draw_pipeline(target: Path) -> None:
    """The five steps from left to right, with what each does above and what it publishes below."""
    figure = Figure(figsize=(11, 2.6), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 11), ylim=(0, 2.6))
    axes.axis("off")
    for i, (name, does, writes) in enumerate(STEPS):
        left = 0.15 + i * 2.19
        box = FancyBboxPatch(
            (left, 1.45), 1.85, 1.0, boxstyle="round,pad=0.02,rounding_size=0.08", fc="#e8f0fa", ec="#2c5c9c"
        )
        axes.add_patch(box)
        axes.text(left + 0.925, 2.22, name, ha="center", va="center", family="monospace", weight="bold", size=11)
        axes.text(left + 0.925, 1.80, does, ha="center", va="center", size=9)
        axes.text(left + 0.925, 0.72, writes, ha="center", va="center", size=9, color="#444444")
        axes.annotate(
            "", (left + 0.925, 1.08), (left + 0.925, 1.42), arrowprops={"arrowstyle": "->", "color": "#777777"}
        )
        if i < len(STEPS) - 1:
            axes.annotate(
                "",
                (left + 2.17, 1.95),
                (left + 1.88, 1.95),
                arrowprops={"arrowstyle": "->", "color": "#2c5c9c", "lw": 2},
            )
    axes.text(
        5.5,
        0.14,
        "one run manifest records every artifact, and what it was made from",
        ha="center",
        size=9,
        style="italic",
    )
    figure.savefig(target)


def take_screenshot(page: Path, target: Path) -> None:
    """The top of an HTML page as a picture.

    Raises:
        SystemExit: There is no browser, or no page.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None or not page.is_file():
        sys.exit(f"{page} or a Chromium browser is missing: run `make demo`, install chromium")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", size, f"--screenshot={shot}"]
        subprocess.run([browser, *options, page.as_uri()], check=True, capture_output=True)
        with Image.open(shot) as image:
            image.convert("RGB").resize((WINDOW[0] * 3 // 5, WINDOW[1] * 3 // 5), Image.Resampling.LANCZOS).save(target)


def shrink(target: Path) -> None:
    """Reduce a picture to a palette."""
    with Image.open(target) as image:
        reduced = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    reduced.save(target, optimize=True)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    draw_pipeline(IMAGES / "pipeline.png")
    shrink(IMAGES / "pipeline.png")
    for name, report in REPORTS.items():
        take_screenshot(ROOT / "out" / "dev" / "demo" / report / "report.html", IMAGES / f"{name}.png")
        shrink(IMAGES / f"{name}.png")
