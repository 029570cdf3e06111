"""When, where, with which arguments and in which attempt it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go

from scalable_nb.diagnosis.argument_rates import Argument
from scalable_nb.figures.style import CATEGORY_COLOURS, TEXT, Panel, label_text, single

if TYPE_CHECKING:
    import pandas as pd

_HEIGHT: Final = 190
_FAILED: Final = CATEGORY_COLOURS["permanent"]
_GOOD: Final = CATEGORY_COLOURS["infrastructure"]
_NO_ARGUMENT: Final = "no argument tells failed from succeeded calls"


def timeline(table: pd.DataFrame) -> go.Figure:
    """Attempts over time: bars for those that failed, a line for all, marks for lost workers.

    Parameters
    ----------
    table : pandas.DataFrame
        From `scalable_nb.telemetry.aggregates.timeline_table`.
    """
    return single(timeline_panel(table))


def timeline_panel(table: pd.DataFrame) -> Panel:
    """What `timeline` draws: failed, all, lost workers, workers that came."""
    at = table["begin"].dt.tz_localize(None).tolist() if len(table) else []
    width_ms = 1000 * float(table["width_s"].iloc[0]) if len(table) else 1.0
    hover = "<b>%{y:,}</b> of %{customdata:,} attempts that ended here failed<extra></extra>"
    lost, came = table[table["workers_lost"] > 0], table[table["workers_came"] > 0]

    def marks(rows: pd.DataFrame, name: str, words: str, symbol: str, colour: str) -> go.Scatter:
        return go.Scatter(
            x=[at[place] for place in rows.index],
            y=[0] * len(rows),
            name=name,
            mode="markers",
            marker={"symbol": symbol, "size": 9, "color": colour},
            customdata=rows[name.replace(" ", "_")].tolist(),
            hovertemplate=f"%{{customdata:,}} {words}<extra></extra>",
            showlegend=False,
            cliponaxis=False,
        )

    traces = [
        go.Bar(
            x=at,
            y=table["failed"].tolist(),
            name="failed attempts",
            width=[width_ms] * len(table),
            offset=0,
            customdata=table["ended"].tolist(),
            hovertemplate=hover,
            marker={"color": _FAILED},
            showlegend=False,
        ),
        go.Scatter(
            x=at,
            y=table["ended"].tolist(),
            name="all attempts",
            mode="lines",
            line={"color": TEXT, "width": 1, "shape": "hv"},
            hoverinfo="skip",
            showlegend=False,
        ),
        marks(lost, "workers lost", "workers lost", "x", CATEGORY_COLOURS["infrastructure"]),
        marks(came, "workers came", "workers came", "triangle-up", TEXT),
    ]
    return Panel(
        traces,
        {"type": "date", "title_text": "time (UTC)", "tickangle": 0, "nticks": 4},
        {"title_text": "attempts", "rangemode": "tozero"},
        _HEIGHT,
    )


def places(table: pd.DataFrame) -> go.Figure:
    """Where what failed: a heat map that shows a bad node as a dark line.

    Parameters
    ----------
    table : pandas.DataFrame
        From `scalable_nb.telemetry.aggregates.place_table`.
    """
    return single(places_panel(table))


def places_panel(table: pd.DataFrame) -> Panel:
    """What `places` draws."""
    classes = [label_text(name, 24) for name in table.columns]
    names = [label_text(name, 30) for name in table.index]
    heat = go.Heatmap(
        x=list(range(len(classes))),
        y=list(range(len(names))),
        z=table.to_numpy().tolist(),
        customdata=[[[name, error] for error in classes] for name in names],
        # Told by a number as well as by a colour.
        text=[[f"{count:,}" if count else "" for count in line] for line in table.to_numpy()],
        texttemplate="%{text}",
        hovertemplate="<b>%{z:,}</b> failed attempts with %{customdata[1]} on %{customdata[0]}"
        "<extra></extra>",
        # Solid where something failed, so that plotly sees on what its numbers stand.
        colorscale=[[0, "rgba(209,73,91,0.04)"], [1e-6, "#f0cdd2"], [1, _FAILED]],
        zmin=0,
        showscale=False,
        xgap=1,
        ygap=1,
    )
    return Panel(
        [heat],
        {"tickvals": heat.x, "ticktext": classes, "showgrid": False, "tickangle": 30},
        {
            "tickvals": heat.y,
            "ticktext": names,
            "showgrid": False,
            "title_text": table.index.name,
            "range": [max(1, len(names)) - 0.5, -0.5],
        },
        max(_HEIGHT, 16 * len(names)),
    )


def argument_rates(argument: Argument | None) -> go.Figure:
    """How often calls fail by the values of one argument, with 95 % confidence intervals.

    Parameters
    ----------
    argument : Argument, optional
        From `scalable_nb.diagnosis.argument_rates.explaining_arguments`.
    """
    return single(argument_panel(argument))


def argument_panel(argument: Argument | None) -> Panel:
    """What `argument_rates` draws."""
    levels = argument.levels[:20] if argument else []
    name = label_text(argument.name, 30) if argument else ""
    bars = go.Bar(
        x=list(range(len(levels))),
        y=[level.rate.share for level in levels],
        error_y={
            "type": "data",
            "array": [level.rate.high - level.rate.share for level in levels],
            "arrayminus": [level.rate.share - level.rate.low for level in levels],
            "color": TEXT,
            "thickness": 1,
        },
        customdata=[[level.failed, level.total, label_text(level.label)] for level in levels],
        hovertemplate=f"<b>%{{customdata[0]:,}}</b> of %{{customdata[1]:,}} calls with {name} = "
        "%{customdata[2]} failed<extra></extra>",
        marker={"color": _FAILED},
        name="share that failed",
        showlegend=False,
    )
    title = _NO_ARGUMENT
    if argument:
        found = argument.information
        title = f"{name} (explains {found.share:.0%} of the failures, p = {found.p_value:.2g})"
    return Panel(
        [bars],
        {
            "tickvals": bars.x,
            "ticktext": [label_text(level.label, 18) for level in levels],
            "title_text": title,
            "showgrid": False,
        },
        {"title_text": "share that failed", "range": [0, 1], "tickformat": ".0%"},
        _HEIGHT,
    )


def argument_values(argument: Argument) -> go.Figure:
    """Values of a numeric argument: of failed calls against those that succeeded."""
    traces = [
        go.Histogram(
            x=argument.values[argument.failed == outcome].tolist(),
            name=name,
            histnorm="probability",
            nbinsx=40,
            opacity=0.6,
            marker={"color": colour},
        )
        for outcome, name, colour in ((False, "succeeded", _GOOD), (True, "failed", _FAILED))
    ]
    panel = Panel(
        traces,
        {"title_text": label_text(argument.name)},
        {"title_text": "share of the calls", "tickformat": ".0%"},
        _HEIGHT,
    )
    figure = single(panel)
    figure.update_layout(barmode="overlay")
    return figure


def retries(table: pd.DataFrame) -> go.Figure:
    """How many tasks were tried how often, and how often each attempt succeeded.

    Parameters
    ----------
    table : pandas.DataFrame
        From `scalable_nb.telemetry.aggregates.retry_table`.
    """
    return single(retries_panel(table))


def retries_panel(table: pd.DataFrame) -> Panel:
    """What `retries` draws: attempts that succeeded, and that failed, by their number."""
    numbers = table.index.tolist()
    facts: list[list[Any]] = table[["success_rate", "waited_s", "lost_core_h"]].to_numpy().tolist()
    hover = (
        "attempt %{x}: <b>%{y:,}</b> {word}<br>%{customdata[0]:.0%} of these attempts succeed; "
        "%{customdata[1]:,.0f} s waited for them, %{customdata[2]:.2f} core-hours lost"
        "<extra></extra>"
    )
    traces = [
        go.Bar(
            x=numbers,
            y=table[column].tolist(),
            name=column,
            customdata=facts,
            hovertemplate=hover.replace("{word}", column),
            marker={"color": colour},
            showlegend=False,
        )
        for column, colour in (("succeeded", _GOOD), ("failed", _FAILED))
    ]
    waited, lost = float(table["waited_s"].sum()), float(table["lost_core_h"].sum())
    title = f"attempt ({waited:,.0f} s of waiting, {lost:.2f} core-hours lost)"
    return Panel(
        traces,
        {"title_text": title, "tickvals": numbers, "showgrid": False},
        {"title_text": "attempts", "rangemode": "tozero", "type": "linear"},
        _HEIGHT,
    )
