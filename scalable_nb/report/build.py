"""Reading a run folder, and the report that comes of it."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, Final

from scalable_nb.diagnosis.retry_effect import retried_tasks
from scalable_nb.errors import RunFolderError
from scalable_nb.paths import RunPaths
from scalable_nb.protocol.connection_file import is_alive, read_state
from scalable_nb.report.run_report import FailedTask, Report, Row, call_label
from scalable_nb.telemetry.aggregates import failure_classes, last_rows
from scalable_nb.telemetry.journal_reader import read_object, read_rows
from scalable_nb.telemetry.recorded_inputs import RecordedInputs
from scalable_nb.telemetry.redaction import HIDDEN, NOTICE, RedactedRecords, redact_name
from scalable_nb.telemetry.rows import STATE_LABELS, TaskState
from scalable_nb.telemetry.run_tables import Records, RunRecords
from scalable_nb.telemetry.sanitize import one_line

if TYPE_CHECKING:
    import pandas as pd

# Runs of the package `scalable` have no session.json: a young one may go on.
_TRANSITION_S: Final = 60.0


_DONE: Final = (TaskState.SUCCEEDED.label, TaskState.CACHED.label)
_SLOWEST: Final = 5


def build_report(run: RunPaths, *, redact: bool = False) -> Report:
    """Read a run folder.

    Parameters
    ----------
    run : RunPaths
        The run, see `scalable_nb.paths.find_run`. It may be going on, or be one of the
        package `scalable`.
    redact : bool
        Leave out arguments, messages, output, environment and paths.

    Raises
    ------
    OSError
        When a file of the folder exists and cannot be opened.
    """
    problems: list[str] = []
    about, sums = (_object_in(path, problems) for path in (run.run_json, run.summary_json))
    followed = RunRecords(run)
    followed.poll()
    records: Records = RedactedRecords(followed) if redact else followed
    inputs = RecordedInputs.from_rows(_rows_in(run.inputs, problems))
    # Redacted rows have other ids, in the same order.
    task_ids, failed_ids = followed.tasks["task_id"], followed.failures["task_id"]
    failures = records.failures.assign(inputs=inputs.of(failed_ids).to_numpy())
    last = last_rows(records.tasks.assign(inputs=inputs.of(task_ids).to_numpy()))
    succeeded = last[last["state"] == TaskState.SUCCEEDED.label]
    ended_at = sums.get("ended_at") or about.get("ended_at") or about.get("finished_at")
    state, host = ("finished", "") if ended_at else unfinished(run, about)
    states = _state_counts(sums) or inputs.count_states(
        last_rows(followed.tasks), failed_ids, is_over=state in ("finished", "interrupted")
    )
    lost_s = _seconds(failures)
    classes = failure_classes(failures)
    counts = (classes["final"] + classes["retried"]).tolist()
    name = redact_name if redact else one_line
    return Report(
        run_id=run.run_id,
        project=name(about.get("project") or about.get("project_name")),
        target=name(about.get("target") or about.get("target_name")),
        state=state,
        host=name(host),
        # A failure's text may contain anything.
        end_reason=name(sums.get("end_reason"))
        if redact
        else one_line(sums.get("end_reason"), 500),
        started_at=_text(about.get("started_at")),
        ended_at=_text(ended_at),
        tasks=states,
        attempts=_count(sums.get("attempts"), _attempts(last, failures)),
        retries=_count(sums.get("retries"), int((~failures["is_final"]).sum())),
        retries_helped=int(retried_tasks(failures, last)["helped"].sum()),
        cached=states.get(TaskState.CACHED.label, 0),
        failures_by_class=dict(zip(classes["failure_class"].tolist(), counts, strict=True)),
        failed=tuple(_failed_tasks(last, failures)),
        used_core_h=round((lost_s + _seconds(succeeded)) / 3600, 4),
        lost_core_h=round(lost_s / 3600, 4),
        slowest=tuple(_slowest(succeeded)),
        skipped=followed.unread,
        folder=Path(HIDDEN, run.run_id) if redact else run.folder,
        redacted=NOTICE if redact else "",
        problems=() if redact else (*problems, *followed.refused),
    )


def _object_in(path: Path, problems: list[str]) -> dict[str, Any]:
    """Return the JSON object in a file; note why it was not read."""
    try:
        return read_object(path)
    except RunFolderError as error:
        problems.append(str(error))
        return {}


def _rows_in(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Return the rows of a journal; note why it was not read."""
    try:
        return read_rows(path).rows
    except RunFolderError as error:
        problems.append(str(error))
        return []


