"""Records to plotly figures: pure functions, no widget, no network.

Every figure is made of the same few traces with one value per error class, and of a sample
of points, so that it costs the same for ten rows and for a million, and a figure on show
can be brought up to date by giving its traces new values.

Text from errors is untrusted. plotly draws a subset of HTML and, where MathJax is loaded,
``$…$``; so all such text goes through `label_text`.
"""

from __future__ import annotations

import html
import textwrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from scalable_nb.telemetry.frames import failure_classes
from scalable_nb.telemetry.plaintext import one_line

if TYPE_CHECKING:
    import pandas as pd

#: Colour of each category: told apart by the colour-blind, legible on white and on black.
CATEGORY_COLOURS: Final = {
    "transient": "#4a90d9",
    "permanent": "#d1495b",
    "resource": "#9467bd",
    "timeout": "#e08e0b",
    "infrastructure": "#2a9d8f",
    "unknown": "#8c8c8c",
}
#: Classes drawn by name; the rest is one bar.
MAX_CLASSES: Final = 15
MAX_POINTS: Final = 1500

# Halfway between the text colours of the light and the dark theme: 4.5:1 on white and 4.2:1
# on JupyterLab's black.
_TEXT: Final = "#767676"
_GRID: Final = "rgba(128,128,128,0.22)"
_CLEAR: Final = "rgba(0,0,0,0)"
_LOG_FROM_RATIO: Final = 50.0  # between the longest and the shortest duration
_SHORTEST_S: Final = 1e-3  # what a logarithmic axis shows instead of 0
_NOTHING: Final = {
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


def error_classes(frame: pd.DataFrame) -> go.Figure:
    """Failed attempts by error class, those that were final and those that were retried.

    Parameters
    ----------
    frame : pandas.DataFrame
        From `scalable_nb.telemetry.frames.failures_frame`.

    Returns
    -------
    plotly.graph_objects.Figure
        Two stacked horizontal bars per class, coloured by category: traces
        ``"failed for good"`` and ``"retried"`` (hatched). ``y`` is the place of the class,
        ``yaxis.ticktext`` its name; the most frequent is on top.
    """
    table = shown_classes(frame)
    figure = go.Figure([*_bars(table), *_key(frame)])
    figure.update_xaxes(**_count_axis(table))
    return _styled(figure, table)


def execution_times(frame: pd.DataFrame, timeout_s: float | None = None) -> go.Figure:
    """How long the failed attempts executed, by error class.

    Parameters
    ----------
    frame : pandas.DataFrame
        From `scalable_nb.telemetry.frames.failures_frame`.
    timeout_s : float, optional
        Draws a line at the limit.

    Returns
    -------
    plotly.graph_objects.Figure
        One box per class, from all attempts, and a sample of at most `MAX_POINTS` attempts.
        The axis is logarithmic where the durations differ by more than a factor of 50.
    """
    table = shown_classes(frame)
    figure = go.Figure([*_times(frame, table, timeout_s), *_key(frame)])
    figure.update_xaxes(**_time_axis(frame, timeout_s))
    return _styled(figure, table)


def explorer_figure(frame: pd.DataFrame, timeout_s: float | None = None) -> go.Figure:
    """`error_classes` and `execution_times` side by side, one line per class.

    The kinds, the number and the order of the traces are the same for every frame, so that
    a figure on show can take over the values of a new one.
    """
    table = shown_classes(frame)
    figure = make_subplots(
        1, 2, shared_yaxes=True, column_widths=[0.42, 0.58], horizontal_spacing=0.03
    )
    for column, traces in (
        (1, _bars(table)),
        (2, _times(frame, table, timeout_s)),
        (1, _key(frame)),
    ):
        figure.add_traces(traces, rows=1, cols=column)
    figure.update_xaxes(**_count_axis(table), col=1)
    figure.update_xaxes(**_time_axis(frame, timeout_s), col=2)
    return _styled(figure, table)


def shown_classes(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of every figure: error classes, those after `MAX_CLASSES` as one.

    Returns
    -------
    pandas.DataFrame
        As `scalable_nb.telemetry.frames.failure_classes`, with ``label``, the text to draw.
        The line of the others has an empty ``failure_class``.
    """
    import pandas as pd

    table = failure_classes(frame)
    table["label"] = [label_text(name, 40) for name in table["failure_class"]]
    if len(table) <= MAX_CLASSES:
        return table
    named, rest = table.iloc[:MAX_CLASSES], table.iloc[MAX_CLASSES:]
    others = rest[["final", "retried"]].sum().to_dict() | {
        "failure_class": "",
        "category": "unknown",
        "label": f"{len(rest):,} other classes",
    }
    return pd.concat([named, pd.DataFrame([others])], ignore_index=True)


# --- traces ------------------------------------------------------------------


def _bars(table: pd.DataFrame) -> list[go.Bar]:
    return [
        go.Bar(
            x=table[outcome].tolist(),
            y=list(range(len(table))),
            name=name,
            customdata=[*zip(table["label"], map(label_text, table["category"]), strict=True)],
            hovertemplate="%{x:,} failed attempts with <b>%{customdata[0]}</b> "
            f"(%{{customdata[1]}}) {then}<extra></extra>",
            orientation="h",
            width=0.62,
            showlegend=False,
            marker=_bar_marker(_colours(table["category"]), shape),
        )
        for outcome, name, then, shape in (
            ("final", "failed for good", "ended their task", ""),
            ("retried", "retried", "were followed by a retry", "/"),
        )
    ]


def _times(frame: pd.DataFrame, table: pd.DataFrame, timeout_s: float | None) -> list[Any]:
    timed = frame[frame["duration_s"] >= 0]
    classes = {name: place for place, name in enumerate(table["failure_class"])}
    # What has no line of its own is in the last one.
    places = timed["failure_class"].map(classes).fillna(len(table) - 1).to_numpy(dtype="int64")
    seconds = timed["duration_s"].clip(lower=_SHORTEST_S).to_numpy(dtype="float64")
    limit = go.Scatter(
        x=[timeout_s, timeout_s],
        y=[-0.5, len(table) - 0.5],
        name="time limit",
        legendrank=2000,  # last
        mode="lines",
        line={"color": CATEGORY_COLOURS["timeout"], "dash": "dash", "width": 1.5},
        hoverinfo="x+name",
        visible=timeout_s is not None,
    )
    return [_box(places, seconds, len(table)), _points(timed, places, seconds), limit]


def _box(places: np.ndarray[Any, Any], seconds: np.ndarray[Any, Any], classes: int) -> go.Box:
    drawn = [place for place in range(classes) if (places == place).any()]
    # Given as five numbers, a box costs the same for any number of attempts.
    five = [np.quantile(seconds[places == place], [0, 0.25, 0.5, 0.75, 1]) for place in drawn]
    low, q1, median, q3, high = np.array(five).reshape(-1, 5).T.tolist()
    return go.Box(
        y=drawn,
        lowerfence=low,
        q1=q1,
        median=median,
        q3=q3,
        upperfence=high,
        orientation="h",
        width=0.62,
        name="all attempts",
        line={"color": _TEXT, "width": 1.5},
        fillcolor=_CLEAR,
        zorder=1,  # over the points, which would hide it
        hoverinfo="skip",
        showlegend=False,
    )


def _points(
    timed: pd.DataFrame, places: np.ndarray[Any, Any], seconds: np.ndarray[Any, Any]
) -> go.Scatter:
    chosen = _sample(places, seconds)
    rows = timed.iloc[chosen]
    # The golden ratio spreads any number of points evenly, and the same way every time.
    spread = (np.arange(len(chosen)) * 0.618034) % 1 - 0.5
    return go.Scatter(
        x=seconds[chosen].tolist(),
        y=(places[chosen] + 0.45 * spread).tolist(),
        mode="markers",
        name="attempts",
        marker={"size": 6, "opacity": 0.6, "color": _colours(rows["category"])},
        customdata=_hover_texts(rows),
        hovertemplate="%{customdata}<extra></extra>",
        showlegend=False,
    )


def _sample(places: np.ndarray[Any, Any], seconds: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Indices of at most `MAX_POINTS` attempts, evenly from all classes and durations."""
    order = np.lexsort((seconds, places))
    if len(order) <= MAX_POINTS:
        return order
    every = np.linspace(0, len(order) - 1, MAX_POINTS).astype("int64")
    return np.asarray(order[every])


def _key(frame: pd.DataFrame) -> list[Any]:
    """The legend: the categories that occur, by colour, and the two outcomes, by pattern."""
    present = set(frame["category"].where(frame["category"].isin(CATEGORY_COLOURS), "unknown"))
    keys = [(name, colour, "", name in present) for name, colour in CATEGORY_COLOURS.items()]
    keys += [
        (name, _TEXT, shape, bool(present))
        for name, shape in (("failed for good", ""), ("retried", "/"))
    ]
    return [
        go.Bar(
            x=[None],
            y=[None],
            name=name,
            marker=_bar_marker(colour, shape),
            orientation="h",
            hoverinfo="skip",
            visible=visible,
        )
        for name, colour, shape, visible in keys
    ]


def _bar_marker(colour: str | list[str], shape: str) -> dict[str, Any]:
    pattern = {"shape": shape, "fillmode": "replace", "size": 6, "solidity": 0.3}
    return {"color": colour, "pattern": pattern, "line": {"width": 1, "color": colour}}


def _colours(categories: pd.Series[Any]) -> list[str]:
    unknown = CATEGORY_COLOURS["unknown"]
    return [CATEGORY_COLOURS.get(category, unknown) for category in categories]


def _hover_texts(rows: pd.DataFrame) -> list[str]:
    names = [
        "function_name",
        "args_preview",
        "task_id",
        "failure_class",
        "message",
        "attempt",
        "attempts_allowed",
        "duration_s",
        "worker",
    ]
    texts = []
    for function, args, task_id, error, message, attempt, allowed, seconds, worker in rows[
        names
    ].itertuples(index=False):
        lines = [
            f"<b>{label_text(f'{function}({args})' if function else task_id, 80)}</b>",
            label_text(error),
            *(label_text(line, 70) for line in textwrap.wrap(one_line(message, 240), 70)),
            f"attempt {attempt} of {max(attempt, allowed)}, {seconds:.3g} s",
        ]
        texts.append("<br>".join([*lines, f"on {label_text(worker)}"] if worker else lines))
    return texts


# --- layout ------------------------------------------------------------------


def _count_axis(table: pd.DataFrame) -> dict[str, Any]:
    # Whole numbers, also where there are only two of them.
    few = (table["final"] + table["retried"]).max() < 5 if len(table) else True
    return {"title_text": "failed attempts", "rangemode": "tozero", "dtick": 1 if few else None}


def _time_axis(frame: pd.DataFrame, timeout_s: float | None) -> dict[str, Any]:
    seconds = frame["duration_s"].clip(lower=_SHORTEST_S).dropna()
    longest = max(seconds.max(), timeout_s or 0) if len(seconds) else 1.0
    is_log = len(seconds) > 0 and longest / seconds.min() > _LOG_FROM_RATIO
    return {
        "title_text": "execution time of the attempt (s)" + (", logarithmic" if is_log else ""),
        "type": "log" if is_log else "linear",
        "dtick": 1 if is_log else None,
        "rangemode": "normal" if is_log else "tozero",
        "tickformat": "~g",
    }


def _styled(figure: go.Figure, table: pd.DataFrame) -> go.Figure:
    figure.update_layout(
        template="none",
        barmode="stack",
        height=120 + 32 * max(3, len(table)),
        margin={"l": 10, "r": 20, "t": 46, "b": 50},
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        font={"color": _TEXT, "size": 12},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.03,
            "yanchor": "bottom",
            "traceorder": "normal",
            "itemclick": False,
            "itemdoubleclick": False,
        },
        hoverlabel={"align": "left"},
        modebar={
            "bgcolor": _CLEAR,
            "color": _GRID,
            "activecolor": _TEXT,
            "remove": ["select2d", "lasso2d"],
        },
        hovermode="closest",
        uirevision="kept",  # a zoom survives new values
        annotations=[] if len(table) else [_NOTHING],
    )
    figure.update_xaxes(
        gridcolor=_GRID,
        zeroline=False,
        automargin=True,
        title_font_size=12,
        visible=len(table) > 0,
    )
    figure.update_yaxes(
        tickvals=list(range(len(table))),
        ticktext=table["label"].tolist(),
        range=[max(1, len(table)) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
        automargin=True,
    )
    return figure
