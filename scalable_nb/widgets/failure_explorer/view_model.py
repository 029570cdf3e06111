"""What the failure explorer shows at a moment: tables and findings for what is chosen; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from scalable_nb import figures
from scalable_nb.diagnosis.argument_rates import Argument, explaining_arguments, outcomes
from scalable_nb.diagnosis.diagnose import diagnose
from scalable_nb.diagnosis.findings import Finding
from scalable_nb.diagnosis.selection import Selection
from scalable_nb.figures.error_classes import shown_classes
from scalable_nb.figures.explorer_figure import ExplorerData, explorer_figure
from scalable_nb.telemetry.aggregates import (
    failure_groups,
    limits_of,
    place_kind,
    place_table,
    retry_table,
    timeline_table,
)
from scalable_nb.telemetry.run_tables import Records

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
        # Classes and execution times stand on the same lines: they are one chart here.
        self.by_class = selection.without("error_class", "duration_s").of(frame)
        self.classes = shown_classes(self.by_class)
        self.timeline = timeline_table(selection.without("span").of(frame), tasks, self._workers)
        self.places = place_table(selection.without("place").of(frame), self.kind)
        self.retries = retry_table(selection.without("attempt").of(frame), tasks)

    # --- lines of the charts -----------------------------------------------------

    def classes_of(self, name: str) -> tuple[str, ...]:
        """The classes of a line of the chart; the last one may stand for many."""
        if name:
            return (name,)
        shown = set(self.classes["failure_class"])
        return ("", *(str(n) for n in self.by_class["failure_class"].unique() if n not in shown))

    def value_at(self, dimension: str, lines: Sequence[float]) -> Any:
        """What lines, bars or rows stand for in a dimension of the selection.

        Parameters
        ----------
        dimension : str
        lines : sequence of float
            Their numbers; of ``duration_s`` seconds. Where only one can be chosen, the first.
        """
        first, last = int(min(lines)), int(max(lines))
        if dimension == "duration_s":
            low = min(lines)
            return (low if low > figures.SHORTEST_S else 0.0), max(lines)
        if dimension == "error_class":
            names = self.classes["failure_class"].iloc[sorted({int(line) for line in lines})]
            return tuple(each for name in names for each in self.classes_of(str(name)))
        if dimension == "span":
            begins = self.timeline["begin"]
            return begins.iloc[first], begins.iloc[last] + (begins.iloc[1] - begins.iloc[0])
        if dimension == "place":
            return self.kind, str(self.places.index[first])
        if dimension == "attempt":
            return int(self.retries.index[first])
        assert self.argument is not None  # else there would be no bar
        return self.argument.name, self.argument.levels[first].label

    def marks(self) -> dict[str, Sequence[float] | None]:
        """The lines or bars that are chosen, by dimension; none where nothing is."""
        chosen = self.selection
        found: dict[str, Sequence[float] | None] = {"duration_s": chosen.duration_s}
        if chosen.error_class is not None:
            names = self.classes["failure_class"].tolist()
            found["error_class"] = [n for n, name in enumerate(names) if name in chosen.error_class]
        if chosen.span is not None:
            inside = self.timeline["begin"].between(*chosen.span, inclusive="left")
            found["span"] = inside.to_numpy().nonzero()[0].tolist()
        if chosen.attempt is not None:
            found["attempt"] = (self.retries.index == chosen.attempt).nonzero()[0].tolist()
        if chosen.argument is not None and self.argument is not None:
            labels = [level.label for level in self.argument.levels]
            found["argument"] = [n for n, label in enumerate(labels) if label == chosen.argument[1]]
        return found

    # --- arguments and figures ---------------------------------------------------

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
            ExplorerData(
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
