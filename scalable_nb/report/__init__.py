"""What became of a run, told from its folder alone: no session, no cluster needed."""

from __future__ import annotations

from scalable_nb.report.build import build_report
from scalable_nb.report.run_overview import Comparison, Runs, compare, overview
from scalable_nb.report.run_report import FailedTask, Report

__all__ = [
    "Comparison",
    "FailedTask",
    "Report",
    "Runs",
    "build_report",
    "compare",
    "overview",
]
