"""Calls that are submitted again, with other options, while their futures are held."""

from __future__ import annotations

from pathlib import Path

import pytest
from sendable import wait_for
from waiting import until

from scalable_nb import ScalableSession, TaskPolicy
from scalable_nb.errors import SubmitError

ONCE = TaskPolicy(idempotent=False)


def fail(x: int) -> int:
    raise ConnectionError(f"no answer to {x}")


def test_a_held_result_is_not_made_at_most_once(shared_session: ScalableSession) -> None:
    """It is refused, since the result may be lost and computed again; released, the call runs."""
    client = shared_session.client
    batches = len(shared_session.batches)
    futures = client.map(abs, [-11, -12])
    assert futures.results() == [11, 12]
    with pytest.raises(SubmitError, match="`idempotent=True`, which cannot become False"):
        client.map(abs, [-11, -12], policy=ONCE)
    assert len(shared_session.batches) == batches + 1  # nothing is recorded of what is refused
    assert client.map(abs, [-11, -12], retries=3).results() == [11, 12]
    keys = [future.key for future in futures]
    del futures
    until(lambda: not any(key in client.futures for key in keys))
    assert client.map(abs, [-11, -12], policy=ONCE).results() == [11, 12]


def test_a_running_call_keeps_its_terms(shared_session: ScalableSession, tmp_path: Path) -> None:
    """Other terms are refused while it runs, and equal ones are not."""
    client = shared_session.client
    future = client.submit(wait_for, tmp_path / "go", retries=1)
    with pytest.raises(SubmitError, match="`retries=1`, which cannot become 3"):
        client.submit(wait_for, tmp_path / "go", retries=3)
    same = client.submit(wait_for, tmp_path / "go", retries=1)
    (tmp_path / "go").touch()
    assert same.result(timeout=30) == future.result(timeout=30) == "done"


def test_a_failed_call_runs_again_on_new_terms(shared_session: ScalableSession) -> None:
    """The failed future is pending again, with the retries of the second call."""
    client = shared_session.client
    future = client.submit(fail, 1)
    assert future.exception(timeout=30) is not None
    again = client.submit(fail, 1, retries=2)
    assert again.exception(timeout=60) is not None
    assert len(client.attempts(future)) == 4
