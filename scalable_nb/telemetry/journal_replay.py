"""The ledger and the attempts of a run that is over, from its journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.journal_reader import is_final, number, read_rows, read_task_rows
from scalable_nb.telemetry.ledger import Ledger
from scalable_nb.telemetry.recorded_inputs import RecordedInputs
from scalable_nb.telemetry.rows import STATE_LABELS, FailureRow, TaskRow, TaskState, utc_iso

Row = Mapping[str, Any]

_CODED = {"worker": "worker", "host": "host", "job": "job_id", "function": "function_name",
          "component": "component", "batch": "batch"}  # fmt: skip


def ledger_of_run(run: RunPaths) -> Ledger:
    """What the journal of a run says of its tasks, as a ledger.

    A task that neither ended nor failed an attempt is in no journal. One that was between two
    attempts when the run ended is shown so.

    Parameters
    ----------
    run : RunPaths
        Of this package, or of the package `scalable`.
    """
    ledger = Ledger(run.run_id)
    last_failure: dict[str, Row] = {}
    for row in read_rows(run.failures).rows:
        if row.get("task_id"):  # the package `scalable` also notes failures of no task
            last_failure[str(row["task_id"])] = row
    endings = {str(row.get("task_id")): row for row in read_rows(run.tasks).rows}
    inputs = RecordedInputs.from_rows(read_rows(run.inputs).rows).by_task
    # In the order of the submission, as far as it is known.
    keys = sorted(endings, key=lambda key: str(endings[key].get("submitted_at") or ""))
    for key in dict.fromkeys([*keys, *last_failure]):
        _add_task(ledger, key, endings.get(key), last_failure.get(key), inputs.get(key, 1))
    return ledger


def attempts_of_run(run: RunPaths, task_id: str) -> list[AttemptRow]:
    """All attempts of a task of a run, oldest first."""
    failed: Any = [
        # Rows of the package `scalable` do not count attempts.
        {"attempt": number, "timestamp": "", **row}
        for number, row in enumerate(read_task_rows(run.failures, task_id), 1)
    ]
    ended: Any = [
        {**dict.fromkeys(TaskRow.__annotations__), **row}
        for row in read_task_rows(run.tasks, task_id)
        if isinstance(row.get("attempts"), int)
    ]
    return join_attempts(failed, ended)


def _add_task(
    ledger: Ledger, key: str, ending: Row | None, failure: Row | None, inputs: int
) -> None:
    known = ending or failure or {}
    both = dict(failure or {})
    both.update((name, value) for name, value in known.items() if value is not None)
    state = _state(ending, failure)
    values: dict[str, float] = {
        "state": state,
        "attempt": int(_finite(known.get("attempts", known.get("attempt")))),
        "attempts_allowed": int(_finite(known.get("attempts_allowed"))),
        "submitted_at": _seconds(known.get("submitted_at")),
        "started_at": _seconds(known.get("started_at")),
        "duration_s": _finite(known.get("duration_s")),
        "inputs": inputs,
    }
    for column, name in _CODED.items():
        values[column] = ledger.code(str(both.get(name) or ""))
    if both.get("task_name") != both.get("function_name"):
        values["task"] = ledger.code(str(both.get("task_name") or ""))
    if failure is not None:
        values["error"] = ledger.code(str(failure.get("failure_class") or "unknown"))
    label = f"{both.get('function_name') or key}({both.get('args_preview') or ''})"
    ledger.add(key, label if both.get("function_name") else key, **values)


def _state(ending: Row | None, failure: Row | None) -> TaskState:
    name = str((ending or {}).get("state"))
    if name in STATE_LABELS:
        return TaskState(STATE_LABELS.index(name))
    return TaskState.FAILED if failure is not None and is_final(failure) else TaskState.RETRYING


def _finite(value: object) -> float:
    found = number(value)
    return found if found >= 0 else 0.0


def _seconds(value: object) -> float:
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return 0.0


class AttemptRow(FailureRow, total=False):
    """One attempt of a task, in the names of ``failures.jsonl``.

    ``outcome`` is ``"failed"``, ``"succeeded"`` or ``"running"``; what only a failure has
    (class, message, category, ...) is absent from the others. ``ended_at`` is absent while
    the attempt runs. ``memory_bytes`` is the most its worker process is known to have used.
    ``reason`` says why there was an attempt after a success: ``"recomputed"``.
    """

    outcome: str
    ended_at: str
    pid: int | None
    reason: str | None


def join_attempts(failures: Iterable[FailureRow], endings: Iterable[TaskRow]) -> list[AttemptRow]:
    """The ended attempts of a task.

    Parameters
    ----------
    failures : iterable of FailureRow
        The task's rows of ``failures.jsonl``.
    endings : iterable of TaskRow
        Its rows of ``tasks.jsonl``: one, or more where its result was computed again or the
        task was resubmitted.

    Returns
    -------
    list of AttemptRow
        Oldest first. A result that was found on disk is no attempt.
    """
    rows = [_failed(row) for row in failures]
    rows += [_succeeded(row) for row in endings if row["state"] == TaskState.SUCCEEDED.label]
    return sorted(rows, key=lambda row: row["attempt"])


def running_attempt(ledger: Ledger, task_id: str) -> AttemptRow | None:
    """The attempt that a task is at, as the ledger has it; None when it is at none."""
    row = ledger.row_of.get(task_id)
    if row is None or ledger.columns["state"][row] != TaskState.RUNNING:
        return None
    return AttemptRow(
        task_id=task_id,
        outcome="running",
        attempt=ledger.columns["attempt"][row],
        attempts_allowed=ledger.columns["attempts_allowed"][row],
        started_at=utc_iso(ledger.columns["started_at"][row]),
        worker=ledger.text("worker", row),
    )


def _failed(row: FailureRow) -> AttemptRow:
    pid = row.get("details", {}).get("pid")
    return AttemptRow(**row, outcome="failed", ended_at=row["timestamp"], pid=pid, reason=None)


def _succeeded(row: TaskRow) -> AttemptRow:
    return AttemptRow(
        run_id=row["run_id"],
        task_id=row["task_id"],
        task_name=row["task_name"],
        function_name=row["function_name"],
        component=row["component"],
        tag=row["tag"],
        args_preview=row["args_preview"],
        outcome="succeeded",
        attempt=row["attempts"],
        attempts_allowed=row["attempts_allowed"],
        started_at=row["started_at"],
        ended_at=row["timestamp"],
        queued_s=row["queued_s"],
        duration_s=row["duration_s"],
        worker=row["worker"],
        host=row["host"],
        pid=row["pid"],
        memory_bytes=row["memory_bytes"],
        reason=row["reason"],
    )
