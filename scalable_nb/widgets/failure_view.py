"""What the failure explorer shows at a moment: tables and findings for what is chosen; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from scalable_nb import figures
from scalable_nb.faults.arguments import Argument, explaining_arguments, outcomes
from scalable_nb.faults.diagnose import Finding, diagnose
from scalable_nb.figures import Seen, explorer_figure, shown_classes
from scalable_nb.telemetry.frames import (
    failure_groups,
    limits_of,
    place_kind,
    place_table,
    retry_table,
    timeline_table,
)
from scalable_nb.telemetry.runs import Records
from scalable_nb.telemetry.selection import Selection

if TYPE_CHECKING:
    import pandas as pd


class FailureView:
    """Tables of some records, all of them and those that are chosen.

    Parameters
    ----------
    records : Records
    selection : Selection
    timeout_s, walltime_s : float, optional
        Limits to draw; those that the failures show where they are not given.
    """

    def __init__(
        self,
        records: Records,
        selection: Selection | None = None,
        timeout_s: float | None = None,
        walltime_s: float | None = None,
    ) -> None:
        self.records = records
        self.frame: pd.DataFrame = records.failures
        shown_timeout_s, shown_walltime_s = limits_of(self.frame)
        self.timeout_s = timeout_s if timeout_s is not None else shown_timeout_s
        self.walltime_s = walltime_s if walltime_s is not None else shown_walltime_s
        self.kind = place_kind(self.frame)
        workers = records.workers
        self._workers = workers
        self.findings: list[Finding] = diagnose(self.frame, tasks=records.tasks, workers=workers)
        self.arguments: list[Argument] = self._explaining()
        self.choose(selection or Selection())

    def choose(self, selection: Selection) -> None:
        """Show what is chosen: every chart what is chosen in the others, the groups all of it."""
        self.selection = selection
        frame, tasks = self.frame, self.records.tasks
        self.chosen = selection.of(frame)
        self.groups = failure_groups(self.chosen)
        self.by_class = selection.without("error_class").of(frame)
        self.classes = shown_classes(self.by_class)
        self.timeline = timeline_table(selection.without("span").of(frame), tasks, self._workers)
        self.places = place_table(selection.without("place").of(frame), self.kind)
        self.retries = retry_table(self.chosen, tasks)

    @property
    def argument(self) -> Argument | None:
        """The argument that explains most, where one does."""
        found = self.arguments[0] if self.arguments else None
        return found if found and found.information.p_value <= 0.05 else None

    def _explaining(self) -> list[Argument]:
        ended = outcomes(self.records.tasks)
        failed = (ended["state"] == "failed").to_numpy()
        if not failed.any() or failed.all():
            return []
        return explaining_arguments(ended["args_preview"].tolist(), failed)

    def explorer_figure(self) -> go.Figure:
        """All panels in one figure."""
        return explorer_figure(
            Seen(
                self.by_class,
                self.timeline,
                self.places,
                self.retries,
                self.argument,
                self.timeout_s,
                self.walltime_s,
            )
        )

    def figures(self) -> dict[str, go.Figure]:
        """Each panel as a figure of its own, and the numeric arguments' distributions."""
        found = {
            "error_classes": figures.error_classes(self.by_class),
            "execution_times": figures.execution_times(
                self.by_class, self.timeout_s, self.walltime_s
            ),
            "timeline": figures.timeline(self.timeline),
            "places": figures.places(self.places),
            "retries": figures.retries(self.retries),
            "explorer": self.explorer_figure(),
        }
        for argument in self.arguments[:5]:
            found[f"argument {argument.name}"] = figures.argument_rates(argument)
            if argument.is_numeric:
                found[f"values of {argument.name}"] = figures.argument_values(argument)
        return found

    def frames(self) -> dict[str, pd.DataFrame]:
        """The tables that the figures are drawn from."""
        import pandas as pd

        rows: list[dict[str, Any]] = [
            {
                "argument": argument.name,
                "level": level.label,
                "failed": level.failed,
                "total": level.total,
                "share": level.rate.share,
                "low": level.rate.low,
                "high": level.rate.high,
                "information_bits": argument.information.bits,
                "p_value": argument.information.p_value,
            }
            for argument in self.arguments
            for level in argument.levels
        ]
        return {
            "failures": self.chosen,
            "groups": self.groups,
            "error_classes": self.classes,
            "timeline": self.timeline,
            "places": self.places,
            "retries": self.retries,
            "arguments": pd.DataFrame(rows),
        }