def _failed_tasks(last: pd.DataFrame, failures: pd.DataFrame) -> Iterator[FailedTask]:
    final: dict[str, tuple[int, int]] = {}  # place of the last row, retries
    retries: Counter[str] = Counter()
    keys, ends = failures["task_id"].tolist(), failures["is_final"].tolist()
    for place, (task_id, is_final) in enumerate(zip(keys, ends, strict=True)):
        # The package `scalable` also writes failures that belong to no task.
        key = task_id or f"\0{place}"
        if is_final:
            final.pop(key, None)
            final[key] = place, retries.pop(key, 0)
        else:
            retries[key] += 1
    names = dict(zip(last["task_id"], last["function_name"], strict=True))
    done = set(last.loc[last["state"].isin(_DONE), "task_id"])
    # Tasks without inputs were replaced by tasks of corrected code.
    replaced = set(failures.loc[failures["inputs"] == 0, "task_id"])
    listed = [entry for key, entry in final.items() if key not in done and key not in replaced]
    rows: Any = failures.iloc[[place for place, _ in listed]].to_dict("records")
    for row, (_, retried) in zip(rows, listed, strict=True):
        yield _failed_task(row, names.get(row["task_id"], ""), retried)
    is_failed = (last["state"] == TaskState.FAILED.label) & (last["inputs"] > 0)
    without_row = is_failed & ~last["task_id"].isin(final)
    rows = last[without_row].to_dict("records")
    for row in rows:
        yield _failed_task(row, "", 0)


def _failed_task(row: Row, function_name: str, retries: int) -> FailedTask:
    def text(name: str) -> str:
        return str(row.get(name) or "")

    return FailedTask(
        task_id=text("task_id"),
        function_name=text("function_name") or function_name,
        args_preview=text("args_preview"),
        failure_class=text("failure_class") or "unknown error",
        message=text("message"),
        worker=text("worker"),
        host=text("host"),
        duration_s=row["duration_s"] if row["duration_s"] >= 0 else None,
        retries=retries,
        category=text("category") or "unknown",
        fingerprint=text("fingerprint"),
        inputs=int(row["inputs"]),
    )


def _seconds(rows: pd.DataFrame) -> float:
    return float(rows["duration_s"].clip(lower=0).sum())


def _slowest(succeeded: pd.DataFrame) -> Iterator[tuple[str, float]]:
    timed = succeeded[succeeded["duration_s"] > 0]
    rows: Any = timed.nlargest(_SLOWEST, "duration_s").to_dict("records")
    for row in rows:
        yield call_label(row), round(row["duration_s"], 3)


def _attempts(last: pd.DataFrame, failures: pd.DataFrame) -> int:
    """Attempts so far, for a run that has no summary yet."""
    import pandas as pd

    made = last.set_index("task_id")["attempts"]
    failed = failures.groupby("task_id")["attempt"].max()
    return int(pd.concat([made, failed]).groupby(level=0).max().sum())


def _state_counts(sums: Row) -> dict[str, int]:
    counts = sums.get("counts")
    # Another package's summary has counts of other things under the same name.
    if not isinstance(counts, dict) or not counts.keys() <= set(STATE_LABELS):
        return {}
    found = {state: _count(counts.get(state), 0) for state in STATE_LABELS}
    return {state: count for state, count in found.items() if count}


def _count(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def unfinished(run: RunPaths, about: Mapping[str, Any]) -> tuple[str, str]:
    """State of a run that wrote no end, and the machine its host is on."""
    state = read_state(run.session_json)
    host = str(state.get("host") or about.get("hostname") or platform.node())
    if state:
        return ("running" if is_alive(state) else "interrupted"), host
    if run.host_log.exists():  # ours: the next start took its sign away, because it was dead
        return "interrupted", host
    if host != platform.node():  # a run of another package, without signs of life
        return "unknown", host
    newest = max((file.stat().st_mtime for file in run.folder.iterdir()), default=0.0)
    return ("running" if time() - newest < _TRANSITION_S else "interrupted"), host
