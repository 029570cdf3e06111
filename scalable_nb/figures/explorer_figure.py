"""All panels in one figure, of which the failure explorer shows one instance for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from scalable_nb.diagnosis.argument_rates import Argument
from scalable_nb.figures.error_classes import classes_panel, key, shown_classes, times_panel
from scalable_nb.figures.failure_context import (
    argument_panel,
    places_panel,
    retries_panel,
    timeline_panel,
)
from scalable_nb.figures.style import Panel, styled

if TYPE_CHECKING:
    import pandas as pd

#: Where the traces of each panel begin in the figure.
CLASSES: Final = (0, 1)
POINTS: Final = 3
TIMELINE: Final = 6
PLACES: Final = 10
ARGUMENT: Final = 11
RETRIES: Final = (12, 13)
_GAP: Final = 75  # pixels between two rows, for the axis between them
_EDGE: Final = 110


class ExplorerData(NamedTuple):
    """What the figure is drawn from; every table already filtered by what is chosen elsewhere.

    Attributes
    ----------
    failures : pandas.DataFrame
        For classes and execution times.
    timeline, places, retries : pandas.DataFrame
        See `scalable_nb.telemetry.aggregates`.
    argument : Argument or None
        The one that explains most.
    timeout_s, walltime_s : float or None
    """

    failures: pd.DataFrame
    timeline: pd.DataFrame
    places: pd.DataFrame
    retries: pd.DataFrame
    argument: Argument | None
    timeout_s: float | None = None
    walltime_s: float | None = None


def explorer_figure(seen: ExplorerData) -> go.Figure:
    """Classes and execution times, timeline and places, arguments and retries.

    The kinds, the number and the order of the traces are the same for all data, so that a
    figure on show can take over the values of a new one.
    """
    table = shown_classes(seen.failures)
    rows: list[tuple[Panel, Panel]] = [
        (
            classes_panel(table),
            times_panel(seen.failures, table, seen.timeout_s, seen.walltime_s),
        ),
        (timeline_panel(seen.timeline), places_panel(seen.places)),
        (argument_panel(seen.argument), retries_panel(seen.retries)),
    ]
    heights = [max(panel.height for panel in row) for row in rows]
    inner = sum(heights) + _GAP * (len(rows) - 1)
    figure = make_subplots(
        len(rows),
        2,
        row_heights=[height / sum(heights) for height in heights],
        column_widths=[0.46, 0.54],
        horizontal_spacing=0.09,
        vertical_spacing=_GAP / inner,
    )
    styled(figure, inner + _EDGE, is_empty=not len(table))
    figure.update_layout(modebar_remove=["sendChartToCloud"])
    shapes = []
    for row, panels in enumerate(rows, start=1):
        for column, panel in enumerate(panels, start=1):
            figure.add_traces(panel.traces, rows=row, cols=column)
            figure.update_xaxes(**panel.x, row=row, col=column)
            figure.update_yaxes(**panel.y, row=row, col=column)
            number = 2 * (row - 1) + column
            axis = "" if number == 1 else str(number)
            shapes += [
                {**shape, "xref": f"x{axis}", "yref": f"y{axis} domain"} for shape in panel.shapes
            ]
    figure.add_traces(key(seen.failures), rows=1, cols=1)
    figure.layout.shapes = shapes
    figure.update_yaxes(matches="y", showticklabels=False, row=1, col=2)
    if not len(table):
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
        figure.layout.shapes = []
    return figure
