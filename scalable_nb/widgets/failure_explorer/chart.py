"""The chart of the failure explorer: one FigureWidget that is kept and brought up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anywidget
import ipywidgets
import plotly.graph_objects as go

from scalable_nb.figures.explorer_figure import ARGUMENT, CLASSES, PLACES, POINTS, RETRIES, TIMELINE

#: Traces that can be clicked, and what is chosen by it.
_CLICKABLE: Final = {
    CLASSES[0]: "error_class",
    CLASSES[1]: "error_class",
    POINTS: "error_class",
    TIMELINE: "span",
    PLACES: "place",
    ARGUMENT: "argument",
    RETRIES[0]: "attempt",
    RETRIES[1]: "attempt",
}
#: Traces of which several can be chosen at once, by a box or a lasso around them.
_SELECTABLE: Final = (*CLASSES, POINTS, TIMELINE)

#: Called with dimensions of a selection and what is chosen there: numbers of lines, bars or
#: rows; of ``duration_s`` seconds. Then whether it was a click: a second one takes it back.
OnSelection = Callable[[Mapping[str, Sequence[float]], bool], None]


class _Width(anywidget.AnyWidget):
    """Keeps the chart beside it as wide as the page; shows nothing itself."""

    _esm = Path(__file__).parents[1] / "static" / "chart_width.js"


class FailureChart(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A figure on show, of which every instance costs the page 5 MB.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure
        From `scalable_nb.figures.explorer_figure`.
    on_selection : callable
        See `OnSelection`.
    """

    def __init__(self, figure: go.Figure, on_selection: OnSelection) -> None:
        self._on_selection = on_selection
        self._figure = go.FigureWidget(figure)
        # Measured again when `_Width` says so.
        self._figure._config = {**self._figure._config, "responsive": True, "displaylogo": False}
        for place in _CLICKABLE:
            self._figure.data[place].on_click(self._clicked)
        for place in _SELECTABLE:
            self._figure.data[place].on_selection(self._selected)
        super().__init__([_Width(), self._figure])

    def draw(self, figure: go.Figure) -> None:
        """Take over the values of another figure of the same traces."""
        with self._figure.batch_update():
            for shown, trace in zip(self._figure.data, figure.data, strict=True):
                shown.update(trace.to_plotly_json(), overwrite=True)
            self._figure.layout.update(figure.layout.to_plotly_json(), overwrite=True)

    def mark(self, chosen: Mapping[str, Sequence[float] | None]) -> None:
        """Let what is chosen stand out, by dimension as for `OnSelection`; None for all alike."""
        lines = chosen.get("error_class")
        with self._figure.batch_update():
            for place in CLASSES:
                self._figure.data[place].selectedpoints = lines
            self._figure.data[POINTS].selectedpoints = self._points(lines, chosen.get("duration_s"))
            self._figure.data[TIMELINE].selectedpoints = chosen.get("span")
            self._figure.data[ARGUMENT].selectedpoints = chosen.get("argument")
            for place in RETRIES:
                self._figure.data[place].selectedpoints = chosen.get("attempt")

    def _points(
        self, lines: Sequence[float] | None, seconds: Sequence[float] | None
    ) -> list[int] | None:
        if lines is None and seconds is None:
            return None
        low, high = seconds or (0.0, float("inf"))
        points = self._figure.data[POINTS]
        return [
            number
            for number, (x, y) in enumerate(zip(points.x or (), points.y or (), strict=True))
            if low <= x <= high and (lines is None or round(y) in lines)
        ]

    def _clicked(self, trace: Any, points: Any, state: Any) -> None:
        # plotly calls all traces of a subplot; the one that was hit has points.
        if points.ys:
            dimension = _CLICKABLE[points.trace_index]
            self._on_selection({dimension: _lines(dimension, points)[:1]}, True)

    def _selected(self, trace: Any, points: Any, selector: Any) -> None:
        if not points.ys:
            return
        dimension = _CLICKABLE[points.trace_index]
        selected: dict[str, Sequence[float]] = {dimension: _lines(dimension, points)}
        if points.trace_index == POINTS:
            selected["duration_s"] = points.xs
        self._on_selection(selected, False)
        # What is chosen stands out by itself. The page alone knows of the outline: to set
        # the layout's property, which is empty here, would send nothing.
        self._figure._send_relayout_msg({"selections": []})


def _lines(dimension: str, points: Any) -> list[int]:
    if dimension in ("span", "argument", "attempt"):
        return list(points.point_inds)
    return [round(y) for y in points.ys]
