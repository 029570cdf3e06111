"""All runs of a folder, one line each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scalable_nb.paths import RunPaths, list_runs
from scalable_nb.report.build import Report, build_report


@dataclass(frozen=True)
class RunLine:
    """One run.

    Attributes
    ----------
    state : str
        As `Report.state`.
    tasks, failed : int
        Tasks, and those of them that failed for good.
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
            started_at=(report.started_at or "")[:19].replace("T", " "),
            tasks=sum(report.tasks.values()),
            failed=len(report.failed),
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
