"""The table of a run that is over, from its journal alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from journal_rows import failure
from magic_shell import make_shell

from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.journal_replay import attempts_of_run, ledger_of_run
from scalable_nb.telemetry.rows import SCHEMA_VERSION, TaskState


def ended(scenario: int, state: str, **values: Any) -> dict[str, Any]:
    """A row of ``tasks.jsonl``."""
    row: dict[str, Any] = {
        "run_id": "run-1", "schema_version": SCHEMA_VERSION, "event_type": "task",
        "timestamp": "2026-03-01T12:01:05.000+00:00", "task_id": f"run_simulation-{scenario}",
        "task_name": "run_analysis", "function_name": "run_simulation", "component": "analysis",
        "tag": "", "batch": "sweep", "state": state, "attempts": 1, "attempts_allowed": 4,
        "worker": "worker-1", "host": "n1", "pid": 7,
        "submitted_at": f"2026-03-01T12:00:{59 - scenario:02}.000+00:00",
        "started_at": "2026-03-01T12:01:00.000+00:00", "queued_s": 1.0, "duration_s": 5.0,
        "memory_bytes": 1000, "result_bytes": 28, "args_preview": f"scenario_id={scenario}",
        "failure_class": None, "reason": None,
    }  # fmt: skip
    return {**row, **values}


def write(folder: Path, tasks: list[dict[str, Any]], failures: list[dict[str, Any]]) -> RunPaths:
    run = RunPaths(folder)
    for path, rows in ((run.tasks, tasks), (run.failures, failures)):
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return run


def test_each_task_has_its_last_state_in_the_order_of_submission(tmp_path: Path) -> None:
    """Succeeded, failed, resubmitted and half-done tasks, each with what is known of it."""
    run = write(
        tmp_path,
        [
            ended(1, "failed", failure_class="ValueError"),
            ended(2, "succeeded", attempts=2),
            ended(1, "succeeded", attempts=2),  # resubmitted
            ended(3, "cached"),
        ],
        [
            failure(1),
            failure(2, is_final=False, will_retry=True, failure_class="ConnectionError"),
            failure(9, is_final=False, will_retry=True),
        ],
    )
    ledger = ledger_of_run(run)
    assert ledger.labels == [f"run_simulation(scenario_id={n})" for n in (3, 2, 1, 9)]
    states = [TaskState(state) for state in ledger.columns["state"]]
    assert states == [
        TaskState.CACHED, TaskState.SUCCEEDED, TaskState.SUCCEEDED, TaskState.RETRYING
    ]  # fmt: skip
    row = ledger.row_of["run_simulation-2"]
    texts = {name: ledger.text(name, row) for name in ("worker", "host", "error", "task")}
    assert texts == {
        "worker": "worker-1", "host": "n1", "error": "ConnectionError", "task": "run_analysis"
    }  # fmt: skip
    assert ledger.columns["attempt"][row] == 2
    assert ledger.columns["duration_s"][row] == 5.0
    assert [each["outcome"] for each in attempts_of_run(run, "run_simulation-2")] == [
        "failed", "succeeded"
    ]  # fmt: skip


def test_rows_of_other_writers_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    """The package `scalable` writes less, and a file may hold anything."""
    run = write(
        tmp_path,
        [{"task_id": "a", "state": "what?"}, {"state": "failed", "duration_s": "long"}],
        [
            {"failure_class": "OSError", "message": "gone", "task_id": "a"},
            {"failure_class": "OSError", "message": "of no task"},
        ],
    )
    ledger = ledger_of_run(run)
    assert ledger.columns["state"][ledger.row_of["a"]] == TaskState.FAILED
    (row,) = attempts_of_run(run, "a")
    assert (row["attempt"], row["failure_class"]) == (1, "OSError")
    assert len(ledger_of_run(RunPaths(tmp_path / "nothing"))) == 0


def test_the_notebook_shows_the_table_of_the_last_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`%scalable tasks --last` needs no session: states, attempts, and calls to make again."""
    folder = tmp_path / "runs" / "run-20260301T120000Z-demo-0123abcd"
    folder.mkdir(parents=True)
    run = write(folder, [ended(1, "succeeded")], [failure(2)])
    run.run_json.write_text("{}")
    monkeypatch.setenv("SCALABLE_RUNS_DIR", str(tmp_path / "runs"))
    shell = make_shell()
    shell.extension_manager.load_extension("scalable_nb")
    table: Any = shell.run_cell("%scalable tasks --last").result
    try:
        assert repr(table).startswith(f"{folder.name}: 2 tasks, 100 % done")
        assert (table.status, table.has_controls, table.actions) == (
            "finished",
            True,
            ["reproduce"],
        )
    finally:
        table.close()
