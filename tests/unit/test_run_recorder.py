"""Table, files and sums of a run say the same of every task."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.tasks.task import FailedAttempt, TaskBatch, TrackedTask
from scalable_nb.host.tasks.worker_losses import exit_message
from scalable_nb.paths import RunPaths
from scalable_nb.protocol.exit_report import ExitCause, ExitReport
from scalable_nb.telemetry.journal_reader import read_rows
from scalable_nb.telemetry.rows import FailureRow, TaskRow, TaskState

WORKER = "tls://127.0.0.1:40001"
FINAL = [TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.CACHED]


def new_recorder(folder: Path) -> tuple[RunRecorder, RunPaths]:
    paths = RunPaths(folder / "run-1")
    paths.folder.mkdir()
    return RunRecorder(paths, "local"), paths


def failed(failure_class: str = "ValueError", **values: Any) -> FailedAttempt:
    return FailedAttempt(failure_class, "it broke", "permanent", "0" * 16, **values)


def attempt(recorder: RunRecorder, record: TrackedTask) -> None:
    recorder.assign(record, WORKER)
    recorder.begin_attempt(record)


def open_task(recorder: RunRecorder, key: Any = "simulate-1", retries: int = 3) -> TrackedTask:
    batch = TaskBatch("id", name="study", function="simulate", task="run", component="analysis",
                  tag="fast", previews={key: "scenario=1"})  # fmt: skip
    return recorder.open(key, batch, PolicyTerms(retries=retries))


def test_one_tasks_way_is_told_alike_everywhere(tmp_path: Path) -> None:
    """A task that fails once and then succeeds: table, two rows and the sums agree."""
    recorder, paths = new_recorder(tmp_path)
    recorder.worker_came(WORKER, "worker-0", "10.0.0.7", 2)
    record = open_task(recorder)
    row, ledger = record.row, recorder.ledger
    assert (ledger.labels[row], ledger.count()["pending"]) == ("simulate(scenario=1)", 1)
    attempt(recorder, record)
    assert (ledger.columns["attempt"][row], ledger.text("worker", row)) == (1, "worker-0")
    recorder.end_attempt(
        record,
        failed(started_at=record.runnable_at + 2, duration_s=0.5, worker=WORKER, pid=7),
        retry_in_s=1.5,
        is_final=False,
    )
    attempt(recorder, record)
    recorder.worker_left(WORKER)
    recorder.finish(record, TaskState.SUCCEEDED, started_at=1.7e9, duration_s=4.0, result_bytes=28)
    recorder.close()

    (failure,) = read_rows(paths.failures).rows
    assert set(failure) == set(FailureRow.__annotations__)
    assert failure | {
        "run_id": "run-1", "failure_class": "ValueError", "message": "it broke",
        "task_id": "simulate-1", "task_name": "run", "function_name": "simulate",
        "component": "analysis", "tag": "fast", "attempt": 1, "attempts_allowed": 4,
        "is_final": False, "will_retry": True, "retry_in_s": 1.5, "worker": "worker-0",
        "host": "10.0.0.7", "queued_s": 2.0, "duration_s": 0.5, "details": {"pid": 7},
        "args_preview": "scenario=1", "provider": "local",
    } == failure  # fmt: skip
    (task,) = read_rows(paths.tasks).rows
    assert set(task) == set(TaskRow.__annotations__)
    assert task | {
        "task_id": "simulate-1", "state": "succeeded", "attempts": 2, "attempts_allowed": 4,
        "worker": "worker-0", "batch": "study", "duration_s": 4.0, "result_bytes": 28,
        "failure_class": None, "started_at": "2023-11-14T22:13:20.000+00:00",
    } == task  # fmt: skip
    events = [(row["event_type"], row["worker"]) for row in read_rows(paths.workers).rows]
    assert events == [("worker-connected", "worker-0"), ("worker-left", "worker-0")]
    assert recorder.summary() | {
        "attempts": 2, "retries": 1, "failures_by_class": {"ValueError": 1}, "cached": 0,
    } == recorder.summary()  # fmt: skip
    json.dumps(recorder.summary())


def test_a_task_that_failed_for_good_names_its_class(tmp_path: Path) -> None:
    """A failed task's row has the class of its last failure; a cancelled task's has none."""
    recorder, paths = new_recorder(tmp_path)
    for key, state in (("a", TaskState.FAILED), ("b", TaskState.CANCELLED)):
        record = open_task(recorder, key)
        attempt(recorder, record)
        recorder.end_attempt(record, failed("MemoryError"), retry_in_s=None, is_final=True)
        record.reason = "why"
        recorder.finish(record, state)
    recorder.close()
    rows = read_rows(paths.tasks).rows
    assert [(row["failure_class"], row["reason"]) for row in rows] == [
        ("MemoryError", "why"),
        (None, "why"),
    ]
    assert [row["started_at"] is None for row in read_rows(paths.tasks).rows] == [False, False]


def test_a_resubmitted_task_goes_on_counting(tmp_path: Path) -> None:
    """Its attempts count on, its budgets begin anew, and what is allowed says so."""
    recorder, _ = new_recorder(tmp_path)
    record = open_task(recorder, retries=1)
    for is_final in (False, True):
        attempt(recorder, record)
        recorder.end_attempt(record, failed(), retry_in_s=None, is_final=is_final)
        record.retries_used += not is_final
    recorder.finish(record, TaskState.FAILED)
    recorder.reopen(record, PolicyTerms(retries=2))
    assert (record.attempts, record.retries_used, record.attempts_allowed) == (2, 0, 5)
    assert recorder.ledger.columns["attempts_allowed"][record.row] == 5
    attempt(recorder, record)
    assert recorder.ledger.columns["attempt"][record.row] == 3
    recorder.close()


def test_keys_that_are_no_text(tmp_path: Path) -> None:
    """A tuple is a key too; in the records it is its text."""
    recorder, paths = new_recorder(tmp_path)
    recorder.finish(open_task(recorder, ("block", 1)), TaskState.CACHED)
    recorder.close()
    assert recorder.ledger.row_of == {"('block', 1)": 0}
    assert [row["task_id"] for row in read_rows(paths.tasks).rows] == ["('block', 1)"]


@given(
    outcomes=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(FINAL), st.sampled_from(["A", "B"])),
        max_size=8,
    )
)
def test_sums_are_those_of_the_rows(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[tuple[int, TaskState, str]]
) -> None:
    """Whatever happens to any number of tasks, the summary adds up to the rows written."""
    recorder, paths = new_recorder(tmp_path_factory.mktemp("sums"))
    for number, (failures, state, failure_class) in enumerate(outcomes):
        record = open_task(recorder, f"key-{number}", retries=4)
        for left in reversed(range(failures)):
            attempt(recorder, record)
            is_final = left == 0 and state is TaskState.FAILED
            recorder.end_attempt(record, failed(failure_class), retry_in_s=None, is_final=is_final)
        if state is TaskState.SUCCEEDED:
            attempt(recorder, record)
        recorder.finish(record, state)
    recorder.close()
    summary, failures, tasks = recorder.summary(), read_rows(paths.failures), read_rows(paths.tasks)
    assert sum(summary["counts"].values()) == len(outcomes) == len(tasks.rows)
    assert Counter(row["state"] for row in tasks.rows) == Counter(
        {state: count for state, count in summary["counts"].items() if count}
    )
    assert summary["failures_by_class"] == Counter(row["failure_class"] for row in failures.rows)
    assert summary["attempts"] == sum(row["attempts"] for row in tasks.rows)
    assert summary["retries"] == sum(row["will_retry"] for row in failures.rows)


# --- what travels, and what is said of a lost worker ------------------------------------


@pytest.mark.parametrize(
    ("cause", "exit_code", "words"),
    [
        ("exit", 3, "the worker process exited with code 3"),
        ("exit", 0, "the worker process exited with code 0"),
        ("exit", None, "the worker process exited with code 0"),
        ("exit", -11, "the worker process was ended by SIGSEGV"),
        ("exit", -9,
         "the worker process was ended by SIGKILL, perhaps by the kernel for want of memory"),
        ("exit", -99, "the worker process was ended by signal 99"),
        ("memory", -15, "the worker used 1.50 GiB of its limit of 1.00 GiB and was ended"),
        ("cut", -9, "the connection between the worker and the scheduler broke"),
        ("stopped", -9, "the worker process was stopped, did not go on, and was ended"),
    ],
)  # fmt: skip
def test_the_end_of_a_worker_in_words(cause: str, exit_code: int | None, words: str) -> None:
    """A person reads what ended the process, by the name of the signal where there was one."""
    report = ExitReport(ExitCause(cause), {}, exit_code, 3 * 2**29, 2**30)
    assert exit_message(report) == words
