"""The attempts of a task are joined from the files of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.tasks.task import FailedAttempt, TaskBatch
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.journal_reader import read_rows
from scalable_nb.telemetry.journal_replay import join_attempts, running_attempt
from scalable_nb.telemetry.rows import TaskState

WORKER = "tls://127.0.0.1:40001"


def run_of_one_task(folder: Path, *endings: TaskState) -> tuple[RunRecorder, RunPaths]:
    """A task that fails once and then ends as often as is said."""
    paths = RunPaths(folder / "run-1")
    paths.folder.mkdir()
    recorder = RunRecorder(paths, "local")
    recorder.worker_came(WORKER, "worker-0", "10.0.0.7", 1)
    batch = TaskBatch("id", function="simulate", previews={"simulate-1": "scenario=1"})
    record = recorder.open("simulate-1", batch, PolicyTerms(retries=3))
    recorder.assign(record, WORKER)
    recorder.begin_attempt(record)
    failure = FailedAttempt(
        "OSError", "no", "transient", "0" * 16, started_at=10.0, worker=WORKER, pid=7
    )
    recorder.end_attempt(record, failure, retry_in_s=1.5, is_final=False)
    for ending in endings:
        recorder.assign(record, WORKER)
        recorder.begin_attempt(record)
        facts: dict[str, Any] = {"started_at": 20.0, "duration_s": 4.0, "pid": 8}
        recorder.finish(record, ending, memory_bytes=9_000_000, **facts)
        record.reason = "recomputed"
    return recorder, paths


def joined(recorder: RunRecorder, paths: RunPaths) -> list[dict[str, Any]]:
    recorder.flush()
    rows = join_attempts(read_rows(paths.failures).rows, read_rows(paths.tasks).rows)  # type: ignore[arg-type]
    return [dict(row) for row in rows]


def test_failures_and_the_success_are_one_list(tmp_path: Path) -> None:
    """Each has its number, its outcome, and the same names for the same things."""
    failed, succeeded = joined(*run_of_one_task(tmp_path, TaskState.SUCCEEDED))
    same = {"worker": "worker-0", "host": "10.0.0.7", "task_id": "simulate-1"}
    assert failed.items() >= {**same, "outcome": "failed", "attempt": 1, "pid": 7}.items()
    assert succeeded.items() >= {
        **same, "outcome": "succeeded", "attempt": 2, "pid": 8, "duration_s": 4.0,
        "memory_bytes": 9_000_000, "started_at": "1970-01-01T00:00:20.000+00:00", "reason": None,
    }.items()  # fmt: skip
    assert "failure_class" not in succeeded


def test_a_result_computed_again_is_a_further_attempt(tmp_path: Path) -> None:
    """It says that it was, so nobody takes it for a retry."""
    ended = joined(*run_of_one_task(tmp_path, TaskState.SUCCEEDED, TaskState.SUCCEEDED))
    assert [(row["attempt"], row["reason"]) for row in ended] == [
        (1, None),
        (2, None),
        (3, "recomputed"),
    ]


def test_a_result_found_on_disk_is_no_attempt(tmp_path: Path) -> None:
    """The function was not called."""
    assert [row["outcome"] for row in joined(*run_of_one_task(tmp_path, TaskState.CACHED))] == [
        "failed"
    ]


def test_only_a_task_that_runs_has_a_running_attempt(tmp_path: Path) -> None:
    """Known, but between two attempts or unknown: there is none."""
    recorder, _ = run_of_one_task(tmp_path)
    recorder.ledger.set_state(0, TaskState.RETRYING)
    assert running_attempt(recorder.ledger, "simulate-1") is None
    assert running_attempt(recorder.ledger, "another") is None
    recorder.ledger.set_state(0, TaskState.RUNNING)
    assert (running_attempt(recorder.ledger, "simulate-1") or {})["outcome"] == "running"
