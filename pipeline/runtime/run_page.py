"""The page of a run beside its deliverables: what each step came to, with links to notebooks, reports and files.

All links are relative and the notebooks' pages are copied beside it, so that the folder can be sent as a whole.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pipeline.files import write_atomically
from pipeline.runtime.manifest import RunManifest, StepRecord, notebook_key
from pipeline.runtime.run_summary import gate_outcome, leading_metric, main_metrics, metric_text, run_state
from pipeline.runtime.store.artifact_store import Store, StoredFile

INDEX = "index.html"
NOTEBOOKS = "notebooks"
TEMPLATE = Path(__file__).with_name("run_page.html.j2")
SHOWN = 30  # files of an artifact

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepEntry:
    """A step on the page; `attempt` is None if it has not run, and `notebook` is empty if it has no page."""

    name: str
    attempt: StepRecord | None
    notebook: str

    @property
    def duration(self) -> str:
        """`41.0 s` or `12 min 5 s`; empty where it is unknown or another attempt's work was reused."""
        seconds = self.attempt.seconds if self.attempt and not self.attempt.reused_from else 0.0
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s" if seconds else ""

    @property
    def main_metrics(self) -> list[str]:
        """Its first two metrics."""
        return main_metrics(self.attempt) if self.attempt else []


@dataclass(frozen=True)
class DeliveredFolder:
    """A delivered artifact: its pages and its other files at the top, and how much it holds in all."""

    name: str
    pages: tuple[StoredFile, ...]
    others: tuple[StoredFile, ...]
    files: int
    size: int

    @classmethod
    def of(cls, name: str, files: Sequence[StoredFile]) -> DeliveredFolder:
        """An artifact with these files."""
        top = [file for file in files if "/" not in file.path]
        pages = [file for file in top if file.path.endswith(".html")]
        others = [file for file in top if file not in pages]
        return cls(name, tuple(pages), tuple(others[:SHOWN]), len(files), sum(file.size for file in files))


def write_page(
    folder: Path, store: Store, manifest: RunManifest, steps: Sequence[str], delivered: Mapping[str, list[StoredFile]]
) -> Path:
    """Write the page of a run, and copies of its notebooks' pages.

    Args:
        folder: The folder in which the artifacts are laid out, each under its entity's name.
        store: Holds the notebooks' pages.
        manifest: The run.
        steps: All steps, in their order.
        delivered: The files of each artifact that is laid out, by entity name.

    Returns:
        The page.
    """
    from jinja2 import Environment, StrictUndefined  # slow to import

    remove_page(folder)
    notebooks = _copy_notebooks(folder, store, manifest, steps)
    entries = [StepEntry(name, (manifest.of(name) or (None,))[-1], notebooks.get(name, "")) for name in steps]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"metric": metric_text, "link": quote, "size": _size}
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=manifest,
        state=run_state(manifest, steps),
        gate=gate_outcome(manifest, steps),
        leading=leading_metric(manifest, steps[-1]),
        opened=f"{manifest.created[:10]} {manifest.created[11:16]} UTC",
        steps=entries,
        delivered=[DeliveredFolder.of(*each) for each in delivered.items()],
    )
    write_atomically(folder / INDEX, page)
    return folder / INDEX


def remove_page(folder: Path) -> None:
    """Remove the page of a run, whose deliverables are about to change."""
    (folder / INDEX).unlink(missing_ok=True)
    shutil.rmtree(folder / NOTEBOOKS, ignore_errors=True)


def _copy_notebooks(folder: Path, store: Store, manifest: RunManifest, steps: Sequence[str]) -> dict[str, str]:
    """Copy the page of each step's newest notebook; the links to them, by step."""
    newest = [attempts[-1] for step in steps if (attempts := manifest.of(step)) and attempts[-1].report]
    (folder / NOTEBOOKS).mkdir(parents=True, exist_ok=True)

    def copy(record: StepRecord) -> bool:
        try:
            content = store.files.read(notebook_key(manifest.origin(record), "html"))
        except FileNotFoundError:  # the run whose work was reused is gone
            log.warning("the page of the notebook of %s is no longer in the store", record.step)
            return False
        (folder / NOTEBOOKS / f"{record.step}.html").write_bytes(content)
        return True

    copied = store.files.each(copy, newest, "reading notebooks")
    return {
        record.step: f"{NOTEBOOKS}/{record.step}.html"
        for record, is_there in zip(newest, copied, strict=True)
        if is_there
    }


def _size(size: int) -> str:
    """Bytes as `3 kB` or `1.5 MB`."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{max(size / 1e3, 0.1):.1f} kB"
