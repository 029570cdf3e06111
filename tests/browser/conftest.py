"""What the tests in a browser share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser
from quiet_page import chromium
from stub_page import StubPage, server


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a person take the pictures of the documentation anew."""
    parser.addoption(
        "--update-images",
        action="store_true",
        help="take the screenshots in docs/images anew",
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with server() as running:
        yield running


@pytest.fixture
def stub(browser: Browser, address: str) -> Iterator[StubPage]:
    page = browser.new_page(viewport={"width": 1000, "height": 800}, device_scale_factor=1.5)
    running = StubPage(page, address)
    yield running
    is_hacked = page.evaluate("window.wasHacked === true")
    page.close()
    assert running.asked_elsewhere == []
    assert running.complaints == []
    assert not is_hacked
