"""Debian's Chromium, or what else is installed under its names: one for all tests of a process.

Playwright's synchronous interface can be entered once a process.
"""

from __future__ import annotations

import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# CI runs as root, where Chromium has no sandbox. It asks its maker for nothing.
SWITCHES = (
    "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-fake-device-for-media-stream", "--enable-precise-memory-info", "--js-flags=--expose-gc",
)  # fmt: skip


@pytest.fixture(scope="session")
def launch():
    """`launch(*switches)`: a browser, which whoever asks closes."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    sync_api.expect.set_options(timeout=60_000)  # busy machines
    with sync_api.sync_playwright() as playwright:
        yield lambda *switches: playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*SWITCHES, *switches]
        )


@pytest.fixture(scope="session")
def chromium(launch):
    """A browser; a test opens contexts of its own, whose caches are empty."""
    browser = launch()
    yield browser
    browser.close()
