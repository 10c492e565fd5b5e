"""The page of a run: what it tells, what it links, and how it looks in a browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from playwright.sync_api import Page
from records import artifact, attempt, failed, reused, run_id, run_of

from pipeline.runtime.manifest import RunManifest, notebook_key
from pipeline.runtime.run_page import write_page
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Store, StoredFile

STEPS = ["load", "fit", "judge"]
FILES = {
    "model report": [("report.html", 250_000), ("a & b.csv", 1500), ("images/1.html", 20)],
    "results": [("metrics.json", 80), ("predictions.json", 21_000_000)],
}
DELIVERED = {name: [StoredFile(path, size, "") for path, size in files] for name, files in FILES.items()}
KEPT = "kept"  # stands for the location of a notebook's page
LOAD = attempt("load", metrics={"images": 240}, seconds=41.04, report=KEPT, notes=("12 images are <left> out",))
METRICS = {"mAP": 0.71891, "mAP_low": 0.68, "mAP_high": 0.75, "device": "cpu", "odd": None}
RUN = run_of(
    2,
    LOAD,
    reused(attempt("fit", metrics={"mAP": 0.5}, report=KEPT), run_id(1)),
    attempt(
        "judge",
        metrics=METRICS,
        seconds=725.2,
        chosen={"test": run_id(1)},
        reads=(artifact("test"),),
        limits={"mAP": True},
    ),
    created="2026-11-30T06:18:16.123Z",
    code={"commit": "a" * 40, "dirty": True, "diff": "", "untracked": {}},
)


def keep_pages(store: Store, folder: Path, manifest: RunManifest) -> None:
    for record in manifest.attempts:
        if record.report:
            origin = manifest.origin(record)
            page = folder / "page.html"
            page.write_text(f"notebook of {origin}")
            store.keep(notebook_key(origin, "html"), page)


def text_of(page: Path) -> str:
    """The text of a page, with its blanks as one."""
    body = page.read_text().partition("<body>")[2]
    return " ".join(re.sub("<[^>]*>", " ", body).split())


def links_of(page: Path) -> list[str]:
    return [unquote(link) for link in re.findall('href="([^"]*)"', page.read_text())]


def test_the_page_tells_of_the_run_and_links_its_files(runs: Runs, tmp_path: Path) -> None:
    keep_pages(runs.store, tmp_path, RUN)
    out = tmp_path / "out"
    page = write_page(out, runs.store, RUN, STEPS, DELIVERED)
    text = text_of(page)
    for part in (
        "toy: complete",
        f"run {run_id(2)} opened 2026-11-30 06:18 UTC mode dev pipeline toy, configs/demo.yaml",
        f"commit {'a' * 40}, with uncommitted changes mAP 0.7189, interval 0.68 to 0.75 quality gate passed",
        "model report 3 files, 0.3 MB report.html a &amp; b.csv (1.5 kB)",
        "results 2 files, 21.0 MB metrics.json (0.1 kB), predictions.json (21.0 MB)",
        "load succeeded 41.0 s notebook of load images 240 12 images are &lt;left&gt; out",
        f"fit reused notebook of fit mAP 0.5 The work of {run_id(1)}/fit/1 was reused.",
        "judge succeeded 12 min 5 s mAP 0.7189, device cpu test ",
        f"was chosen by hand: {run_id(1)} 5 metrics mAP 0.7189 mAP_low 0.68 mAP_high 0.75 device cpu odd -",
    ):
        assert part in text, text
    files = ["model report/report.html", "model report/a & b.csv", "results/metrics.json", "results/predictions.json"]
    assert links_of(page) == [*files, "notebooks/load.html", "notebooks/fit.html"]
    assert (out / "notebooks/load.html").read_text() == f"notebook of {run_id(2)}/load/1"
    assert (out / "notebooks/fit.html").read_text() == f"notebook of {run_id(1)}/fit/1", "whose work was reused"


def test_a_run_that_did_not_come_to_its_end_has_a_page_too(runs: Runs, tmp_path: Path) -> None:
    run = run_of(1, LOAD, failed("fit", "mAP is 0.1, below 0.5\n  in: cell 3", error_kind="GateError"))
    page = write_page(tmp_path / "out", runs.store, run, STEPS, {"model": DELIVERED["results"]})
    text = text_of(page)
    for part in ("toy: failed at fit", "quality gate failed", "fit failed 0.5 s mAP is 0.1, below 0.5 judge not run"):
        assert part in text, text
    assert not [link for link in links_of(page) if link.startswith("notebooks")], "its page is not in the store"


def test_the_next_page_leaves_nothing_of_the_one_before(runs: Runs, tmp_path: Path) -> None:
    keep_pages(runs.store, tmp_path, RUN)
    write_page(tmp_path / "out", runs.store, RUN, STEPS, DELIVERED)
    write_page(tmp_path / "out", runs.store, run_of(3, replace(LOAD, report="")), STEPS, {})
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["index.html", "notebooks"]


def test_every_link_works_where_the_folder_is_sent_to(ran: Any, tmp_path: Path) -> None:
    sent = shutil.move(ran.root / "out/dev/toy", tmp_path / "sent")
    links = links_of(sent / "index.html")
    assert links == ["page/page.txt", *(f"notebooks/{step}.html" for step in ("first", "second", "third"))]
    assert all((sent / link).is_file() for link in links)
    assert "Show the code" in (sent / "notebooks/second.html").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_the_screen_and_asks_nothing(
    open_page: Callable[..., Page], tmp_path: Path, width: int, scheme: str
) -> None:
    long = replace(LOAD, metrics={"a_metric_with_a_very_long_name": "x" * 90}, error="y" * 200)
    run = run_of(2, long, *RUN.attempts[1:])
    page_file = write_page(tmp_path / "out", Store(str(tmp_path / "store")), run, STEPS, DELIVERED)
    page = open_page(page_file, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 25, 30)"}[scheme]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "model%20report/report.html"
