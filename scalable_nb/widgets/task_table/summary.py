"""What a table of tasks says at one moment, and that as text.

Pure functions of a ledger; `static_view` makes HTML of the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scalable_nb.telemetry.ledger import Ledger
from scalable_nb.telemetry.rows import TaskState
from scalable_nb.telemetry.sanitize import one_line

#: What a person reads where the session no longer answers.
STATUS_TEXT: Final = {
    "live": "",
    "finished": "",
    "lost": "lost contact with the host",
    "closed": "the session has ended",
}

MAX_ROWS: Final = 12  # of the tasks that need attention
_MAX_LABEL_CHARS: Final = 90
_MAX_NAME_CHARS: Final = 32

#: From what is done to what has not begun.
STATE_ORDER: Final = (
    TaskState.SUCCEEDED,
    TaskState.CACHED,
    TaskState.FAILED,
    TaskState.LEFT_OUT,
    TaskState.CANCELLED,
    TaskState.NEVER_RAN,
    TaskState.RUNNING,
    TaskState.RETRYING,
    TaskState.PAUSED,
    TaskState.QUEUED,
    TaskState.WAITING,
    TaskState.PENDING,
)


@dataclass(frozen=True)
class TaskLine:
    """One task as text."""

    position: int
    label: str
    state: TaskState
    attempt: str
    worker: str
    duration: str
    error: str


@dataclass(frozen=True)
class TableSummary:
    """What a static view shows.

    Attributes
    ----------
    states : ndarray of uint8
        `TaskState` of each input, in the table's order; plain tasks of Dask count one each.
    lines : tuple of TaskLine
        The first tasks that failed or wait for a retry, each once.
    hidden : int
        How many more of them there are.
    at : float
        When it was taken; seconds since the epoch, UTC.
    """

    title: str
    status: str
    states: Any
    lines: tuple[TaskLine, ...]
    hidden: int
    at: float

    @property
    def counts(self) -> dict[TaskState, int]:
        """Number of inputs by state, without zeros; finished states first."""
        found = np.bincount(self.states, minlength=len(TaskState))
        return {state: int(found[state]) for state in STATE_ORDER if found[state]}

    @property
    def done(self) -> int:
        """Inputs with which nothing more will happen by itself."""
        return sum(count for state, count in self.counts.items() if state.is_final)


def summarize_table(
    ledger: Ledger,
    rows: Sequence[int] | None = None,
    *,
    title: str = "",
    status: str = "live",
    at: float,
) -> TableSummary:
    """What the ledger says of some of its tasks now.

    Parameters
    ----------
    ledger : Ledger
        The caller holds its lock.
    rows : sequence of int, optional
        The ledger's row of each input, in the order of the table; all inputs where not given.
        A task that the ledger does not know yet is -1 and counts as pending.
    title : str
    status : str
        A key of `STATUS_TEXT`.
    at : float
        Seconds since the epoch, UTC.
    """
    chosen = _rows_of_inputs(ledger) if rows is None else np.asarray(rows, np.int64)
    states = np.full(len(chosen), TaskState.PENDING, np.uint8)
    is_known = chosen >= 0
    states[is_known] = np.array(ledger.columns["state"], np.uint8)[chosen[is_known]]
    notable = np.flatnonzero((states == TaskState.FAILED) | (states == TaskState.RETRYING))
    _, first = np.unique(chosen[notable], return_index=True)  # inputs may share a task
    notable = notable[np.sort(first)]
    # Failed for good first, each in the order of the table.
    notable = notable[np.argsort(states[notable] != TaskState.FAILED, kind="stable")]
    lines = tuple(_line(ledger, int(chosen[i]), int(i)) for i in notable[:MAX_ROWS])
    return TableSummary(title, status, states, lines, len(notable) - len(lines), at)


def _rows_of_inputs(ledger: Ledger) -> Any:
    """Return the ledger's row of each input."""
    return np.repeat(np.arange(len(ledger)), np.array(ledger.columns["inputs"], np.uint32))


def _line(ledger: Ledger, row: int, position: int) -> TaskLine:
    columns = ledger.columns
    attempt = columns["attempt"][row]
    return TaskLine(
        position=position,
        label=one_line(ledger.labels[row], _MAX_LABEL_CHARS),
        state=TaskState(columns["state"][row]),
        attempt=f"{attempt}/{columns['attempts_allowed'][row]}" if attempt else "",
        worker=one_line(ledger.text("worker", row), _MAX_NAME_CHARS),
        duration=duration_text(columns["duration_s"][row]) if attempt else "",
        error=one_line(ledger.text("error", row), _MAX_NAME_CHARS),
    )


def paused_batches(ledger: Ledger, rows: Sequence[int] | None = None) -> dict[str, int]:
    """The batches that have paused inputs among some rows, and how many; as `summarize_table`."""
    if not ledger.counts[TaskState.PAUSED]:
        return {}
    states = np.array(ledger.columns["state"], np.uint8)
    codes = np.array(ledger.columns["batch"], np.int32)
    chosen = _rows_of_inputs(ledger) if rows is None else np.asarray(rows, np.int64)
    chosen = chosen[chosen >= 0]
    states, codes = states[chosen], codes[chosen]
    found, counts = np.unique(codes[states == TaskState.PAUSED], return_counts=True)
    return {ledger.strings[code]: int(n) for code, n in zip(found, counts, strict=True)}


def duration_text(seconds: float) -> str:
    """A duration as a person reads it, e.g. ``2 min 05 s``."""
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def summary_text(summary: TableSummary) -> str:
    """The table as plain text: one line of counts, then the tasks that need attention."""
    out = [headline(summary)]
    if summary.counts:
        out.append("  " + ", ".join(f"{n:,} {s.label}" for s, n in summary.counts.items()))
    for line in summary.lines:
        parts = [line.state.label, f"attempt {line.attempt}", line.duration, line.error]
        on = f" on {line.worker}" if line.worker else ""
        out.append(f"  [{line.position}] {line.label}: {', '.join(filter(None, parts))}{on}")
    if summary.hidden:
        out.append(f"  ... and {summary.hidden:,} more")
    return "\n".join(out)


def headline(summary: TableSummary) -> str:
    """Title, number of tasks, share done, and the session's end where it ended."""
    total = len(summary.states)
    tasks = f"{total:,} task{'' if total == 1 else 's'}"
    done = f", {_percent(summary)} done" if total else ""
    status = STATUS_TEXT[summary.status]
    title = f"{one_line(summary.title, _MAX_LABEL_CHARS)}: " if summary.title else ""
    return f"{title}{tasks}{done}{f' ({status})' if status else ''}"


def _percent(summary: TableSummary) -> str:
    # Never "100 %" while one is missing, nor "0 %" once something is done.
    share, total = summary.done, len(summary.states)
    percent = 100 * share // total
    return f"{max(percent, 1) if share else 0} %"
