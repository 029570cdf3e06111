"""When a client believes that its host is gone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from scalable_nb.client import client


@pytest.mark.parametrize(("looks", "is_live"), [([True, True, False], False), ([True], True)])
def test_a_host_that_is_just_dying_is_not_taken_for_alive(
    monkeypatch: pytest.MonkeyPatch, looks: list[bool], is_live: bool
) -> None:
    """A connection ends a moment before the process: the client looks again before it hopes."""
    monkeypatch.setattr(client, "_DYING_S", 0.1)
    seen = iter(looks)
    health: Any = SimpleNamespace(is_host_alive=lambda: next(seen, looks[-1]))
    assert asyncio.run(client._is_alive_after_disconnect(health)) is is_live
