"""Every way in which a worker ends, and what it costs whom."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from counting import calls, mark
from distributed import KilledWorker, Reschedule, Scheduler
from waiting import until

from scalable_nb import ScalableSession, TaskPolicy, errors

Start = Callable[..., ScalableSession]


def segfault(_: object) -> None:
    """End the process as a faulty extension does."""
    import ctypes

    ctypes.string_at(0)


@pytest.mark.parametrize(
    ("end", "words", "exit_code"),
    [
        (segfault, "SIGSEGV", -signal.SIGSEGV),
        (os._exit, "exited with code 3", 3),
        (lambda _: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL", -signal.SIGKILL),
    ],
    ids=["segfault", "exit", "kill"],
)
def test_a_crash_is_said_in_words_after_the_losses_are_used(
    shared_session: ScalableSession, end: Callable[[int], None], words: str, exit_code: int
) -> None:
    """Never a bare KilledWorker: the error says what ended the process, and how often."""
    policy = TaskPolicy(worker_losses=1)
    future = shared_session.client.submit(end, 3, policy=policy, pure=False)
    with pytest.raises(KilledWorker) as lost:
        future.result(timeout=60)
    assert isinstance(lost.value, errors.WorkerLostError)
    assert words in str(lost.value)
    assert "2 times" in str(lost.value)
    rows = shared_session.client.attempts(future)
    assert [row["exit_code"] for row in rows] == [exit_code] * 2
    assert [row["is_final"] for row in rows] == [False, True]


def test_the_last_words_of_a_worker_are_on_record(shared_session: ScalableSession) -> None:
    """What it printed, and for a crash in C code the line of Python that it was at."""

    def speak_and_crash(word: str) -> None:
        print(f"the last word is {word}")
        segfault(word)

    policy = TaskPolicy(worker_losses=0)
    future = shared_session.client.submit(speak_and_crash, "lemon", policy=policy)
    with pytest.raises(errors.WorkerLostError):
        future.result(timeout=60)
    (row,) = shared_session.client.attempts(future)
    assert "the last word is lemon" in row["traceback"]
    assert "Segmentation fault" in row["traceback"]
    assert "in segfault" in row["traceback"]


def test_what_dask_takes_back_is_an_attempt_where_it_had_begun(
    shared_session: ScalableSession, folder: Path
) -> None:
    """The worker that is told to forget a task says whether its function was called."""
    client = shared_session.client

    def function(x: int) -> int:
        if mark(folder, x) == 0:
            if x == 1:
                raise Reschedule  # as Dask lets a task do
            until((folder / "gate").exists)
        return x

    executing = client.submit(function, 0, policy=TaskPolicy(worker_losses=0))
    until(lambda: calls(folder, 0) == 1)

    def take_back(dask_scheduler: Scheduler, key: str) -> None:
        dask_scheduler._reschedule(key, stimulus_id="of the test")

    client.run_on_scheduler(take_back, key=executing.key)
    until(lambda: any("message" in row for row in client.attempts(executing)))
    (folder / "gate").touch()
    ended = client.submit(function, 1)
    assert client.gather([executing, ended]) == [0, 1]
    reported = [[row.get("message") for row in client.attempts(f)] for f in (executing, ended)]
    after = ", after the function had ended and before its outcome arrived"
    assert reported == [
        ["function(x=0): Dask took it back", None],
        [f"function(x=1): Dask took it back{after}", None],
    ]
    assert (calls(folder, 0), calls(folder, 1)) == (2, 2)


def test_only_the_task_that_was_executing_is_charged(start: Start, folder: Path) -> None:
    """Tasks that merely stood in line on a dying worker have no failed attempt."""
    session = start()

    def function(x: int) -> int:
        if x == 5 and mark(folder, x) < 3:
            os._exit(1)
        return x

    futures = session.client.map(function, range(40))
    assert futures.results() == list(range(40))
    # One that had just ended may lose its outcome with the worker: recorded, not charged.
    charged = [row for row in session.failures() if "had ended" not in row["message"]]
    assert {row["args_preview"] for row in charged} == {"x=5"}


def test_a_timeout_ends_what_the_task_had_started(start: Start, folder: Path) -> None:
    """A program that the task runs dies with the attempt."""
    session = start()

    def function(seconds: int) -> int:
        program = subprocess.Popen(["sleep", str(seconds)])
        (folder / "pid").write_text(str(program.pid))
        return program.wait()

    future = session.client.submit(function, 654, policy=TaskPolicy(timeout_s=1))
    with pytest.raises(errors.TaskTimeoutError):
        future.result(timeout=30)
    pid = int((folder / "pid").read_text())
    until(lambda: not psutil.pid_exists(pid) or _is_zombie(pid), timeout_s=10)


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_timeout_is_retried_and_may_succeed(start: Start, folder: Path) -> None:
    """The second attempt of a task that hung once gives its result."""
    session = start()

    def function(x: int) -> int:
        if mark(folder, x) == 0:
            time.sleep(100)
        return x

    future = session.client.submit(function, 1, retries=1, policy=TaskPolicy(timeout_s=1))
    assert future.result(timeout=30) == 1
    assert calls(folder, 1) == 2
    hung, _ = session.client.attempts(future)
    assert (hung["category"], hung["will_retry"]) == ("timeout", True)
    assert 1 <= (hung["duration_s"] or 0) < 3


def test_a_success_that_is_lost_and_then_fails_is_told(start: Start, folder: Path) -> None:
    """A task that had succeeded never fails in silence: rows and a notice say what happened."""
    manifest = folder / "scalable.yaml"
    manifest.write_text(manifest.read_text().replace("max_workers: 2", "max_workers: 1"))
    session = start()

    def function(x: int) -> int:
        if mark(folder, x):
            time.sleep(60)
        return x

    future = session.client.submit(function, 1, policy=TaskPolicy(timeout_s=2))
    assert future.result(timeout=30) == 1
    fatal = session.client.submit(os._exit, 1, policy=TaskPolicy(worker_losses=0))
    with pytest.raises(errors.WorkerLostError):
        fatal.result(timeout=30)
    until(lambda: session.status().counts["failed"] == 2)
    with pytest.raises(errors.TaskTimeoutError, match="lost with a worker"):
        future.result(timeout=30)
    first, again = session.client.attempts(future)
    assert (first["outcome"], again["outcome"]) == ("succeeded", "failed")
    assert again["details"]["reason"] == "recomputed"
    (notice,) = session.status().notices
    assert "had succeeded" in notice


def test_lost_workers_are_replaced(start: Start) -> None:
    """The target keeps the number of workers that was asked for."""
    session = start()
    before = set(session.client.map(lambda _: os.getpid(), range(8), pure=False).results())
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(session.status().workers) == 2)
    after = set(session.client.map(lambda _: os.getpid(), range(8), pure=False).results())
    assert not before & after
