"""What a broken connection between worker, nanny and scheduler costs, and whom."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from chaos.network import reset, silence
from counting import calls, mark
from distributed import KilledWorker
from waiting import until

from scalable_nb import ScalableSession, TaskPolicy, errors

Start = Callable[..., ScalableSession]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of this test take a connection for dead after 11 s of silence, Dask's least."""
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP", "11s")


def port_of(session: ScalableSession) -> int:
    """On which the scheduler listens."""
    return int(session.client.scheduler.address.rpartition(":")[2])  # type: ignore[union-attr]


def host_of(session: ScalableSession) -> psutil.Process:
    return psutil.Process(session.status().host_pid)


def slow_once(
    folder: Path, seconds: float = 600, *, then_fails: bool = False
) -> Callable[[int], int]:
    """A function that is slow when it is called first, and says in which process.

    One that is to end waits for the file `cut`, so that no cut comes too late.
    """

    def function(x: int) -> int:
        if mark(folder, x) == 0:
            say_pid(folder, x)
            time.sleep(seconds)
            while not (folder / "cut").exists():
                time.sleep(0.02)
            mark(folder, f"end-{x}")
            if then_fails:
                raise ConnectionError(x)
        return x

    return function


def say_pid(folder: Path, x: int) -> None:
    """Tell the test which process a call runs in; whole or not at all."""
    part = folder / f"pid-{x}.part"
    part.write_text(str(os.getpid()))
    part.rename(folder / f"pid-{x}")


def worker_of(folder: Path, x: int) -> psutil.Process:
    """The process in which the call for x is running."""
    path = folder / f"pid-{x}"
    until(path.exists)
    return psutil.Process(int(path.read_text()))


def test_a_cut_costs_the_executing_task_one_attempt(start: Start, folder: Path) -> None:
    """The attempt is recorded in words, tasks in line are not charged, the worker comes back."""
    session = start()
    futures = session.client.map(slow_once(folder), range(1))
    worker = worker_of(folder, 0)
    others = session.client.map(lambda x: x, range(50, 90))
    assert reset(worker, port_of(session)) > 0
    assert futures.results() == [0]
    assert others.results() == list(range(50, 90))
    (row,) = session.failures()
    assert (row["failure_class"], row["category"]) == ("WorkerLostError", "infrastructure")
    assert row["message"] == (
        "function(x=0): the connection between the worker and the scheduler broke"
    )
    assert row["args_preview"] == "x=0"
    assert calls(folder, 0) == 2
    until(lambda: len(session.status().workers) == 2)
    assert not worker.is_running()


def test_the_last_cut_is_the_error(start: Start, folder: Path) -> None:
    """Where no further loss is allowed, `except KilledWorker` gets the reason in words."""
    session = start()
    policy = TaskPolicy(worker_losses=0)
    future = session.client.submit(slow_once(folder), 1, policy=policy)
    reset(worker_of(folder, 1), port_of(session))
    with pytest.raises(KilledWorker, match="connection between the worker and the scheduler broke"):
        future.result(timeout=30)
    assert future.status == "error"
    assert isinstance(future.exception(), errors.WorkerLostError)


