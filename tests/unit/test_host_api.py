"""When a client believes that its host is gone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from scalable_nb.client import host_api
from scalable_nb.client.host_api import HostClient


@pytest.mark.parametrize(("looks", "is_live"), [([True, True, False], False), ([True], True)])
def test_a_host_that_is_just_dying_is_not_taken_for_alive(
    monkeypatch: pytest.MonkeyPatch, looks: list[bool], is_live: bool
) -> None:
    """A connection ends a moment before the process: the client looks again before it hopes."""
    monkeypatch.setattr(host_api, "_DYING_S", 0.1)
    seen = iter(looks)
    session = SimpleNamespace(is_host_alive=lambda: next(seen, looks[-1]))
    client: Any = SimpleNamespace(session=session)
    assert asyncio.run(HostClient._has_live_host(client)) is is_live
