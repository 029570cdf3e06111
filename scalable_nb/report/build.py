"""Reading a run folder, and the report that comes of it."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from heapq import nlargest
from operator import itemgetter
from pathlib import Path
from time import time
from typing import Any, Final

import orjson

from scalable_nb.contact import is_alive, read_sign
from scalable_nb.faults.diagnose import FAST_FAIL_S, helped_by_retry
from scalable_nb.paths import RunPaths
from scalable_nb.report.text import failure_list, summary
from scalable_nb.telemetry.plaintext import one_line
from scalable_nb.telemetry.reader import is_final, number, read_rows, with_given_up
from scalable_nb.telemetry.records import STATE_LABELS, TaskState

Row = Mapping[str, Any]

_DONE: Final = (TaskState.SUCCEEDED.label, TaskState.CACHED.label)
# Runs of the package `scalable` have no session.json: a young one may go on.
_TRANSITION_S: Final = 60.0
_SLOWEST: Final = 5


def call_label(row: Row) -> str:
    """The call of a row as a person wrote it."""
    if not row.get("function_name"):
        return one_line(row.get("task_id")) or "a failure outside of any task"
    return f"{one_line(row['function_name'])}({one_line(row.get('args_preview'))})"


@dataclass(frozen=True)
class FailedTask:
    """A task that failed for good, with its last attempt.

    Attributes
    ----------
    duration_s : float or None
        Execution time of the last attempt alone.
    retries : int
        Attempts the system made after the first; what a person resubmitted begins anew.
    """

    task_id: str
    function_name: str
    args_preview: str
    failure_class: str
    message: str
    worker: str
    host: str
    duration_s: float | None
    retries: int
    category: str
    fingerprint: str

    @property
    def label(self) -> str:
        """The call as a person wrote it, e.g. ``run_simulation(scenario_id=47)``."""
        return call_label(asdict(self))

    @property
    def is_fast_permanent(self) -> bool:
        """Whether it failed at once with an error that no retry can mend."""
        is_fast = self.duration_s is not None and self.duration_s < FAST_FAIL_S
        return is_fast and self.category == "permanent"


@dataclass(frozen=True)
class Report:
    """A run in numbers, and the tasks that failed for good.

    Attributes
    ----------
    state : str
        ``"finished"``, ``"running"``, ``"interrupted"`` (the host is gone and wrote no end)
        or ``"unknown"`` (no end and no sign of life, and it was begun on another machine).
    host : str
        The machine of the host, where the run has no end.
    end_reason : str
        Why the host ended, where it did.
    tasks : dict of str to int
        Number of tasks by state; while the run has no end, of those that ended.
    attempts, retries : int
        Executions, and those of them that the system made after a failure.
    retries_helped : int
        Tasks that failed at first and succeeded in a retry.
    failures_by_class : dict of str to int
        Failed attempts by the class of the error, the most frequent first.
    failed : tuple of FailedTask
        In the order in which they failed.
    used_core_h, lost_core_h : float
        Execution time of all attempts, and of those that failed; one core each.
    slowest : tuple of (str, float)
        The calls that took longest, with the seconds of their last attempt.
    skipped : int
        Lines of the journal that could not be read.
    folder : Path
        Where the files of the run lie.
    """

    run_id: str
    project: str
    target: str
    state: str
    host: str
    end_reason: str
    started_at: str | None
    ended_at: str | None
    tasks: dict[str, int]
    attempts: int
    retries: int
    retries_helped: int
    cached: int
    failures_by_class: dict[str, int]
    failed: tuple[FailedTask, ...]
    used_core_h: float
    lost_core_h: float
    slowest: tuple[tuple[str, float], ...]
    skipped: int
    folder: Path

    def to_text(self, failures: bool = False) -> str:
        """The report as text: the summary, or the list of what failed."""
        return failure_list(self) if failures else summary(self)

    def to_dict(self) -> dict[str, Any]:
        """The report as values that JSON knows."""
        return {**asdict(self), "folder": str(self.folder), "failed": [*map(asdict, self.failed)]}


def build_report(run: RunPaths) -> Report:
    """Read a run folder.

    Parameters
    ----------
    run : RunPaths
        The run, see `scalable_nb.paths.find_run`. It may be going on, or be one of the
        package `scalable`.

    Raises
    ------
    OSError
        When a file of the folder exists and cannot be opened.
    """
    about, sums = _read_object(run.run_json), _read_object(run.summary_json)
    tasks, read = read_rows(run.tasks), read_rows(run.failures)
    failures = with_given_up(read.rows, tasks.rows)
    # A task that was resubmitted has several rows: the last one tells what became of it.
    last = {str(row.get("task_id")): row for row in tasks.rows}
    states = _state_counts(sums) or _states(last.values())
    ended_at = sums.get("ended_at") or about.get("ended_at") or about.get("finished_at")
    state, host = ("finished", "") if ended_at else _unfinished(run, about)
    lost_s = _seconds(failures)
    classes = Counter(str(row.get("failure_class") or "unknown") for row in failures)
    return Report(
        run_id=run.run_id,
        project=one_line(about.get("project") or about.get("project_name")),
        target=one_line(about.get("target") or about.get("target_name")),
        state=state,
        host=host,
        end_reason=one_line(sums.get("end_reason"), 500),
        started_at=_text(about.get("started_at")),
        ended_at=_text(ended_at),
        tasks=states,
        attempts=_count(sums.get("attempts"), _attempts(last, failures)),
        retries=_count(sums.get("retries"), sum(not is_final(row) for row in failures)),
        retries_helped=len(helped_by_retry(failures, last)),
        cached=states.get(TaskState.CACHED.label, 0),
        failures_by_class=dict(classes.most_common()),
        failed=tuple(_failed_tasks(last, failures)),
        used_core_h=round(lost_s / 3600 + _seconds(_succeeded(last.values())) / 3600, 4),
        lost_core_h=round(lost_s / 3600, 4),
        slowest=tuple(_slowest(_succeeded(last.values()))),
        skipped=tasks.skipped + read.skipped,
        folder=run.folder,
    )


def _failed_tasks(last: Mapping[str, Row], failures: Sequence[Row]) -> Iterator[FailedTask]:
    final: dict[str, tuple[Row, int]] = {}
    retries: Counter[str] = Counter()
    for place, row in enumerate(failures):
        # The package `scalable` also writes failures that belong to no task.
        key = str(row.get("task_id") or f"\0{place}")
        if is_final(row):
            final.pop(key, None)
            final[key] = row, retries.pop(key, 0)
        else:
            retries[key] += 1
    for key, row in last.items():
        if row.get("state") == TaskState.FAILED.label:
            final.setdefault(key, (row, 0))
    for key, (row, retried) in final.items():
        ended = last.get(key, {})
        if ended.get("state") not in _DONE:
            yield _failed_task(row, ended, retried)


def _failed_task(row: Row, ended: Row, retries: int) -> FailedTask:
    def text(name: str) -> str:
        return str(row.get(name) or "")

    duration_s = number(row.get("duration_s"))
    return FailedTask(
        task_id=text("task_id"),
        function_name=text("function_name") or str(ended.get("function_name") or ""),
        args_preview=text("args_preview"),
        failure_class=text("failure_class") or "unknown error",
        message=text("message"),
        worker=text("worker"),
        host=text("host"),
        duration_s=duration_s if duration_s >= 0 else None,
        retries=retries,
        category=text("category") or "unknown",
        fingerprint=text("fingerprint"),
    )


def _succeeded(rows: Iterable[Row]) -> Iterator[Row]:
    return (row for row in rows if row.get("state") == TaskState.SUCCEEDED.label)


def _seconds(rows: Iterable[Row]) -> float:
    return sum(s for row in rows if (s := number(row.get("duration_s"))) > 0)


def _slowest(rows: Iterable[Row]) -> Iterator[tuple[str, float]]:
    timed = ((number(row.get("duration_s")), row) for row in rows)
    known = ((seconds, row) for seconds, row in timed if seconds > 0)
    for seconds, row in nlargest(_SLOWEST, known, key=itemgetter(0)):
        yield call_label(row), round(seconds, 3)


def _attempts(last: Mapping[str, Row], failures: Iterable[Row]) -> int:
    """Attempts so far, for a run that has no summary yet."""
    made = {
        key: _count(row.get("attempts"), int(row.get("state") != TaskState.CACHED.label))
        for key, row in last.items()
    }
    for row in failures:
        key = str(row.get("task_id"))
        made[key] = max(made.get(key, 0), _count(row.get("attempt"), 1))
    return sum(made.values())


def _states(rows: Iterable[Row]) -> dict[str, int]:
    found = Counter(one_line(row.get("state"), 40) for row in rows)
    known = {state: found.pop(state) for state in STATE_LABELS if state in found}
    return {**known, **found}


def _state_counts(sums: Row) -> dict[str, int]:
    counts = sums.get("counts")
    # Another package's summary has counts of other things under the same name.
    if not isinstance(counts, dict) or not counts.keys() <= set(STATE_LABELS):
        return {}
    found = {state: _count(counts.get(state), 0) for state in STATE_LABELS}
    return {state: count for state, count in found.items() if count}


def _unfinished(run: RunPaths, about: Row) -> tuple[str, str]:
    """State of a run that wrote no end, and the machine its host is on."""
    contact = read_sign(run.session_json)
    host = str(contact.get("host") or about.get("hostname") or platform.node())
    if contact:
        return ("running" if is_alive(contact) else "interrupted"), host
    if host != platform.node():  # a run of another package, without signs of life
        return "unknown", host
    newest = max((file.stat().st_mtime for file in run.folder.iterdir()), default=0.0)
    return ("running" if time() - newest < _TRANSITION_S else "interrupted"), host


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def _count(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
