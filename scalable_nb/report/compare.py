"""Two runs side by side: what was mended, what is new, what became slower."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from scalable_nb.report.build import Report
from scalable_nb.telemetry.sanitize import one_line

_LISTED: Final = 10


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
            ("failed for good", len(before.failed), len(after.failed)),
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
