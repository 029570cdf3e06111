"""Tasks between two attempts: hurried, given up, and robust against what happens meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from counting import calls, failing_first
from waiting import until

from scalable_nb import RetryPolicy, ScalableSession
from scalable_nb.report.build import build_report

Start = Callable[..., ScalableSession]
LONG = RetryPolicy(3, base_s=600, max_s=600)


def test_a_waiting_task_can_be_hurried(shared_session: ScalableSession, folder: Path) -> None:
    """`retry_now` ends the pause at once; tasks that do not wait are left alone."""
    session, client = shared_session, shared_session.client
    futures = client.map(failing_first(folder, 1, ConnectionError), range(3), retries=LONG)
    until(lambda: session.status().counts["retrying"] == 3)
    assert client.retry_now(futures[:2]) == 2
    assert client.gather(futures[:2]) == [0, 2]
    assert futures[2].status == "pending"
    assert client.retry_now(futures[:2]) == 0
    client.cancel(futures[2:])
    until(lambda: session.status().counts["retrying"] == 0)


def test_a_waiting_task_survives_the_loss_of_every_worker(
    shared_session: ScalableSession, folder: Path
) -> None:
    """All workers die while tasks wait; hurried, they run on the new workers."""
    session, client = shared_session, shared_session.client
    pids = client.map(lambda _: os.getpid(), range(8), pure=False).results()
    futures = client.map(failing_first(folder, 1, ConnectionError), range(5), retries=LONG)
    until(lambda: session.status().counts["retrying"] == 5)
    for pid in set(pids):
        os.kill(pid, signal.SIGKILL)
    client.retry_now(futures)
    assert client.gather(futures[:]) == [0, 2, 4, 6, 8]
    assert [calls(folder, x) for x in range(5)] == [2] * 5


def test_a_waiting_task_survives_a_scale_to_zero_and_asks_for_no_worker(
    shared_session: ScalableSession, folder: Path
) -> None:
    """Without any worker it waits on, adaptive scaling starts none for it, and then it runs."""
    session, client = shared_session, shared_session.client
    futures = client.map(failing_first(folder, 1, ConnectionError), range(5), retries=LONG)
    until(lambda: session.status().counts["retrying"] == 5)
    assert session.scale(0) == {"": 0}
    until(lambda: not session.status().workers)
    assert session.status().counts["retrying"] == 5
    assert session.adapt(0, 3) == {"": 0}
    assert client.submit(abs, -7).result(timeout=60) == 7
    assert len(session.status().workers) == 1  # for the one task that could run
    assert session.status().counts["retrying"] == 5
    session.scale(2)
    client.retry_now(futures)
    assert client.gather(futures[:]) == [0, 2, 4, 6, 8]
    assert [calls(folder, x) for x in range(5)] == [2] * 5


def test_a_waiting_task_can_be_cancelled(shared_session: ScalableSession, folder: Path) -> None:
    """A cancelled task never runs again and leaves the count of those that wait."""
    session = shared_session
    before = session.status().counts["cancelled"]
    futures = session.client.map(failing_first(folder, 9, ConnectionError), range(4), retries=LONG)
    until(lambda: session.status().counts["retrying"] == 4)
    session.client.cancel(futures)
    until(lambda: session.status().counts["cancelled"] == before + 4)
    assert session.status().counts["retrying"] == 0


def test_dependents_wait_as_if_the_task_were_running(
    shared_session: ScalableSession, folder: Path
) -> None:
    """A task whose input waits for its retry waits too, and then runs."""
    session, client = shared_session, shared_session.client
    source = client.submit(failing_first(folder, 1, ConnectionError), 4, retries=LONG)
    total = client.submit(lambda x: x + 1, source)
    until(lambda: session.status().counts["retrying"] == 1)
    assert session.status().counts["waiting"] == 1
    client.retry_now([source])
    assert total.result(timeout=30) == 9


def test_a_waiting_task_can_be_given_up(start: Start, folder: Path) -> None:
    """`give_up` delivers the last attempt's own error, and that attempt is the final one."""
    session = start()
    client = session.client
    future = client.submit(failing_first(folder, 9, ConnectionError), 4, retries=LONG)
    until(lambda: session.status().counts["retrying"] == 1)
    assert client.give_up([future]) == 1
    with pytest.raises(ConnectionError, match="attempt for 4"):
        future.result(timeout=10)
    assert session.status().counts["failed"] == 1
    assert calls(folder, 4) == 1
    (row,) = session.failures()
    assert (row["is_final"], row["will_retry"], row["retry_in_s"]) == (True, False, None)
    session.close()
    assert session.paths is not None
    report = build_report(session.paths)
    assert (report.retries, [failed.failure_class for failed in report.failed]) == (
        0,
        ["ConnectionError"],
    )
