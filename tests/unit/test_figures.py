"""What the figures of failures draw: bars, boxes and points as data."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from journal_rows import failure, tutorial_failures
from synthetic_journals import AttemptEnd, Call, run_with
from test_journal_reader import ANY_ROWS

from scalable_nb.figures import CATEGORY_COLOURS, MAX_CLASSES, MAX_POINTS
from scalable_nb.figures.error_classes import error_classes, execution_times
from scalable_nb.figures.style import label_text
from scalable_nb.telemetry.dataframes import failures_frame
from scalable_nb.telemetry.run_tables import RowRecords
from scalable_nb.widgets.failure_explorer.view_model import FailureView


def explorer_figure(rows: list[dict[str, Any]], timeout_s: float | None = None) -> Any:
    return FailureView(RowRecords(rows), timeout_s=timeout_s).explorer_figure()


def traces(figure: Any, kind: str, name: str) -> Any:
    return next(t for t in figure.data if t.type == kind and t.name == name)


def test_bars_count_attempts_by_class_and_outcome() -> None:
    """One line per class, the most frequent on top: final attempts, and those that were retried."""
    figure = error_classes(failures_frame(tutorial_failures()))
    axis = figure.layout.yaxis
    assert list(axis.ticktext) == ["MemoryError", "ConnectionError", "TimeoutError", "ValueError"]
    assert axis.range[0] > axis.range[1]
    final, retried = figure.data[:2]
    assert list(final.y) == list(retried.y) == list(axis.tickvals)
    assert list(final.x) == [1, 0, 1, 1]
    assert list(retried.x) == [3, 3, 0, 0]
    assert figure.layout.barmode == "stack"
    assert list(final.marker.color) == [
        CATEGORY_COLOURS[name] for name in ("resource", "transient", "timeout", "permanent")
    ]


def test_outcomes_differ_by_more_than_colour() -> None:
    """Retried attempts are hatched, in the bars and in the legend."""
    figure = error_classes(failures_frame(tutorial_failures()))
    assert [figure.data[n].marker.pattern.shape for n in (0, 1)] == ["", "/"]
    legend = {t.name: t for t in figure.data[2:] if t.visible}
    assert list(legend) == [
        "transient", "permanent", "resource", "timeout", "failed for good", "retried",
    ]  # fmt: skip
    assert legend["retried"].marker.pattern.shape == "/"


def test_boxes_are_the_quartiles_of_all_attempts() -> None:
    """The box of a class comes from all its attempts, and every attempt is a point on its line."""
    seconds = [1.0, 2.0, 3.0, 4.0, 10.0]
    rows = [failure(n, duration_s=s) for n, s in enumerate(seconds)]
    figure = execution_times(failures_frame(rows))
    box = traces(figure, "box", "all attempts")
    assert [list(box[name]) for name in ("lowerfence", "q1", "median", "q3", "upperfence")] == [
        [1.0], [2.0], [3.0], [4.0], [10.0],
    ]  # fmt: skip
    points = traces(figure, "scatter", "attempts")
    assert sorted(points.x) == seconds
    assert {round(y) for y in points.y} == {0}
    assert figure.layout.xaxis.type == "linear"


def test_far_durations_make_the_axis_logarithmic() -> None:
    """From 0.1 s to 300 s a linear axis would hide the short ones; zero is still drawn."""
    rows = [failure(1, duration_s=0.0), failure(2, duration_s=300.0)]
    figure = execution_times(failures_frame(rows), timeout_s=600.0)
    assert figure.layout.xaxis.type == "log"
    assert min(traces(figure, "scatter", "attempts").x) > 0
    limit = traces(figure, "scatter", "time limit")
    assert limit.visible
    assert list(limit.x) == [600.0, 600.0]
    assert not traces(execution_times(failures_frame(rows)), "scatter", "time limit").visible


def test_attempts_without_a_duration_have_no_point() -> None:
    """A row whose duration nobody knows is counted in the bars and absent from the times."""
    rows = [failure(1, duration_s=None), failure(2, failure_class="KeyError")]
    figure = explorer_figure(rows)
    assert sum(figure.data[0].x) == 2
    assert len(traces(figure, "scatter", "attempts").x) == 1
    assert list(traces(figure, "box", "all attempts").y) == [1]


def test_the_explorer_shows_both_with_the_same_lines() -> None:
    """Both stand on the same lines, and every frame has the same traces in the same order."""
    figure = explorer_figure(tutorial_failures(), 300.0)
    other = explorer_figure([failure(1)])
    assert [(t.type, t.name) for t in figure.data] == [(t.type, t.name) for t in other.data]
    assert figure.layout.yaxis2.matches == "y"
    assert {t.xaxis for t in figure.data if t.type == "box"} == {"x2"}
    assert list(figure.layout.yaxis.ticktext) == list(figure.layout.yaxis2.ticktext)


def test_rare_classes_share_a_line() -> None:
    """However many classes there are, the figure stays readable and no attempt is lost."""
    rows = [failure(n, failure_class=f"Error{n % 40:02}", duration_s=2.0) for n in range(100)]
    figure = explorer_figure(rows)
    labels = list(figure.layout.yaxis.ticktext)
    assert len(labels) == MAX_CLASSES + 1
    assert labels[-1] == f"{40 - MAX_CLASSES} other classes"
    assert sum(figure.data[0].x) + sum(figure.data[1].x) == 100
    points = np.round(traces(figure, "scatter", "attempts").y)
    assert (points == MAX_CLASSES).sum() == figure.data[0].x[-1]


def test_a_large_journal_makes_a_small_figure() -> None:
    """The size of a figure does not grow with the number of attempts."""
    rows = [failure(n % 900, duration_s=n * 0.01 + 1) for n in range(20_000)]
    figure = explorer_figure(rows)
    points = traces(figure, "scatter", "attempts")
    assert len(points.x) == MAX_POINTS
    assert min(points.x) == pytest.approx(1.0)
    assert max(points.x) == pytest.approx(200.99)
    assert len(figure.to_json()) < 600_000


def test_nothing_failed_is_said() -> None:
    """Without a failed attempt the figure says so instead of drawing empty axes."""
    figure = explorer_figure([])
    assert figure.layout.annotations[0].text == "no failed attempts"
    assert not figure.layout.xaxis.visible


@pytest.fixture(scope="module")
def view() -> FailureView:
    """A run in which a node, the early years and some connections are bad."""

    def plan(call: Call, dice: random.Random) -> AttemptEnd | None:
        if call.host == "n3":
            return 1, False, {"failure_class": "OSError", "category": "unknown"}
        return (1, True, {}) if call.year < 1965 else None

    run = run_with(plan, 3, noise=0.1)
    left = {"event_type": "worker-left", "timestamp": run.failures[9]["timestamp"]}
    records = RowRecords(run.failures, run.tasks)
    came = {"event_type": "worker-connected", "timestamp": run.failures[2]["timestamp"]}
    records.workers += [left, came, came]
    return FailureView(records)


def test_the_timeline_counts_every_attempt(view: FailureView) -> None:
    """Its bars add up to the failed attempts, its line to all; workers lost and come are marks."""
    figure = view.figures()["timeline"]
    assert sum(traces(figure, "bar", "failed attempts").y) == len(view.frame)
    ended = (view.records.tasks["state"] == "succeeded").sum() + len(view.frame)
    assert sum(traces(figure, "scatter", "all attempts").y) == ended
    lost, came = (traces(figure, "scatter", f"workers {what}") for what in ("lost", "came"))
    assert (list(lost.customdata), list(came.customdata)) == ([1], [2])
    assert came.x[0] < lost.x[0]


def test_the_heat_map_shows_the_bad_node(view: FailureView) -> None:
    """Node and class of the bad node are one dark cell, told by its number too."""
    heat = view.figures()["places"].data[0]
    names, classes = view.places.index.tolist(), view.places.columns.tolist()
    line, column = names.index("n3"), classes.index("OSError")
    assert heat.z[line][column] == max(max(row) for row in heat.z)
    assert heat.text[line][column] == str(heat.z[line][column])
    assert [row[column] for n, row in enumerate(heat.z) if n != line] == [0] * (len(names) - 1)
    assert sum(map(sum, heat.z)) == len(view.frame)


def test_the_argument_that_explains_most_is_drawn(view: FailureView) -> None:
    """Early years fail, others hardly; every bar has a confidence interval around it."""
    figure = view.figures()["argument year"]
    (bars,) = figure.data
    assert figure.layout.xaxis.title.text.startswith("year (explains ")
    assert bars.y[0] > 0.8 > 0.1 > bars.y[-1]
    for share, above, below in zip(
        bars.y, bars.error_y.array, bars.error_y.arrayminus, strict=True
    ):
        assert -1e-9 <= share - below <= share + 1e-9
        assert share <= share + above + 1e-9 <= 1 + 2e-9
    succeeded, failed = view.figures()["values of year"].data
    assert max(failed.x) < 1965 <= max(succeeded.x)


def test_retries_are_counted_by_attempt(view: FailureView) -> None:
    """Second attempts are those after a failure, with how often they succeeded."""
    table = view.frames()["retries"]
    assert table["failed"].sum() == len(view.frame)
    assert table.loc[2, "success_rate"] == 1.0
    figure = view.figures()["retries"]
    assert list(traces(figure, "bar", "succeeded").y) == table["succeeded"].tolist()
    lost = view.frame["duration_s"].sum() / 3600
    assert table["lost_core_h"].sum() == pytest.approx(lost)


def test_limits_and_fast_failures_are_marked() -> None:
    """Timeouts show their limit: a line, and shaded ranges that are named."""
    rows = [failure(n, category="timeout", duration_s=300.0) for n in range(3)]
    figure = execution_times(failures_frame(rows), timeout_s=300.0, walltime_s=3600.0)
    assert traces(figure, "scatter", "walltime").x[0] == 3600.0
    named = [shape.label.text for shape in figure.layout.shapes]
    assert named == ["fast fail", "hit the limit", "hit the limit"]
    assert FailureView(RowRecords(rows)).timeout_s == 300.0


def flat(values: Any) -> list[Any]:
    """All values of lists within lists."""
    if isinstance(values, list | tuple | np.ndarray):
        return [each for value in values for each in flat(value)]
    return [] if values is None else [values]


HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)><a href='javascript:x'>go</a>"
    "<b>b</b><br>\x1b[31mred\x1b[0m \u202egnp.exe $\\alpha$ " + "x" * 1_000_000
)


def test_error_text_is_drawn_as_text() -> None:
    """No tag, formula, escape or mark of an error's text acts in labels or hover boxes."""
    row = failure(
        1, failure_class=HOSTILE, message=HOSTILE, args_preview=HOSTILE, worker=HOSTILE,
        function_name=HOSTILE, category=HOSTILE,
    )  # fmt: skip
    frame = failures_frame([row])
    for figure in (explorer_figure([row]), error_classes(frame), execution_times(frame)):
        texts = list(figure.layout.yaxis.ticktext)
        for trace in figure.data:
            texts += [str(text) for text in flat(trace.customdata)]
        whole = re.sub("</?b>|<br>", "", "\n".join(texts))  # these are our own
        for mark in ("<", "$", "\x1b", "\u202e"):
            assert mark not in whole
        assert len(figure.to_json()) < 40_000


def test_labels_escape_what_plotly_would_draw() -> None:
    """Tags and formulas become entities, quotes stay, length is bounded."""
    assert label_text("<i>'a' & $b$</i>") == "&lt;i&gt;'a' &amp; &#36;b&#36;&lt;/i&gt;"
    assert label_text("x" * 100, 10) == "x" * 9 + "…"


@given(rows=ANY_ROWS)
@settings(max_examples=15)
def test_no_row_is_fatal_to_the_figures(rows: list[dict[str, Any]]) -> None:
    """Any JSON objects make figures that are JSON and count every row once."""
    figure = explorer_figure(rows)
    assert sum(figure.data[0].x) + sum(figure.data[1].x) == len(rows)
    assert json.loads(figure.to_json())
