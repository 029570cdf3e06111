"""Calls that are submitted again, with other options, while their futures are held."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from counting import calls, mark
from sendable import wait_for
from waiting import until

from scalable_nb import ScalableSession, TaskPolicy, cacheable, resubmit
from scalable_nb.cache.store import ResultStore
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


def test_a_running_call_is_not_retried(
    shared_session: ScalableSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is executed once, and a message says that it has not failed."""
    client = shared_session.client

    def function(x: int) -> int:
        mark(tmp_path, x)
        while not (tmp_path / "go").exists():
            time.sleep(0.02)
        return x

    future = client.submit(function, 3)
    until(lambda: calls(tmp_path, 3))
    for _ in range(3):
        future.retry()
    assert "1 of these 1 tasks have not failed" in caplog.text
    (tmp_path / "go").touch()
    assert future.result(timeout=30) == 3
    assert calls(tmp_path, 3) == 1


def test_a_failed_call_runs_again_on_new_terms(shared_session: ScalableSession) -> None:
    """The failed future is pending again, with the retries of the second call."""
    client = shared_session.client
    future = client.submit(fail, 1)
    assert future.exception(timeout=30) is not None
    again = client.submit(fail, 1, retries=2)
    assert again.exception(timeout=60) is not None
    assert len(client.attempts(future)) == 4


def test_a_name_stores_held_results(start: Callable[..., ScalableSession], tmp_path: Path) -> None:
    """Present and later results are returned after a restart, without another call."""
    session = start()
    client = session.client

    def double(x: int) -> int:
        mark(tmp_path, x)
        while x and not (tmp_path / "go").exists():
            time.sleep(0.02)
        return 2 * x

    futures = client.map(double, range(3))
    assert futures[0].result(timeout=30) == 0
    client.map(double, range(3), name="study")
    (tmp_path / "go").touch()
    assert futures.results() == [0, 2, 4]
    await_stored(session, 3)
    session.close()
    assert resubmit(run="last").results() == [0, 2, 4] * 2  # of both batches
    assert [calls(tmp_path, x) for x in range(3)] == [1, 1, 1]


def test_a_name_stores_cached_calls_that_take_results(
    start: Callable[..., ScalableSession], tmp_path: Path
) -> None:
    """They have no key in the cache, but their batch has a name."""
    session = start()

    @cacheable
    def double(x: int) -> int:
        mark(tmp_path, f"double-{x}")
        return 2 * x

    first = session.client.map(abs, [-1, -2])
    assert session.client.map(double, first, name="second").results() == [2, 4]
    await_stored(session, 2)
    session.close()
    assert resubmit(run="last").results() == [1, 2, 2, 4]
    assert [calls(tmp_path, f"double-{x}") for x in (1, 2)] == [1, 1]


def await_stored(session: ScalableSession, count: int) -> None:
    """Wait until so many results are in the folder of the run."""
    assert session.paths is not None
    store = ResultStore(session.paths.results)
    until(lambda: len(list(store.iter_keys())) == count)
