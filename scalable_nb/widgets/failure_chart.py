"""The chart of the failure explorer: one FigureWidget that is kept and brought up to date."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import anywidget
import ipywidgets
import plotly.graph_objects as go

# Traces of `explorer_figure` whose marks belong to one line; the box and the key do not.
_BARS: Final = (0, 1)
_POINTS: Final = 3


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
        Called with the line (0 is the top one) on which a person clicked.
    """

    def __init__(self, figure: go.Figure, on_click: Callable[[int], None]) -> None:
        self._on_click = on_click
        self._figure = go.FigureWidget(figure)
        # Measured again when `_Width` says so.
        self._figure._config = {**self._figure._config, "responsive": True, "displaylogo": False}
        for place in (*_BARS, _POINTS):
            self._figure.data[place].on_click(self._clicked)
        super().__init__([_Width(), self._figure])

    def draw(self, figure: go.Figure) -> None:
        """Take over the values of another figure of the same traces."""
        with self._figure.batch_update():
            for shown, trace in zip(self._figure.data, figure.data, strict=True):
                shown.update(trace.to_plotly_json(), overwrite=True)
            self._figure.layout.update(figure.layout.to_plotly_json(), overwrite=True)

    def mark(self, line: int | None) -> None:
        """Let one line stand out; None for all lines alike."""
        bars = points = None
        if line is not None:
            bars = [line]
            places = self._figure.data[_POINTS].y or ()
            points = [n for n, place in enumerate(places) if round(place) == line]
        with self._figure.batch_update():
            for place in _BARS:
                self._figure.data[place].selectedpoints = bars
            self._figure.data[_POINTS].selectedpoints = points

    def _clicked(self, trace: Any, points: Any, state: Any) -> None:
        # plotly calls all traces of a subplot; the one that was hit has points.
        if points.ys:
            self._on_click(round(points.ys[0]))