def test_a_cut_never_calls_twice_what_must_not_be(start: Start, folder: Path) -> None:
    """A task that is not idempotent fails with what is known, and its function ran once."""
    session = start()
    policy = TaskPolicy(idempotent=False)
    future = session.client.submit(slow_once(folder), 1, policy=policy)
    worker = worker_of(folder, 1)
    reset(worker, port_of(session))
    with pytest.raises(errors.UnknownOutcomeError, match=r"connection .* broke"):
        future.result(timeout=30)
    until(lambda: len(session.status().workers) == 2 and not worker.is_running())
    assert session.client.submit(abs, -1).result(timeout=30) == 1
    assert calls(folder, 1) == 1


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("impatient")
def test_a_silent_network_and_a_stopped_worker_are_noticed(start: Start, folder: Path) -> None:
    """Nobody is told: tasks run elsewhere, kept results are found, and the zombies are ended.

    All in one session, for each takes its ten seconds to be noticed. The stop is SIGSTOP, as of
    a debugger or a frozen container.
    """
    manifest = folder / "scalable.yaml"
    manifest.write_text(manifest.read_text().replace("max_workers: 2", "max_workers: 5"))
    session = start()
    client = session.client
    ending = slow_once(folder, seconds=1)
    kept = client.submit(ending, 1, task="kept")
    once = client.submit(ending, 2, policy=TaskPolicy(idempotent=False))
    silenced, stopped = (client.submit(slow_once(folder), x) for x in (3, 4))
    failed = client.submit(slow_once(folder, seconds=1, then_fails=True), 5, retries=1)
    workers = {x: worker_of(folder, x) for x in (1, 2, 3, 4, 5)}
    for x in (1, 2, 3, 5):
        assert silence(workers[x], port_of(session), host_of(session)) > 0
    workers[4].suspend()
    (folder / "cut").touch()
    # The functions that return behind a dead connection are not called again.
    assert client.gather([kept, once, silenced, stopped, failed]) == [1, 2, 3, 4, 5]
    assert [calls(folder, x) for x in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 2]
    assert session.status().counts["succeeded"] == 5
    # Its failure was told over another connection, in time or too late: one attempt in any case.
    assert [row["attempt"] for row in client.attempts(failed)] == [1, 2]
    until(lambda: not any(worker.is_running() for worker in workers.values()))
    until(lambda: len(session.status().workers) == 5)
    words = [client.attempts(future)[0]["message"] for future in (silenced, stopped)]
    assert "connection between the worker and the scheduler broke" in words[0]
    assert "was stopped" in words[1]


def test_a_worker_that_cannot_notice_is_ended(start: Start, folder: Path) -> None:
    """C code that holds the interpreter hides the cut from the worker: its nanny ends it."""
    session = start()

    def function(x: int) -> int:
        if mark(folder, x) == 0:
            say_pid(folder, x)
            ctypes.PyDLL(None).sleep(600)
        return x

    future = session.client.submit(function, 1)
    worker = worker_of(folder, 1)
    reset(worker, port_of(session))
    assert future.result(timeout=30) == 1
    until(lambda: not worker.is_running())
    lost = session.client.attempts(future)[0]
    assert "connection between the worker and the scheduler broke" in lost["message"]
    assert lost["duration_s"]


def test_an_outcome_that_dies_on_its_way_is_an_attempt(start: Start, folder: Path) -> None:
    """A worker killed between the end of a function and its message: two calls, two attempts."""
    session = start()
    future = session.client.submit(slow_once(folder, seconds=1), 1)
    worker = worker_of(folder, 1)
    silence(worker, port_of(session), host_of(session))
    (folder / "cut").touch()
    until(lambda: calls(folder, "end-1") == 1)
    until(lambda: is_idle(session, worker))
    worker.send_signal(signal.SIGKILL)
    assert future.result(timeout=30) == 1
    assert calls(folder, 1) == 2
    lost, ran = session.client.attempts(future)
    assert (lost["outcome"], ran["outcome"], ran["attempt"]) == ("failed", "succeeded", 2)
    assert lost["message"].endswith("after the function had ended and before its outcome arrived")
    assert 1 <= (lost["duration_s"] or 0) < 5


def is_idle(session: ScalableSession, worker: psutil.Process) -> bool:
    """Whether the attempts of a worker process have ended, as its nanny sees it."""

    from scalable_nb.worker.attempt_registry import read_executing, read_owner

    assert session.paths is not None
    files = session.paths.workspace.rglob("attempts-*")
    owners = {owner.pid: path for path in files if (owner := read_owner(path)) is not None}
    return not read_executing(owners[worker.pid])


def test_a_nanny_that_is_cut_off_reports_all_the_same(start: Start, folder: Path) -> None:
    """What a worker died of is told over a new connection when the old one is broken."""
    session = start()
    future = session.client.submit(slow_once(folder), 1)
    worker = worker_of(folder, 1)
    assert reset(host_of(session), port_of(session)) > 0
    worker.send_signal(signal.SIGKILL)
    assert future.result(timeout=30) == 1
    row = session.client.attempts(future)[0]
    assert row["exit_code"] == -signal.SIGKILL
    assert "SIGKILL" in row["message"]
