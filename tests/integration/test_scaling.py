"""More and fewer workers on the local target, while everything runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from counting import calls, mark
from waiting import until

from scalable_nb import ScalableSession, errors

Start = Callable[..., ScalableSession]


def test_numbers_change_and_no_task_is_hurt(start: Start, folder: Path) -> None:
    """A worker that executes finishes its task before it goes; new ones come."""
    session = start()
    client = session.client
    client.wait_for_workers(2, timeout=60)

    def slow(x: int) -> int:
        mark(folder, x)
        time.sleep(2)
        return x

    futures = client.map(slow, range(4))
    until(lambda: calls(folder, 0) + calls(folder, 1) == 2)
    assert session.scale(1) == {"": 1}
    assert futures.results() == list(range(4))
    until(lambda: len(session.status().workers) == 1)
    assert [calls(folder, x) for x in range(4)] == [1] * 4
    assert session.failures() == []
    assert session.scale(3) == {"": 3}
    until(lambda: len(session.status().workers) == 3)


def test_a_number_that_makes_no_sense_is_refused(start: Start) -> None:
    """The error shows the value, and says what a local target has."""
    session = start()
    with pytest.raises(errors.ScalingError, match="n=-1 is not a number of workers"):
        session.scale(-1)
    with pytest.raises(errors.ScalingError, match=r"share the workers; say `session.scale\(2\)`"):
        session.scale(2, component="analysis")
    with pytest.raises(errors.UnknownNameError, match="Did you mean 'analysis'"):
        session.scale(2, component="analisys")
    with pytest.raises(errors.ScalingError, match="0 <= minimum <= maximum"):
        session.adapt(3, 2)
