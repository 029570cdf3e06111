"""Dask's dashboard: reached by its link, also through a proxy."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit
from urllib.request import ProxyHandler, build_opener

import pytest
from waiting import until

from scalable_nb import ScalableSession

# The environment may name a proxy, which must not be asked for this machine.
_open = build_opener(ProxyHandler({})).open


def read(address: str) -> str:
    with _open(address, timeout=30) as answer:
        text: str = answer.read().decode()
        return text


def is_there(address: str) -> bool:
    try:
        return bool(read(address))
    except HTTPError:
        return False


def test_a_page_finds_its_scripts_wherever_a_proxy_puts_it(
    shared_session: ScalableSession,
) -> None:
    """Everything that a page loads is named relative to it, and is there."""
    link = shared_session.dashboard_link
    until(lambda: is_there(link))  # it opens while the workers start
    page = read(link)
    sources = re.findall(r'(?:src|href)="([^"]+\.(?:js|css)[^"]*)"', page)
    assert any("bokeh" in source for source in sources)
    assert [source for source in sources if re.match(r"/|https?:", source)] == []
    for source in sources:
        assert read(urljoin(link, source))


@pytest.fixture
def crowd() -> Iterator[ExitStack]:
    """Silent connections, closed at the end."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("is_page", [False, True])
def test_silent_connections_keep_nobody_out(
    shared_session: ScalableSession, crowd: ExitStack, is_page: bool
) -> None:
    """The host closes the first silent connections beyond its limit, and work continues."""
    scheduler = shared_session.client.scheduler
    assert scheduler is not None
    link = urlsplit(shared_session.dashboard_link if is_page else scheduler.address)
    silent = [
        crowd.enter_context(socket.create_connection((link.hostname, link.port)))
        for _ in range(600)
    ]
    silent[0].settimeout(8)  # less than the timeout without a crowd
    assert silent[0].recv(1) == b""
    assert shared_session.client.submit(abs, -4).result(timeout=30) == 4
