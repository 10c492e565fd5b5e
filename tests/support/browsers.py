"""The installed Chromium, which tests of pages drive."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

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
