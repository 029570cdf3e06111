"""What must be as in plain Dask, and what must be better, in the corners."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import dask
import psutil
import pytest
from counting import calls, mark
from distributed import KilledWorker
from waiting import until

from scalable_nb import ScalableSession, TaskPolicy, errors

Start = Callable[..., ScalableSession]


def test_a_function_keeps_nothing_from_one_task_to_the_next(
    shared_session: ScalableSession,
) -> None:
    """A default that is changed in place starts anew in each task, as in plain Dask."""

    def remember(x: int, seen: list[int] = []) -> int:  # noqa: B006 - that is the point
        seen.append(x)
        return len(seen)

    assert shared_session.client.map(remember, range(8)).results() == [1] * 8


def test_a_task_of_a_collection_that_kills_its_workers_ends(
    shared_session: ScalableSession,
) -> None:
    """What was not submitted through us has Dask's own limit: four workers, then an error."""
    future = shared_session.client.compute(dask.delayed(os._exit)(1))
    with pytest.raises(KilledWorker):
        future.result(timeout=60)


@pytest.mark.parametrize("option", [{"n": 1}, {"retries": 0}, {"policy": None}, {"tag": None}])
def test_an_option_that_is_also_a_parameter_is_never_swallowed(
    shared_session: ScalableSession, option: dict[str, object]
) -> None:
    """Also with the value that would be the default, the ambiguity is an error."""

    def function(x: int, n: int = 5, retries: int = 5, policy: int = 5, tag: int = 5) -> int:
        return x + n + retries + policy + tag

    with pytest.raises(errors.SubmitError, match=r"functools\.partial"):
        shared_session.client.submit(function, 1, **option)  # type: ignore[arg-type]
    assert shared_session.client.submit(function, 1).result(timeout=30) == 21


def test_an_exception_of_the_notebook_is_caught_by_its_class(
    shared_session: ScalableSession,
) -> None:
    """The class that the client knows is the one that arrives."""

    class Mine(Exception):
        pass

    def function() -> None:
        raise Mine("my own")

    with pytest.raises(Mine, match="my own"):
        shared_session.client.submit(function).result(timeout=30)


def test_a_long_key_is_watched_like_any_other(shared_session: ScalableSession) -> None:
    """A key of a thousand characters and more has timeouts and losses too."""
    client = shared_session.client
    slow = client.submit(time.sleep, 60, key="k" * 1500, policy=TaskPolicy(timeout_s=0.5))
    with pytest.raises(errors.TaskTimeoutError):
        slow.result(timeout=30)
    fatal = client.submit(os._exit, 1, key=("x" * 1200, 7), policy=TaskPolicy(worker_losses=1))
    with pytest.raises(errors.WorkerLostError):
        fatal.result(timeout=60)


def test_one_result_that_cannot_come_does_not_cost_the_others(
    shared_session: ScalableSession,
) -> None:
    """`partial` gives what can be had and a failure in the place of what cannot."""

    def function(x: int) -> object:
        return (i for i in range(x)) if x == 1 else x

    outcome = shared_session.client.map(function, range(3)).partial()
    assert outcome.succeeded == [0, 2]
    assert [failure.index for failure in outcome.failures] == [1]


def test_a_cancelled_task_that_hangs_gives_its_worker_back(start: Start, folder: Path) -> None:
    """The time limit holds for an attempt that nobody waits for any more."""
    session = start()

    def hang(x: int) -> None:
        mark(folder, x)
        time.sleep(60)

    futures = session.client.map(hang, range(2), policy=TaskPolicy(timeout_s=3))
    until(lambda: calls(folder, 0) and calls(folder, 1))
    session.client.cancel(futures)
    assert session.client.submit(abs, -1).result(timeout=30) == 1


def test_a_timeout_waits_for_a_neighbour_that_must_not_run_twice(
    start: Start, folder: Path
) -> None:
    """The error is there at once; the worker ends only after the other task is done."""
    manifest = folder / "scalable.yaml"
    text = manifest.read_text().replace(
        "max_workers: 2, threads_per_worker: 1", "max_workers: 1, threads_per_worker: 2"
    )
    manifest.write_text(text)
    session = start()

    def pay(x: int) -> int:
        mark(folder, x)
        time.sleep(3)
        return x

    payment = session.client.submit(pay, 7, policy=TaskPolicy(idempotent=False))
    until(lambda: calls(folder, 7) == 1)
    slow = session.client.submit(time.sleep, 60, policy=TaskPolicy(timeout_s=0.5))
    with pytest.raises(errors.TaskTimeoutError):
        slow.result(timeout=10)
    assert payment.result(timeout=30) == 7
    assert calls(folder, 7) == 1
    until(lambda: session.status().counts["running"] == 0)
    assert session.client.submit(abs, -1).result(timeout=30) == 1


def test_a_worker_that_dies_while_it_starts_is_replaced(start: Start) -> None:
    """The session does not go on with fewer workers than were asked for."""
    session = start()
    host = psutil.Process(session.status().host_pid)
    for child in host.children():
        if "spawn_main" in " ".join(child.cmdline()):
            os.kill(child.pid, signal.SIGKILL)
    until(lambda: len(session.status().workers) == 2)
    assert session.client.submit(abs, -1).result(timeout=30) == 1


def test_a_session_whose_client_was_closed_first_ends_at_once(start: Start) -> None:
    """Closing the client and then the session leaves a summary and takes no timeout."""
    session = start()
    session.client.submit(abs, -1).result(timeout=30)
    session.client.close()
    begun = time.monotonic()
    session.close()
    assert time.monotonic() - begun < 10
    assert session.paths is not None
    assert session.paths.summary_json.exists()


def test_a_host_that_is_asked_to_end_says_so(start: Start) -> None:
    """SIGTERM to the host: who waits for a result learns that the session is over."""
    session = start()
    future = session.client.submit(time.sleep, 600)
    os.kill(session.status().host_pid, signal.SIGTERM)
    with pytest.raises(errors.HostDiedError):
        future.result(timeout=30)
