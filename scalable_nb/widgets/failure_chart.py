"""The chart of the failure explorer: one FigureWidget that is kept and brought up to date."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import anywidget
import ipywidgets
import plotly.graph_objects as go

from scalable_nb.figures.explorer import ARGUMENT, CLASSES, PLACES, POINTS, TIMELINE

#: Traces that can be clicked, and what is chosen by it.
_CLICKABLE: Final = {
    CLASSES[0]: "error_class",
    CLASSES[1]: "error_class",
    POINTS: "error_class",
    TIMELINE: "span",
    PLACES: "place",
    ARGUMENT: "argument",
}


class _Width(anywidget.AnyWidget):
    """Keeps the chart beside it as wide as the page; shows nothing itself."""

    _esm = Path(__file__).parent / "static" / "chart_width.js"


class FailureChart(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A figure on show, of which every instance costs the page 5 MB.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure
        From `scalable_nb.figures.explorer_figure`.
    on_click : callable
        Called with a dimension (``error_class``, ``span``, ``place`` or ``argument``) and the
        number of the line, bar or row that was clicked; of a place, also of the column.
    """

    def __init__(self, figure: go.Figure, on_click: Callable[[str, int, int], None]) -> None:
        self._on_click = on_click
        self._figure = go.FigureWidget(figure)
        # Measured again when `_Width` says so.
        self._figure._config = {**self._figure._config, "responsive": True, "displaylogo": False}
        for place in _CLICKABLE:
            self._figure.data[place].on_click(self._clicked)
        super().__init__([_Width(), self._figure])

    def draw(self, figure: go.Figure) -> None:
        """Take over the values of another figure of the same traces."""
        with self._figure.batch_update():
            for shown, trace in zip(self._figure.data, figure.data, strict=True):
                shown.update(trace.to_plotly_json(), overwrite=True)
            self._figure.layout.update(figure.layout.to_plotly_json(), overwrite=True)

    def mark(self, chosen: dict[str, list[int] | None]) -> None:
        """Let the lines or bars stand out that are chosen in a dimension; None for all alike."""
        lines = chosen.get("error_class")
        points = None
        if lines is not None:
            places = self._figure.data[POINTS].y or ()
            points = [n for n, place in enumerate(places) if round(place) in lines]
        with self._figure.batch_update():
            for place in CLASSES:
                self._figure.data[place].selectedpoints = lines
            self._figure.data[POINTS].selectedpoints = points
            self._figure.data[TIMELINE].selectedpoints = chosen.get("span")
            self._figure.data[ARGUMENT].selectedpoints = chosen.get("argument")

    def _clicked(self, trace: Any, points: Any, state: Any) -> None:
        # plotly calls all traces of a subplot; the one that was hit has points.
        if not points.ys:
            return
        dimension = _CLICKABLE[points.trace_index]
        if dimension in ("span", "argument"):
            self._on_click(dimension, points.point_inds[0], 0)
        elif dimension == "place":
            self._on_click(dimension, round(points.ys[0]), round(points.xs[0]))
        else:
            self._on_click(dimension, round(points.ys[0]), 0)
