"""A batch that only ever fails in the same way is paused until a person decides."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from counting import calls, mark
from waiting import until

from scalable_nb import ScalableSession
from scalable_nb.futures import FutureList

Start = Callable[..., ScalableSession]


@pytest.fixture
def paused(
    start: Start, folder: Path, caplog: pytest.LogCaptureFixture
) -> tuple[ScalableSession, FutureList]:
    """A batch of a hundred in which a missing licence has stopped everything."""

    def function(x: int) -> int:
        mark(folder, "all")
        if not (folder / "licence").exists():
            raise ValueError(f"no licence for task {x}")
        return x

    session = start()
    with caplog.at_level(logging.WARNING):
        futures = session.client.map(function, range(100), name="sweep")
        until(lambda: session.status().counts["paused"])
        until(lambda: not session.status().counts["running"])
        until(lambda: "are paused" in caplog.text)
    assert "no licence for task" in caplog.text
    return session, futures


def test_the_rest_is_paused_and_a_person_told(
    paused: tuple[ScalableSession, FutureList], folder: Path
) -> None:
    """Some twenty tasks ran, the others wait, and the notice says why and what to type."""
    session, _ = paused
    counts = session.status().counts
    assert counts["paused"] + counts["failed"] == 100
    assert 20 <= calls(folder, "all") <= 30
    (notice,) = session.status().notices
    assert "'sweep'" in notice
    assert "client.resume(futures)" in notice


def test_the_pause_can_be_lifted(paused: tuple[ScalableSession, FutureList], folder: Path) -> None:
    """Resumed after the cause was mended, the others succeed and nothing stops them again."""
    session, futures = paused
    failed = session.status().counts["failed"]
    (folder / "licence").touch()
    assert session.client.resume(futures) == 100 - failed
    assert len(futures.partial().succeeded) == 100 - failed
    assert futures.resubmit().results() == list(range(100))


def test_the_pause_can_be_turned_into_a_cancel(
    paused: tuple[ScalableSession, FutureList], folder: Path
) -> None:
    """Cancelled, the paused tasks never run."""
    session, futures = paused
    before = calls(folder, "all")
    session.client.cancel(futures)
    until(lambda: session.status().counts["paused"] == 0)
    assert session.status().counts["cancelled"] > 0
    assert calls(folder, "all") == before


def test_a_limit_of_zero_lets_everything_run(start: Start, folder: Path) -> None:
    """`max_identical_failures: 0` switches the brake off."""
    manifest = folder / "scalable.yaml"
    manifest.write_text(
        manifest.read_text().replace("defaults: {", "defaults: {max_identical_failures: 0, ")
    )
    futures = start().client.map(lambda x: 1 / 0, range(60))
    assert len(futures.partial().failures) == 60
