"""Chromium for tests, by Playwright: a page of some width, which must not complain."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.need import need

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def need_chromium() -> None:
    """Skip the test where there is none."""
    need("chromium", "apt-get install chromium", shutil.which("chromium") is not None)
    need("playwright", "pip install playwright", find_spec("playwright") is not None)


@contextmanager
def page_of(test: SynchronousTestCase, width: int) -> Iterator[tuple[Any, Callable[[str], None]]]:
    """A page, and `look(name)`: nothing sticks out at the side, and with EXTENBOT_SCREENSHOTS=FOLDER a picture is left.

    At the end nothing may have gone wrong in the browser: no script error, nothing the Content-Security-Policy forbids.
    """
    from playwright.sync_api import sync_playwright

    folder = os.environ.get("EXTENBOT_SCREENSHOTS")
    complaints: list[str] = []

    def said(message: Any) -> None:
        # A form sent back with its mistakes is a 4xx, which Chromium counts as an error.
        if message.type == "error" and "the server responded with a status of 4" not in message.text:
            complaints.append(message.text)

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", said)

        def look(name: str) -> None:
            test.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), width, name)
            if folder:
                page.screenshot(path=f"{folder}/{name}-{width}.png", full_page=True)

        yield page, look
        browser.close()
    test.assertEqual(complaints, [])
