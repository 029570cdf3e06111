"""A function that must never be called twice is not, by whatever way Dask runs it again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counting import calls, mark
from distributed import wait
from waiting import until

from scalable_nb import ScalableSession, TaskPolicy, errors, resubmit

Start = Callable[..., ScalableSession]
ONCE = TaskPolicy(idempotent=False)


def slow_payment(folder: Path, seconds: float = 2.0) -> Callable[[Any], Any]:
    """Pays, notes that it did and where, and takes its time."""

    def pay(x: Any) -> Any:
        mark(folder, x)
        (folder / f"pid-{x}").write_text(str(os.getpid()))
        time.sleep(seconds)
        return x

    return pay


def address_of(session: ScalableSession, pid: int) -> str:
    pids = session.client.run(os.getpid)
    (address,) = [address for address, other in pids.items() if other == pid]
    return str(address)


def test_a_lost_result_is_read_back(start: Start, folder: Path) -> None:
    """The worker that holds the result dies: the result comes from disk."""
    session = start()
    future = session.client.submit(slow_payment(folder, 0), 1, policy=ONCE)
    wait([future])
    os.kill(int((folder / "pid-1").read_text()), signal.SIGKILL)
    until(lambda: len(session.status().workers) == 2 and session.status().counts["succeeded"] == 1)
    assert future.result(timeout=30) == 1
    assert calls(folder, 1) == 1
    assert session.failures() == []


def test_a_result_kept_before_the_loss_counts(start: Start, folder: Path) -> None:
    """A worker that dies between keeping the result and saying so loses nothing."""
    session = start()

    class Fatal:
        """Kills the worker that hands it on first, which is after it was kept."""

        def __sizeof__(self) -> int:
            if mark(folder, "handed-on") == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return 100

    def pay(x: int) -> Any:
        mark(folder, x)
        return Fatal()

    future = session.client.submit(pay, 1, policy=ONCE)
    wait([future], timeout=60)
    assert future.status == "finished"
    assert calls(folder, 1) == 1
    assert calls(folder, "handed-on") > 1
    assert session.failures() == []
    assert session.status().counts["succeeded"] == 1


def test_a_retired_worker_costs_the_task_but_no_second_call(start: Start, folder: Path) -> None:
    """A worker that is closed in good order while it executes leaves the outcome unknown."""
    session = start()
    future = session.client.submit(slow_payment(folder, 60), 1, policy=ONCE)
    until(lambda: (folder / "pid-1").exists() and (folder / "pid-1").read_text())
    worker = address_of(session, int((folder / "pid-1").read_text()))
    session.client.retire_workers([worker])
    with pytest.raises(errors.UnknownOutcomeError, match="retired"):
        future.result(timeout=30)
    assert calls(folder, 1) == 1


def test_what_stood_in_line_on_a_lost_worker_runs(start: Start, folder: Path) -> None:
    """Only the task that was called is lost; those that had not begun run elsewhere."""
    session = start()

    def pay(x: int) -> int:
        if mark(folder, x) == 0 and x == 0:
            time.sleep(0.3)  # until others stand in line behind it
            os._exit(1)
        return x

    futures = session.client.map(pay, range(30), policy=ONCE)
    outcome = futures.partial()
    assert [failure.index for failure in outcome.failures] == [0]
    assert outcome.succeeded == list(range(1, 30))
    assert [calls(folder, x) for x in range(30)] == [1] * 30


def test_a_stolen_task_is_called_once(start: Start, folder: Path) -> None:
    """Work moves between workers while it waits; each call happens once."""
    session = start()
    session.client.wait_for_workers(2)
    first = session.status().workers[0]["address"]

    def pay(x: int) -> int:
        mark(folder, x)
        time.sleep(0.05)
        return x

    futures = session.client.map(
        pay, range(40), policy=ONCE, workers=[first], allow_other_workers=True
    )
    assert futures.results() == list(range(40))
    assert [calls(folder, x) for x in range(40)] == [1] * 40


def test_a_call_given_up_while_it_runs_is_not_made_again(start: Start, folder: Path) -> None:
    """Cancelled in the midst and submitted again: the first call may still do its work."""
    session = start()
    pay = slow_payment(folder, 3)
    first = session.client.submit(pay, 1, policy=ONCE)
    until(lambda: calls(folder, 1) == 1)
    first.cancel()
    until(lambda: session.status().counts["cancelled"] == 1)
    # Dask's word on the cancellation comes before this result does, and would hit a new future.
    assert session.client.submit(abs, -1).result(timeout=30) == 1
    again = session.client.submit(pay, 1, policy=ONCE)
    try:
        assert again.result(timeout=30) == 1  # it was done meanwhile, and kept
    except errors.UnknownOutcomeError as error:
        assert "was called at" in str(error)
    assert calls(folder, 1) == 1


def test_two_clients_with_the_same_call_share_it(start: Start, folder: Path) -> None:
    """A second notebook that submits the same payment gets the first one's result."""
    session = start()
    pay = slow_payment(folder, 1)
    first = session.client.submit(pay, 1, policy=ONCE, key="payment-1")
    other = ScalableSession.attach(session.run_id)
    try:
        second = other.client.submit(pay, 1, policy=ONCE, key="payment-1")
        assert (first.result(timeout=30), second.result(timeout=30)) == (1, 1)
    finally:
        other.client.close()
    assert calls(folder, 1) == 1


def test_a_failed_call_is_made_again_only_when_it_is_named(start: Start, folder: Path) -> None:
    """An error is never retried; a person who names the task gets another call."""
    session = start()

    def pay(x: int) -> int:
        if mark(folder, x) == 0:
            raise ConnectionError("no answer from the bank")
        return x

    future = session.client.submit(pay, 1, policy=ONCE)
    with pytest.raises(ConnectionError):
        future.result(timeout=30)
    with pytest.raises(errors.PolicyError, match="retries"):
        session.client.submit(pay, 2, retries=2, policy=ONCE)
    resubmit([future])
    assert calls(folder, 1) == 1
    (again,) = resubmit([future], only=str(future.key))
    assert again.result(timeout=30) == 1
    assert calls(folder, 1) == 2
