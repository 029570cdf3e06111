"""What all figures share: colours, labels that draw text as text, axes for light and dark."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import plotly.graph_objects as go

from scalable_nb.telemetry.sanitize import one_line

#: Colour of each category: told apart by the colour-blind, legible on white and on black.
CATEGORY_COLOURS: Final = {
    "transient": "#4a90d9",
    "permanent": "#d1495b",
    "resource": "#9467bd",
    "timeout": "#e08e0b",
    "infrastructure": "#2a9d8f",
    "unknown": "#8c8c8c",
}

# Halfway between the text colours of the light and the dark theme: 4.5:1 on white and 4.2:1
# on JupyterLab's black.
TEXT: Final = "#767676"
GRID: Final = "rgba(128,128,128,0.22)"
CLEAR: Final = "rgba(0,0,0,0)"
NOTHING: Final = {
    "text": "no failed attempts",
    "showarrow": False,
    "xref": "paper",
    "yref": "paper",
    "x": 0.5,
    "y": 0.5,
}


def label_text(value: object, max_chars: int = 60) -> str:
    """Text for a label or a hover box: one line, cut, drawn as it is written."""
    # "$" as an entity is not seen by the search for formulas; quotes need no escape, and
    # plotly would not undo it.
    return html.escape(one_line(value, max_chars), quote=False).replace("$", "&#36;")


def colours(categories: Iterable[Any]) -> list[str]:
    """The colour of each category; unknown ones are grey."""
    unknown = CATEGORY_COLOURS["unknown"]
    return [CATEGORY_COLOURS.get(category, unknown) for category in categories]


class Panel(NamedTuple):
    """What a figure draws: alone, or in its place among others.

    The kinds, the number and the order of the traces are the same for all data, so that a
    figure on show can take over the values of a new one.

    Attributes
    ----------
    traces : list
    x, y : dict
        Of the axes.
    height : int
        Of the drawing alone, in pixels.
    shapes : list of dict
        Whose ``y`` are shares of the panel.
    """

    traces: list[Any]
    x: dict[str, Any]
    y: dict[str, Any]
    height: int
    shapes: list[dict[str, Any]] = []  # noqa: RUF012 - never changed

    @property
    def is_empty(self) -> bool:
        """Whether no trace has a value."""
        return not any(
            trace.visible is not False and any(value is not None for value in _values(trace))
            for trace in self.traces
        )


def _values(trace: Any) -> Any:
    found = trace.y if trace.x is None else trace.x
    return () if found is None else found


def single(panel: Panel, key: Iterable[Any] = ()) -> go.Figure:
    """A panel as a figure of its own."""
    figure = go.Figure([*panel.traces, *key])
    styled(figure, panel.height + 120, panel.is_empty)
    figure.update_xaxes(visible=not panel.is_empty, **panel.x)
    figure.update_yaxes(visible=not panel.is_empty, **panel.y)
    if not panel.is_empty:
        figure.layout.shapes = [{**shape, "yref": "y domain"} for shape in panel.shapes]
    return figure


def styled(figure: go.Figure, height: int, is_empty: bool) -> go.Figure:
    """Give a figure the look of all: transparent, readable on white and on black."""
    figure.update_layout(
        template="none",
        barmode="stack",
        height=height,
        margin={"l": 10, "r": 20, "t": 46, "b": 50},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"color": TEXT, "size": 12},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.0,
            "yanchor": "top",
            "yref": "container",
            "traceorder": "normal",
            "itemclick": False,
            "itemdoubleclick": False,
        },
        hoverlabel={"align": "left"},
        modebar={
            "bgcolor": CLEAR,
            "color": GRID,
            "activecolor": TEXT,
            # Nothing leaves this machine, also not by a wrong click.
            "remove": ["sendChartToCloud", "select2d", "lasso2d"],
        },
        hovermode="closest",
        uirevision="kept",  # a zoom survives new values
    )
    if is_empty:
        figure.layout.annotations = [NOTHING]
    figure.update_xaxes(gridcolor=GRID, zeroline=False, automargin=True, title_font_size=12)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, automargin=True, title_font_size=12)
    return figure
