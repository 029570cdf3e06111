"""What became of a run, told from its folder alone: no session, no cluster needed."""

from __future__ import annotations

from scalable_nb.report.build import FailedTask, Report, build_report

__all__ = ["FailedTask", "Report", "build_report"]
