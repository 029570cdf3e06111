"""What every target promises; run once for each, by overriding `target`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counting import calls, failing_first, mark
from distributed import Future

from scalable_nb import RetryPolicy, ScalableSession, TaskPolicy, errors, resubmit
from scalable_nb.telemetry.journal_reader import read_rows
from scalable_nb.telemetry.rows import FailureRow

Start = Callable[..., ScalableSession]


@pytest.fixture
def target() -> str:
    """The target under test."""
    return "local"


@pytest.fixture
def session(shared_session: ScalableSession) -> ScalableSession:
    """A live session on the target, in which earlier tests have left their tasks."""
    return shared_session


def _failures(session: ScalableSession, *futures: Future[Any]) -> list[FailureRow]:
    """The failed attempts of these tasks."""
    keys = {future.key for future in futures}
    return [row for row in session.failures() if row["task_id"] in keys]


def test_a_call_runs_on_a_worker_and_gives_its_result(session: ScalableSession) -> None:
    """A submitted call runs in another process and its result comes back."""
    future = session.client.submit(lambda x: (x + 1, os.getpid()), 41, task="run_analysis")
    value, pid = future.result(timeout=30)
    assert value == 42
    assert pid != os.getpid()


def test_results_keep_the_order_of_the_input(session: ScalableSession) -> None:
    """A map's results come in the order of its arguments."""
    futures = session.client.map(lambda x: x * x, range(50), name="squares")
    assert futures.name == "squares"
    assert futures.results() == [x * x for x in range(50)]


def test_a_failure_reaches_the_person_as_it_was_raised(session: ScalableSession) -> None:
    """An exception keeps its type and message, and its neighbours keep their results."""

    def risky(x: int) -> int:
        if x == 13:
            raise ValueError(f"Unlucky number: {x}")
        return x * 2

    futures = session.client.map(risky, range(20), retries=2)
    with pytest.raises(ValueError, match="Unlucky number: 13"):
        session.client.gather(futures)
    outcome = futures.partial()
    assert [failure.index for failure in outcome.failures] == [13]
    assert outcome.failures[0].label == "risky(x=13)"
    assert outcome.succeeded == [x * 2 for x in range(20) if x != 13]
    (row,) = _failures(session, *futures)
    assert (row["failure_class"], row["category"], row["attempt"]) == ("ValueError", "permanent", 1)
    assert row["is_final"]
    assert row["args_preview"] == "x=13"
    assert "raise ValueError" in row["traceback"]


def test_a_transient_failure_is_retried_until_it_succeeds(
    session: ScalableSession, folder: Path
) -> None:
    """Each failed attempt has its row, and the executions on disk are as many as recorded."""
    function = failing_first(folder, 2, ConnectionError)
    futures = session.client.map(function, range(6), retries=3)
    assert futures.results() == [x * 2 for x in range(6)]
    assert [calls(folder, x) for x in range(6)] == [3] * 6
    rows = _failures(session, *futures)
    assert len(rows) == 12
    assert {row["category"] for row in rows} == {"transient"}
    assert sorted(row["attempt"] for row in rows) == [1] * 6 + [2] * 6
    assert not any(row["is_final"] for row in rows)
    assert all(0 < (row["retry_in_s"] or 0) <= 1 for row in rows)
    assert list(futures.to_dataframe()["attempt"]) == [3] * 6


def test_retries_are_counted_and_end(session: ScalableSession, folder: Path) -> None:
    """With retries=3 there are four attempts, and then the error."""
    future = session.client.submit(failing_first(folder, 99, TimeoutError), 7, retries=3)
    with pytest.raises(TimeoutError, match="attempt for 7"):
        future.result(timeout=60)
    assert calls(folder, 7) == 4
    rows = session.client.attempts(future)
    assert [row["attempt"] for row in rows] == [1, 2, 3, 4]
    assert [row["will_retry"] for row in rows] == [True, True, True, False]


def test_a_waiting_task_holds_no_slot(session: ScalableSession, folder: Path) -> None:
    """While the first tasks wait for their retry, the others run beside them."""

    def function(x: int) -> int:
        if x < 10 and mark(folder, x) == 0:
            raise ConnectionError("not yet")
        return x

    futures = session.client.map(function, range(60), retries=RetryPolicy(1, base_s=4, jitter=0))
    others = futures[10:]
    assert others.results() == list(range(10, 60))
    waiting = session.status().counts["retrying"]
    assert waiting == 10
    assert futures.results() == list(range(60))


def test_a_lost_worker_costs_one_of_the_worker_losses(
    session: ScalableSession, folder: Path
) -> None:
    """A task whose worker dies once runs again elsewhere, and the loss is recorded in words."""

    def function(x: int) -> int:
        if x == 3 and mark(folder, x) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    futures = session.client.map(function, range(8))
    assert futures.results() == list(range(8))
    (row,) = _failures(session, futures[3])
    assert row["failure_class"] == "WorkerLostError"
    assert row["category"] == "infrastructure"
    assert row["exit_code"] == -signal.SIGKILL
    assert "SIGKILL" in row["message"]
    assert calls(folder, 3) == 2


