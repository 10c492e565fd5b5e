"""The installed Chromium, which tests of pages drive, and what every page must do in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 400, "height": 800}

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --disable-dev-shm-usage --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium, as the system has it; the test is skipped where there is none."""
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES)]
    program = next(filter(None, found), None)
    if not program:
        pytest.skip("no Chromium here: `make browser` installs it, or CHROMIUM names the program")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=FLAGS.split(), chromium_sandbox=False)
        yield started
        started.close()


@contextmanager
def pages_of_files(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`open_page(path, **options)`: a file in a context of its own, which must ask nobody and log nothing."""
    contexts, asked, logged = [], [], []

    def open_at(path: Path, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": DESK, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: logged.append(message.text))
        page.on("pageerror", lambda error: logged.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert [url[:80] for url in asked if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == len(contexts)
    assert logged == []


def grave_violations(page: Page) -> list[tuple[str, str]]:
    """What axe-core finds that keeps somebody from using a page: the rule, and the first element."""
    found = Axe().run(page).response["violations"]
    return [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
