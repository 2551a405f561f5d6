"""Headless Chromium of the system, driven by Playwright, which downloads none of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

Browser = sync_api.Browser
Page = sync_api.Page
expect = sync_api.expect

_PATIENCE = 60_000  # milliseconds; machines may be busy
_FLAGS = (
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--use-fake-device-for-media-stream",  # a camera that shows a pattern
    "--use-fake-ui-for-media-stream",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs chromium")
    expect.set_options(timeout=_PATIENCE)
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []  # root has none
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*_FLAGS, *sandbox])
        try:
            yield browser
        finally:
            browser.close()


def send_picture(page: Page, picture: Path) -> None:
    """Choose a picture on the page, and wait until its faces are there."""
    page.get_by_label("Choose a picture").set_input_files(picture)
    expect(page.get_by_role("status")).to_contain_text("found")
