"""Dask's dashboard: reached by its link, also through a proxy."""

from __future__ import annotations

import re
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import ProxyHandler, build_opener

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
