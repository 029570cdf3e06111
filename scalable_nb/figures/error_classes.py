"""Failed attempts by error class: how many, and how long they executed.

Both figures are made of the same few traces with one value per error class, and of a sample
of points, so that they cost the same for ten rows and for a million.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import plotly.graph_objects as go

from scalable_nb.diagnosis.known_causes import FAST_FAIL_S
from scalable_nb.figures.style import (
    CATEGORY_COLOURS,
    CLEAR,
    TEXT,
    Panel,
    colours,
    label_text,
    single,
)
from scalable_nb.telemetry.aggregates import failure_classes
from scalable_nb.telemetry.sanitize import one_line

if TYPE_CHECKING:
    import pandas as pd

#: Classes drawn by name; the rest is one bar.
MAX_CLASSES: Final = 15
MAX_POINTS: Final = 1500

_LOG_FROM_RATIO: Final = 50.0  # between the longest and the shortest duration
#: What a logarithmic axis shows instead of anything shorter.
SHORTEST_S: Final = 1e-3


def error_classes(frame: pd.DataFrame) -> go.Figure:
    """Failed attempts by error class, those that were final and those that were retried.

    Parameters
    ----------
    frame : pandas.DataFrame
        From `scalable_nb.telemetry.dataframes.failures_frame`.

    Returns
    -------
    plotly.graph_objects.Figure
        Two stacked horizontal bars per class, coloured by category: traces
        ``"failed for good"`` and ``"retried"`` (hatched). ``y`` is the place of the class,
        ``yaxis.ticktext`` its name; the most frequent is on top.
    """
    table = shown_classes(frame)
    return single(classes_panel(table), key(frame))


def execution_times(
    frame: pd.DataFrame, timeout_s: float | None = None, walltime_s: float | None = None
) -> go.Figure:
    """How long the failed attempts executed, by error class.

    Parameters
    ----------
    frame : pandas.DataFrame
        From `scalable_nb.telemetry.dataframes.failures_frame`.
    timeout_s, walltime_s : float, optional
        Draw a line at the time limit of an attempt, and at that of a job.

    Returns
    -------
    plotly.graph_objects.Figure
        One box per class, from all attempts, and a sample of at most `MAX_POINTS` attempts.
        The axis is logarithmic where the durations differ by more than a factor of 50. Shaded
        are the attempts that failed at once, and those that hit a limit.
    """
    table = shown_classes(frame)
    return single(times_panel(frame, table, timeout_s, walltime_s), key(frame))


def classes_panel(table: pd.DataFrame) -> Panel:
    """What `error_classes` draws."""
    return Panel(_bars(table), _count_axis(table), _class_axis(table), _height(table))


def times_panel(
    frame: pd.DataFrame,
    table: pd.DataFrame,
    timeout_s: float | None = None,
    walltime_s: float | None = None,
) -> Panel:
    """What `execution_times` draws."""
    limits = [limit for limit in (timeout_s, walltime_s) if limit is not None]
    return Panel(
        _times(frame, table, timeout_s, walltime_s),
        _time_axis(frame, limits),
        _class_axis(table),
        _height(table),
        regions(limits, float(frame["duration_s"].max())),
    )


def shown_classes(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of every figure: error classes, those after `MAX_CLASSES` as one.

    Returns
    -------
    pandas.DataFrame
        As `scalable_nb.telemetry.aggregates.failure_classes`, with ``label``, the text to draw.
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
            marker=_bar_marker(colours(table["category"]), shape),
        )
        for outcome, name, then, shape in (
            ("final", "failed for good", "ended their task", ""),
            ("retried", "retried", "were followed by a retry", "/"),
        )
    ]


def _times(
    frame: pd.DataFrame, table: pd.DataFrame, timeout_s: float | None, walltime_s: float | None
) -> list[Any]:
    timed = frame[frame["duration_s"] >= 0]
    classes = {name: place for place, name in enumerate(table["failure_class"])}
    # What has no line of its own is in the last one.
    lines = [classes.get(name, len(table) - 1) for name in timed["failure_class"].cat.categories]
    places = np.array(lines, dtype="int64")[timed["failure_class"].cat.codes]
    seconds = timed["duration_s"].clip(lower=SHORTEST_S).to_numpy(dtype="float64")
    return [
        _box(places, seconds, len(table)),
        _points(timed, places, seconds),
        _limit("time limit", timeout_s, "timeout", len(table)),
        _limit("walltime", walltime_s, "infrastructure", len(table)),
    ]


def _limit(name: str, limit_s: float | None, category: str, lines: int) -> go.Scatter:
    return go.Scatter(
        x=[limit_s, limit_s],
        y=[-0.5, lines - 0.5],
        name=name,
        legendrank=2000,  # last
        mode="lines",
        line={"color": CATEGORY_COLOURS[category], "dash": "dash", "width": 1.5},
        hoverinfo="x+name",
        visible=limit_s is not None,
    )


def regions(limits: list[float], longest_s: float) -> list[dict[str, Any]]:
    """Shaded ranges of the time axis: failed at once, and hit a limit."""
    # Not beyond the attempts: a shape would stretch the axis. (NaN, of none, compares as false.)
    fast_s = min(FAST_FAIL_S, 1.1 * longest_s) if longest_s > SHORTEST_S else FAST_FAIL_S
    marked = [(SHORTEST_S, fast_s, "fast fail", "permanent", "left")]
    marked += [
        (0.97 * limit, 1.05 * limit, "hit the limit", "timeout", "right") for limit in limits
    ]
    return [
        {
            "type": "rect",
            "x0": low,
            "x1": high,
            "y0": 0,
            "y1": 1,
            "layer": "below",
            "line_width": 0,
            "fillcolor": CATEGORY_COLOURS[category],
            "opacity": 0.12,
            "label": {"text": text, "textposition": f"top {side}", "font": {"size": 10}},
        }
        for low, high, text, category, side in marked
    ]


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
        line={"color": TEXT, "width": 1.5},
        fillcolor=CLEAR,
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
        marker={"size": 6, "opacity": 0.6, "color": colours(rows["category"])},
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


def key(frame: pd.DataFrame) -> list[Any]:
    """The legend: the categories that occur, by colour, and the two outcomes, by pattern."""
    found = {str(category) for category in frame["category"].unique()}
    present = {category if category in CATEGORY_COLOURS else "unknown" for category in found}
    keys = [(name, colour, "", name in present) for name, colour in CATEGORY_COLOURS.items()]
    keys += [
        (name, TEXT, shape, bool(present))
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


def _time_axis(frame: pd.DataFrame, limits: list[float]) -> dict[str, Any]:
    seconds = frame["duration_s"].clip(lower=SHORTEST_S).dropna()
    longest = max(seconds.max(), *limits, 0) if len(seconds) else 1.0
    is_log = len(seconds) > 0 and longest / seconds.min() > _LOG_FROM_RATIO
    return {
        "title_text": "execution time of the attempt (s)" + (", logarithmic" if is_log else ""),
        "type": "log" if is_log else "linear",
        "dtick": 1 if is_log else None,
        "rangemode": "normal" if is_log else "tozero",
        "tickformat": "~g",
    }


def _class_axis(table: pd.DataFrame) -> dict[str, Any]:
    return {
        "tickvals": list(range(len(table))),
        "ticktext": table["label"].tolist(),
        "range": [max(1, len(table)) - 0.5, -0.5],
        "showgrid": False,
    }


def _height(table: pd.DataFrame) -> int:
    return 32 * max(3, len(table))