def test_a_worker_killed_for_its_memory_is_an_out_of_memory_error(
    session: ScalableSession,
) -> None:
    """`except MemoryError` catches what the limit of the component ended."""

    def greedy(megabytes: int) -> int:
        import time

        held = [bytearray(1_000_000) for _ in range(megabytes)]
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:  # until the nanny notices
            held[0][0] = 1
        return len(held)

    future = session.client.submit(
        greedy, 600, task="run_analysis", policy=TaskPolicy(worker_losses=0)
    )
    with pytest.raises(MemoryError, match=r"used .* of its limit of"):
        future.result(timeout=60)
    assert isinstance(future.exception(), errors.OutOfMemoryError)
    (row,) = session.client.attempts(future)
    assert row["category"] == "resource"
    assert (row["memory_bytes"] or 0) > 0.9 * (row["memory_limit_bytes"] or 0)


def test_a_timeout_ends_an_attempt_that_does_not_listen(session: ScalableSession) -> None:
    """A sleep in C ends within its limit and two seconds, and its neighbours are not harmed."""
    import time

    futures = session.client.map(time.sleep, [0.01, 60, 0.02], policy=TaskPolicy(timeout_s=1))
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="longer than its limit of 1 s"):
        futures[1].result(timeout=30)
    assert time.monotonic() - begun < 1 + 2 + 7  # seven more for a busy machine
    assert [f.result(timeout=30) for f in (futures[0], futures[2])] == [None, None]
    assert session.client.submit(sum, [1, 2]).result(timeout=30) == 3


def test_resubmit_runs_only_what_failed(session: ScalableSession, folder: Path) -> None:
    """After a resubmission all results are there, in order, and nothing else ran twice."""
    repaired = folder / "repaired"

    def function(x: int) -> int:
        mark(folder, x)
        if x % 5 == 0 and not repaired.exists():
            raise RuntimeError(f"no data for {x}")
        return x

    futures = session.client.map(function, range(20))
    assert len(futures.partial().failures) == 4
    repaired.touch()
    again = resubmit(futures)
    assert again.results() == list(range(20))
    assert [calls(folder, x) for x in range(20)] == [2 if x % 5 == 0 else 1 for x in range(20)]


def test_a_dependent_task_recovers_with_its_input(session: ScalableSession, folder: Path) -> None:
    """A task that failed because its input failed succeeds once the input is resubmitted."""
    source = session.client.submit(failing_first(folder, 1, RuntimeError), 4)
    total = session.client.submit(lambda x: x + 1, source)
    with pytest.raises(RuntimeError):
        total.result(timeout=30)
    resubmit([source, total])
    assert total.result(timeout=30) == 9


def test_a_kept_result_is_never_computed_twice(start: Start, target: str, folder: Path) -> None:
    """A second session answers from the kept results without calling the function."""

    def function(x: int) -> int:
        mark(folder, x)
        return x * 3

    for _ in range(2):
        session = start(target)
        futures = session.client.map(function, range(10), task="kept")
        assert futures.results() == [x * 3 for x in range(10)]
        states = set(futures.to_dataframe()["state"])
        session.close()
    assert states == {"cached"}
    assert [calls(folder, x) for x in range(10)] == [1] * 10


def test_a_task_that_must_not_run_twice_does_not(session: ScalableSession, folder: Path) -> None:
    """The worker of a non-idempotent task dies: the task fails and is never called again."""

    def pay(x: int) -> None:
        mark(folder, x)
        os._exit(1)

    future = session.client.submit(pay, 1, policy=TaskPolicy(idempotent=False))
    with pytest.raises(errors.UnknownOutcomeError, match="not called again"):
        future.result(timeout=30)
    plan = resubmit([future], dry_run=True)
    assert plan.to_run == []
    assert "not idempotent" in str(plan)
    resubmit([future])
    assert calls(folder, 1) == 1


def test_the_end_leaves_no_process_and_says_what_was(
    start: Start, target: str, folder: Path
) -> None:
    """A closed session leaves its records, which say what the counts said, and nothing else."""
    session = start(target)
    function = failing_first(folder, 1, ConnectionError)
    kept = session.client.map(function, range(10), retries=1)
    failed = session.client.map(lambda x: 1 / x, [0, 1, 2])
    kept.results()
    failed.partial()
    counts = session.status().counts
    assert sum(counts.values()) == 13
    assert (counts["succeeded"], counts["failed"]) == (12, 1)
    pid = session.status().host_pid
    session.close()
    session.close()
    assert not _exists(pid)
    paths = session.paths
    assert paths is not None
    rows = read_rows(paths.tasks).rows
    assert len(rows) == 13
    assert sum(row["attempts"] for row in rows) == 13 + 10
    assert sum(row["state"] == "failed" for row in rows) == 1
    assert not paths.session_json.exists()
    assert not paths.tls.exists()
    names = {path.name for path in paths.folder.iterdir()}
    assert names >= {
        "run.json", "manifest.yaml", "manifest.lock", "plan.json", "tasks.jsonl",
        "failures.jsonl", "workers.jsonl", "cache.jsonl", "summary.json",
    }  # fmt: skip
    with pytest.raises(errors.NoSessionError, match="was closed"):
        session.client.submit(abs, -1)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
