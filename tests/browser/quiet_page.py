"""Debian's chromium, and pages that may ask this machine alone and must not complain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect, sync_playwright

_PATIENCE_MS = 60_000

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class QuietPage:
    """A page, and what it should not have done.

    Parameters
    ----------
    page : Page
        A new one.

    Attributes
    ----------
    asked_elsewhere : list of str
        Addresses outside this machine that something in the page asked for, in vain.
    complaints : list of str
        Exceptions and errors on the console.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked_elsewhere: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(_PATIENCE_MS)
        expect.set_options(timeout=_PATIENCE_MS)
        page.route("**/*", self._judge)
        page.on("pageerror", lambda error: self.complaints.append(f"{error}\n{error.stack}"))
        page.on("console", self._note)

    def _judge(self, route: Route) -> None:
        address = urlsplit(route.request.url)
        if address.hostname == "127.0.0.1" or address.scheme in ("data", "blob"):
            route.continue_()
        else:
            self.asked_elsewhere.append(route.request.url)
            route.abort()

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} ({message.location['url']})")
