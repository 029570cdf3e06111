"""Several runs: all of a folder in one line each, or one compared with an earlier one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from scalable_nb.paths import RunPaths, list_runs
from scalable_nb.report.build import build_report
from scalable_nb.report.run_report import Report
from scalable_nb.telemetry.sanitize import one_line

_LISTED: Final = 10


@dataclass(frozen=True)
class RunLine:
    """One run.

    Attributes
    ----------
    state : str
        As `Report.state`.
    tasks, failed : int
        Number of inputs, and of those whose tasks failed after all retries.
    """

    run_id: str
    state: str
    target: str
    started_at: str
    tasks: int
    failed: int

    @classmethod
    def of(cls, report: Report) -> RunLine:
        """A report in one line."""
        return cls(
            run_id=report.run_id,
            state=report.state,
            target=report.target,
            started_at=one_line(report.started_at)[:19].replace("T", " "),
            tasks=sum(report.tasks.values()),
            failed=report.failed_inputs,
        )


@dataclass(frozen=True)
class Runs:
    """The runs of a folder, the newest first; shown as a table."""

    folder: Path
    runs: tuple[RunLine, ...]

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON knows."""
        return {"folder": str(self.folder), "runs": [asdict(run) for run in self.runs]}

    def __str__(self) -> str:
        if not self.runs:
            return f"No runs in {self.folder}; `%scalable start` begins one."
        head = ("run", "state", "target", "started (UTC)", "tasks", "failed")
        rows = [
            (r.run_id, r.state, r.target, r.started_at, f"{r.tasks:,}", f"{r.failed:,}")
            for r in self.runs
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (head, *rows)
        )

    __repr__ = __str__


def overview(runs_dir: Path) -> Runs:
    """All runs below a folder, the newest first."""
    return Runs(runs_dir, tuple(_line(run) for run in reversed(list_runs(runs_dir))))


def _line(run: RunPaths) -> RunLine:
    try:
        return RunLine.of(build_report(run))
    except OSError as error:  # somebody else's, or just being removed
        return RunLine(run.run_id, error.strerror or "unreadable", "", "", 0, 0)


@dataclass(frozen=True)
class Comparison:
    """A run against an earlier one; tasks are the same where their calls read the same.

    Attributes
    ----------
    before, after : Report
    mended, newly_failed, still_failed : tuple of str
        Calls.
    """

    before: Report
    after: Report
    mended: tuple[str, ...]
    newly_failed: tuple[str, ...]
    still_failed: tuple[str, ...]

    def to_text(self) -> str:
        """The comparison as a table and three lists."""
        before, after = self.before, self.after
        rows: list[tuple[str, object, object]] = [
            ("tasks", sum(before.tasks.values()), sum(after.tasks.values())),
            ("failed for good", before.failed_inputs, after.failed_inputs),
            ("attempts", before.attempts, after.attempts),
            ("retries", before.retries, after.retries),
            ("from cache", before.cached, after.cached),
            ("core-hours", f"{before.used_core_h:.3g}", f"{after.used_core_h:.3g}"),
            ("of them lost", f"{before.lost_core_h:.3g}", f"{after.lost_core_h:.3g}"),
        ]
        classes = {**before.failures_by_class, **after.failures_by_class}
        rows += [
            (
                one_line(name, 40),
                before.failures_by_class.get(name, 0),
                after.failures_by_class.get(name, 0),
            )
            for name in classes
        ]
        width = max(len(name) for name, _, _ in rows)
        lines = [f"Run {after.run_id} against {before.run_id}", ""]
        lines += [f"{name:<{width}}  {old!s:>10} -> {new!s:>10}" for name, old, new in rows]
        for title, calls in (
            ("Mended", self.mended),
            ("Newly failed", self.newly_failed),
            ("Still failed", self.still_failed),
        ):
            if calls:
                more = [f"  … and {len(calls) - _LISTED:,} more"] if len(calls) > _LISTED else []
                lines += ["", f"{title} ({len(calls):,}):", *(f"  {c}" for c in calls[:_LISTED])]
                lines += more
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The comparison as values that JSON knows."""
        return {
            **asdict(self),
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
        }


def compare(before: Report, after: Report) -> Comparison:
    """Set a run against an earlier one."""
    failed_before = dict.fromkeys(task.label for task in before.failed)
    failed_after = dict.fromkeys(task.label for task in after.failed)
    return Comparison(
        before,
        after,
        mended=tuple(call for call in failed_before if call not in failed_after),
        newly_failed=tuple(call for call in failed_after if call not in failed_before),
        still_failed=tuple(call for call in failed_after if call in failed_before),
    )
