"""The report on a run, and its text for a terminal, free of control characters."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from scalable_nb.diagnosis.diagnose import FAST_FAIL_S
from scalable_nb.diagnosis.findings import Finding
from scalable_nb.telemetry.recorded_inputs import UNFINISHED
from scalable_nb.telemetry.rows import TaskState
from scalable_nb.telemetry.sanitize import one_line

Row = Mapping[str, Any]

#: Only runs that record their inputs have them.
_NOT_ENDED: Final = frozenset({UNFINISHED, TaskState.NEVER_RAN.label})

_WIDTH: Final = 88
#: Of the evidence, what stands in the sentence already.
_SAID: Final = ("example", "tasks")


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
    inputs : int
        Inputs of batches that have this task.
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
    inputs: int = 1

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
        Number of inputs by state; plain tasks of Dask count one each. For a run that did not
        record them and has no end, of those that ended.
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
    redacted : str
        The kinds of data that a redacted report leaves out, and those that remain; else empty.
    problems : tuple of str
        Why files of the run were not read.
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
    redacted: str = ""
    problems: tuple[str, ...] = ()

    @property
    def failed_inputs(self) -> int:
        """Number of inputs whose tasks failed after all retries."""
        return sum(task.inputs for task in self.failed)

    def to_text(self, failures: bool = False) -> str:
        """The report as text: the summary, or the list of what failed."""
        text = failure_list(self) if failures else summary(self)
        return f"{self.redacted}\n\n{text}" if self.redacted else text

    def to_dict(self) -> dict[str, Any]:
        """The report as values that JSON knows."""
        values = asdict(self) | {"folder": str(self.folder)}
        return {k: v for k, v in values.items() if v or k not in ("redacted", "problems")}


def summary(report: Report) -> str:
    """A run in a dozen lines."""
    total = sum(report.tasks.values())
    failed = sum(report.failures_by_class.values())
    states = ", ".join(f"{count:,} {state}" for state, count in report.tasks.items())
    classes = ", ".join(f"{one_line(k, 80)} {n:,}" for k, n in report.failures_by_class.items())
    table = {
        "Project": report.project,
        "Target": report.target,
        "Time": _time_text(report),
        "Ended because": report.end_reason,
        "Tasks": _with(total, states),
        "Attempts": f"{report.attempts:,}",
        "Retries": _with(report.retries, f"{_tasks(report.retries_helped)} succeeded in a retry"),
        "From cache": f"{report.cached:,}",
        "Failed attempts": _with(failed, classes),
        "Core-hours": _core_hours(report),
        "Slowest": ", ".join(
            f"{one_line(call, 60)} {format_duration(s)}" for call, s in report.slowest[:3]
        ),
        "Files": str(report.folder),
    }
    lines = [f"Run {report.run_id}: {report.state}", ""]
    lines += [f"{name + ':':<17}{text}" for name, text in table.items() if text]
    if report.failed:
        command = f"scalable report --run-id {report.run_id} --failures"
        lines += ["", f"{_tasks(report.failed_inputs)} failed for good; why: {command}"]
    return "\n".join(lines + _notes(report))


def failure_list(report: Report) -> str:
    """The tasks that failed for good, each with its call, error, worker and duration."""
    total = sum(report.tasks.values())
    has_all = report.state == "finished" or not _NOT_ENDED.isdisjoint(report.tasks)
    kind = "tasks" if has_all else "tasks that ended so far"
    if report.failed:
        lines = [f"Failures ({report.failed_inputs:,} of {total:,} {kind}):"]
    else:
        lines = [f"No failures: none of {total:,} {kind} failed for good."]
    for place, task in enumerate(report.failed, start=1):
        lines += ["", *_task_lines(f"{place}. ", task)]
    return "\n".join(lines + _notes(report))


def format_duration(seconds: float) -> str:
    """Seconds as a person writes them: ``0.1s``, ``4.2s``, ``180s``, ``2h 05min``."""
    if seconds < 0.05:
        return "<0.1s"
    if round(seconds, 1) < 10:
        return f"{seconds:.1f}s"
    if seconds < 3600:
        return f"{seconds:.0f}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}h {minutes:02d}min"


def _task_lines(number: str, task: FailedTask) -> list[str]:
    message = one_line(task.message, 500)
    lines = [f"Error: {one_line(task.failure_class)}" + (f" — {message}" if message else "")]
    if task.worker:
        lines.append(f"Worker: {one_line(task.worker)}")
    if task.duration_s is not None:
        remark = " (fast fail — permanent error)" if task.is_fast_permanent else ""
        lines.append(f"Duration before failure: {format_duration(task.duration_s)}{remark}")
    if task.inputs > 1:
        lines.append(f"Inputs with this call: {task.inputs:,}")
    if task.retries:
        lines.append(f"Retries attempted: {task.retries} (all failed)")
    return [number + task.label, *(" " * len(number) + line for line in lines)]


def _time_text(report: Report) -> str:
    begin, end = _instant(report.started_at), _instant(report.ended_at)
    if begin is None:
        return ""
    text = f"started {begin:%Y-%m-%d %H:%M:%S} UTC"
    if end is None:
        return text
    return f"{text}, took {format_duration((end - begin).total_seconds())}"


def _core_hours(report: Report) -> str:
    if not report.used_core_h:
        return ""
    share = report.lost_core_h / report.used_core_h
    lost = f" ({report.lost_core_h:.3g} in failed attempts, {share:.0%})" if share else ""
    return f"{report.used_core_h:.3g}{lost}"


def _notes(report: Report) -> list[str]:
    notes = []
    if report.state == "running":
        notes.append("This run is still going on; the numbers are those of now.")
    elif report.state == "interrupted":
        notes.append("This run was interrupted: its host is gone and wrote no end.")
    elif report.state == "unknown":
        notes.append(
            f"This run has no end yet. It was begun on {one_line(report.host)!r}; whether it "
            "still goes on can only be seen there."
        )
    if report.skipped:
        lines = "1 line" if report.skipped == 1 else f"{report.skipped:,} lines"
        notes.append(f"Of the journal {lines} could not be read; the numbers are without them.")
    notes += [one_line(problem, 400) for problem in report.problems]
    return ["", *notes] if notes else []


def _instant(text: str | None) -> datetime | None:
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at if at.tzinfo else None


def _with(count: int, details: str) -> str:
    return f"{count:,} ({details})" if count and details else f"{count:,}"


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count:,} tasks"


def diagnosis_text(run_id: str, findings: Sequence[Finding], notes: Sequence[str] = ()) -> str:
    """Findings with their numbers, confidence and what to do; then what could not be read."""
    lines = [f"Run {run_id}: {_counted(len(findings))}, the costliest first"]
    if not findings:
        lines = [f"Run {run_id}: nothing to diagnose, no attempt failed for a known cause."]
    for place, finding in enumerate(findings, start=1):
        sure = f"({finding.rule.replace('_', ' ')}, {finding.confidence:.0%} sure)"
        indent = " " * len(f"{place}. ")
        lines += ["", *_wrapped(f"{place}. {_plain(finding.sentence)} {sure}", indent)]
        lines += _wrapped(f"{indent}Numbers: {_numbers(finding.evidence)}", indent + "  ")
        lines += _wrapped(f"{indent}Do: {_plain(finding.action)}", indent + "  ")
        if finding.code:
            lines.append(f"{indent}Code: {one_line(finding.code)}")
    lines += [f"Note: {one_line(note, 400)}" for note in notes]
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _plain(text: str) -> str:
    return one_line(text, 1_000)


def _numbers(evidence: Mapping[str, Any]) -> str:
    shown = []
    for name, value in evidence.items():
        if name in _SAID or value in ("", [], {}):
            continue
        words = f"{value:.4g}" if isinstance(value, float) else one_line(value, 80)
        shown.append(f"{name.replace('_', ' ')} {words}")
    return ", ".join(shown)


def _counted(count: int) -> str:
    return "1 finding" if count == 1 else f"{count:,} findings"
