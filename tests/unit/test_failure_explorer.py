"""The failure explorer without a browser: what it shows, and what follows a choice."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from ipywidgets import HTML, Button, Dropdown, Select, Text, Widget
from journal_rows import RUN_ID, attempts, failure, tutorial_failures, tutorial_tasks, write_run
from plotly.callbacks import BoxSelector, InputDeviceState, Points
from synthetic_journals import AttemptEnd, Call, run_with
from test_figures import HOSTILE
from test_journal_reader import ANY_ROWS
from test_reproduction import record_calls
from waiting import until

from scalable_nb.diagnosis.selection import Selection
from scalable_nb.errors import ScalableError, UnknownNameError
from scalable_nb.figures.explorer_figure import ARGUMENT, PLACES, POINTS, RETRIES, TIMELINE
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.dataframes import failures_frame
from scalable_nb.telemetry.run_tables import RunRecords
from scalable_nb.widgets.failure_explorer.explorer import FailureExplorer
from scalable_nb.widgets.failure_explorer.panel import CopyButton


def parts(widget: Widget, kind: type) -> list[Any]:
    """All widgets of a kind within another, in their order."""
    found = [widget] if isinstance(widget, kind) else []
    for child in getattr(widget, "children", ()):
        found += parts(child, kind)
    return found


def charts(explorer: FailureExplorer) -> list[Any]:
    return parts(explorer, go.FigureWidget)


def html_of(explorer: FailureExplorer) -> str:
    return "\n".join(part.value for part in parts(explorer, HTML))


def click(explorer: FailureExplorer, trace: int, point: int, column: int = 0) -> None:
    """What plotly does when a person clicks."""
    shown = charts(explorer)[0].data[trace]
    x = column if trace == PLACES else shown.x[point]
    points = Points([point], [x], [shown.y[point]], shown.name, trace)
    shown._dispatch_on_click(points, InputDeviceState())


@pytest.fixture
def explorer() -> FailureExplorer:
    made = FailureExplorer(tutorial_failures(), title="My sweep", tasks=tutorial_tasks())
    made._repr_mimebundle_()  # shown
    return made


def test_it_tells_what_failed(explorer: FailureExplorer) -> None:
    """Title, numbers, diagnosis, kinds and the first kind's traceback are there at once."""
    text = html_of(explorer)
    assert "My sweep" in text
    assert "9 failed attempts of 5 tasks; 3 tasks failed for good. 4 kinds of failure." in text
    assert "Raise <code>memory</code> of component <code>analysis</code>" in text
    labels = [label for label, _ in parts(explorer, Select)[0].options]
    assert labels[0] == "4 × (44%)  MemoryError: unable to allocate 4.2GB"
    assert len(labels) == 4
    assert "grid = np.zeros(shape)" in text
    assert "worker-3" in text
    assert [item.rule for item in explorer.findings][:2] == ["out_of_memory", "timeout"]
    assert explorer.groups["attempts"].tolist() == [4, 3, 1, 1]
    assert list(explorer.figures)[:6] == [
        "error_classes", "execution_times", "timeline", "places", "retries", "explorer",
    ]  # fmt: skip
    assert len(explorer.frames["groups"]) == 4


def test_choosing_a_kind_shows_its_traceback(explorer: FailureExplorer) -> None:
    """The traceback, call and worker below the list are those of the chosen kind."""
    explorer.selected = "ValueError-permanent"
    assert parts(explorer, Select)[0].value == "ValueError-permanent"
    detail = parts(explorer, HTML)[-1].value
    assert "run_simulation(scenario_id=13)" in detail
    assert "ValueError: invalid input data" in detail
    assert "MemoryError" not in detail
    with pytest.raises(UnknownNameError, match=r"Did you mean 'ValueError-permanent'\?"):
        explorer.selected = "ValueError-permanant"


def test_a_click_on_a_class_shows_only_its_kinds(explorer: FailureExplorer) -> None:
    """A click on a bar filters the kinds and marks the class; a second click shows all again."""
    click(explorer, 0, 1)
    assert explorer.error_class == "ConnectionError"
    assert [value for _, value in parts(explorer, Select)[0].options] == [
        "ConnectionError-transient"
    ]
    assert explorer.selected == "ConnectionError-transient"
    assert list(charts(explorer)[0].data[0].selectedpoints) == [1]
    click(explorer, 1, 1)
    assert explorer.error_class is None
    assert len(parts(explorer, Select)[0].options) == 4
    assert charts(explorer)[0].data[0].selectedpoints is None


def test_a_click_on_an_attempt_chooses_its_class(explorer: FailureExplorer) -> None:
    """A point of the execution times knows its class too."""
    ticks = charts(explorer)[0].layout.yaxis.ticktext
    place = next(n for n, y in enumerate(charts(explorer)[0].data[3].y) if round(y) == 2)
    click(explorer, 3, place)
    assert explorer.error_class == ticks[2] == "TimeoutError"


@pytest.fixture
def synthetic() -> FailureExplorer:
    """A run in which one node and the early years are bad."""

    def plan(call: Call, dice: random.Random) -> AttemptEnd | None:
        if call.host == "n3":
            return 1, False, {"failure_class": "OSError", "category": "unknown"}
        return (1, True, {"message": f"no data for {call.year}"}) if call.year < 1965 else None

    run = run_with(plan, 7, noise=0.1)
    made = FailureExplorer(run.failures, tasks=run.tasks)
    made._repr_mimebundle_()
    return made


def test_a_click_in_any_chart_filters_all_others(synthetic: FailureExplorer) -> None:
    """Place, time, argument, attempt and class narrow the kinds and all charts but their own."""
    chart = charts(synthetic)[0]
    hosts = list(chart.layout.yaxis4.ticktext)
    assert hosts[0] == "n3"
    click(synthetic, PLACES, 0)
    assert synthetic.selection.place == ("host", "n3")
    assert synthetic.groups["failure_class"].tolist() == ["OSError"]
    assert list(chart.layout.yaxis.ticktext) == ["OSError"]
    assert list(chart.layout.yaxis4.ticktext) == hosts  # its own stays whole
    click(synthetic, PLACES, 0)
    assert synthetic.selection.is_empty

    years = next(n for n, level in enumerate(chart.data[ARGUMENT].y) if level > 0.5)
    click(synthetic, ARGUMENT, years)
    assert synthetic.selection.argument is not None
    assert synthetic.selection.argument[0] == "year"
    assert "ValueError" in synthetic.groups["failure_class"].tolist()
    shown = synthetic.frames["failures"]
    low, high = map(float, synthetic.selection.argument[1].split(" to "))
    assert (
        shown["args_preview"].str.extract(r"year=(\d+)")[0].astype(float).between(low, high).all()
    )
    click(synthetic, ARGUMENT, years)

    click(synthetic, RETRIES[1], 0)
    assert set(synthetic.frames["failures"]["attempt"]) == {1}
    assert list(chart.data[RETRIES[0]].selectedpoints) == [0]
    click(synthetic, RETRIES[0], 1)  # second attempts: all of them succeeded
    assert len(synthetic.frames["failures"]) == 0
    click(synthetic, RETRIES[0], 1)

    busy = max(range(60), key=lambda n: chart.data[TIMELINE].y[n])
    click(synthetic, TIMELINE, busy)
    assert len(synthetic.frames["failures"]) == chart.data[TIMELINE].y[busy]
    assert f"Only {synthetic.selection}" in html_of(synthetic)
    button(synthetic, "Show all").click()
    assert synthetic.selection.is_empty


def box(explorer: FailureExplorer, trace: int, points: list[int]) -> None:
    """What plotly does when a person draws a box or a lasso around points."""
    shown = charts(explorer)[0].data[trace]
    xs, ys = ([values[point] for point in points] for values in (shown.x, shown.y))
    inside = Points(points, xs, ys, shown.name, trace)
    shown._dispatch_on_selection(inside, BoxSelector())


def test_a_box_chooses_what_is_in_it(synthetic: FailureExplorer) -> None:
    """Around attempts: their classes and durations; around bars of time: the whole span."""
    chart = charts(synthetic)[0]
    points = chart.data[POINTS]
    long = [n for n, (x, y) in enumerate(zip(points.x, points.y, strict=True))
            if x > 3.0 and round(y) == 0]  # fmt: skip
    box(synthetic, POINTS, long)
    shown = synthetic.frames["failures"]
    assert set(shown["failure_class"]) == {chart.layout.yaxis.ticktext[0]}
    assert shown["duration_s"].min() > 3.0
    assert len(shown) == len(long)
    assert list(chart.data[POINTS].selectedpoints) == long
    assert "took: 3" in html_of(synthetic)
    box(synthetic, POINTS, [])  # around nothing
    assert len(synthetic.frames["failures"]) == len(long)
    button(synthetic, "Show all").click()
    assert chart.data[POINTS].selectedpoints is None
    box(synthetic, TIMELINE, [10, 11, 12])
    assert len(synthetic.frames["failures"]) == sum(chart.data[TIMELINE].y[10:13])
    box(synthetic, 0, [0, 1])
    assert len(synthetic.selection.error_class or ()) == 2


@pytest.mark.parametrize(
    ("name", "value", "hits"),
    [
        ("year", "1950 to 1960", [0, 2]),
        ("year", "1950", [0, 2]),
        ("#1", "1 to 8", [3]),
        ("span", "'a to b'", [4]),
    ],
)
def test_an_argument_is_found_where_it_is_one(name: str, value: str, hits: list[int]) -> None:
    """Values within texts and lists are not taken for the argument's own."""
    previews = ["year=1950", "of=['x, year=1950'], year=2000", "a=(1, 2), year=1950", "7, 1955",
                "span='a to b', year=2001"]  # fmt: skip
    frame = failures_frame([failure(n, args_preview=text) for n, text in enumerate(previews)])
    assert Selection(argument=(name, value)).of(frame).index.tolist() == hits


def test_searching_leaves_what_holds_the_words(synthetic: FailureExplorer) -> None:
    """Words are looked for in messages, arguments and keys, whatever their capitals."""
    box = parts(synthetic, Text)[0]
    box.value = "NO DATA for 1951"
    assert set(synthetic.frames["failures"]["message"]) == {"no data for 1951"}
    box.value = "region='east'"
    assert synthetic.frames["failures"]["args_preview"].str.contains("east").all()
    box.value = ""
    assert synthetic.selection == Selection()


def test_the_diagnosis_names_both_causes(synthetic: FailureExplorer) -> None:
    """The diagnosis stands above the charts, with how sure it is."""
    rules = [finding.rule for finding in synthetic.findings]
    assert rules[0] == "bad_argument_range"  # what the node broke, a retry mended
    assert "bad_node" in rules
    assert "% sure)" in html_of(synthetic)


def test_the_remedy_is_a_button(tmp_path: Path) -> None:
    """What can be mended by running again has a button that says so; without session, why not."""
    explorer = FailureExplorer(write_run(tmp_path, tutorial_failures(), tutorial_tasks()))
    button(explorer, "Resubmit 1 task (timeout) with timeout_s=600.0").click()
    assert f"the session of {RUN_ID} is not live" in html_of(explorer)
    button(explorer, "Open log").click()
    assert "There is no log." in html_of(explorer)


def test_a_call_of_a_finished_run_is_reproduced_here(tmp_path: Path) -> None:
    """From the record of calls; the traceback of this time stands where the other one was."""

    def divide(a: int, b: int) -> float:
        return a / b

    keys = [f"run_simulation-{n}" for n in (1, 2, 3)]
    run = write_run(tmp_path, [
        failure(1, failure_class="KeyError"),
        failure(2, failure_class="WorkerLostError", category="infrastructure"),
        failure(3, failure_class="OSError"),
        failure(4, failure_class="ValueError"),
    ])  # fmt: skip
    record_calls(run, divide, {keys[0]: (1, 0), keys[1]: (4, 2)})
    record_calls(run, divide, {keys[2]: (1, 1)}, idempotent=False)
    explorer = FailureExplorer(run)
    again = button(explorer, "Reproduce here")
    explorer.selected = "KeyError-permanent"
    again.click()
    assert "raised ZeroDivisionError" in html_of(explorer)
    assert "in divide" in parts(explorer, HTML)[-1].value
    assert isinstance(sys.last_value, ZeroDivisionError)  # for %debug
    explorer.selected = "WorkerLostError-infrastructure"
    again.click()
    until(lambda: "in a child process" in html_of(explorer) and "returned 2.0" in html_of(explorer))
    explorer.selected = "OSError-permanent"
    again.click()
    assert "is not idempotent" in html_of(explorer)
    explorer.selected = "ValueError-permanent"
    again.click()
    assert "has no record of the call of &#x27;run_simulation-4&#x27;" in html_of(explorer)


def test_it_can_be_passed_on(synthetic: FailureExplorer, tmp_path: Path) -> None:
    """CSV holds what is chosen, HTML is one page, and both leave arguments out on request."""
    synthetic.error_class = "OSError"
    table = pd.read_csv(synthetic.export(tmp_path / "failures.csv"))
    assert set(table["failure_class"]) == {"OSError"}
    assert table["args_preview"].str.contains("year=").all()
    hidden = pd.read_csv(synthetic.export(tmp_path / "hidden.csv", redact=True))
    assert set(hidden["args_preview"]) == {"…"}
    page = synthetic.export(tmp_path / "failures.html", redact=True).read_text()
    assert "year=19" not in page
    with pytest.raises(ScalableError, match=r"expected a name that ends with .html, .csv or"):
        synthetic.export("failures.xlsx")


def test_it_can_be_passed_on_as_parquet(
    synthetic: FailureExplorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet holds the same table with its types; without pyarrow it is said what to install."""
    synthetic.error_class = "OSError"
    path = synthetic.export(tmp_path / "failures.parquet")
    chosen = synthetic.frames["failures"].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_parquet(path), chosen, check_categorical=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ScalableError, match=r"scalable-nb\[parquet\].*or export '.*again.csv'"):
        synthetic.export(tmp_path / "again.parquet")


def test_an_issue_names_no_arguments(explorer: FailureExplorer) -> None:
    """The text to copy holds class, counts, diagnosis and traceback as Markdown, no arguments."""
    explorer.selected = "MemoryError-resource"
    text = parts(explorer, CopyButton)[0].text
    assert text.startswith("### MemoryError: unable to allocate #\n")
    assert "- 4 failed attempts of 1 tasks, 1 failed for good" in text
    assert "- diagnosis (95% sure): out of memory" in text
    assert "grid = np.zeros(shape)" in text
    assert "scenario_id=47" not in text


def test_the_list_of_classes_filters_like_a_click(explorer: FailureExplorer) -> None:
    """Whoever cannot click finds the classes with their counts in a list."""
    chooser = parts(explorer, Dropdown)[0]
    assert [label for label, _ in chooser.options][:2] == ["all", "MemoryError (4)"]
    chooser.value = "MemoryError"
    assert explorer.selected == "MemoryError-resource"
    assert list(charts(explorer)[0].data[1].selectedpoints) == [0]
    with pytest.raises(UnknownNameError, match="MemoryError"):
        explorer.error_class = "MemryError"


def append(run: RunPaths, rows: list[dict[str, Any]]) -> None:
    with run.failures.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_the_chart_is_made_when_shown_and_kept(tmp_path: Path) -> None:
    """No chart before the explorer is shown, one after it, and the same one after any refresh."""
    run = write_run(tmp_path, tutorial_failures())
    explorer = FailureExplorer(run, title="live")
    explorer.refresh()
    assert charts(explorer) == []
    explorer._repr_mimebundle_()
    first = charts(explorer)
    new = [failure(n, failure_class="KeyError", category="permanent") for n in range(200, 230)]
    append(run, new)
    explorer.refresh()
    explorer._repr_mimebundle_()
    assert [chart.model_id for chart in charts(explorer)] == [first[0].model_id]
    shown = charts(explorer)[0]
    assert next(iter(shown.layout.yaxis.ticktext)) == "KeyError"
    assert list(shown.data[0].x) == [30, 1, 0, 1, 1]
    assert len(shown.data[3].x) == 39
    click(explorer, 0, 0)
    assert explorer.error_class == "KeyError"


def button(explorer: FailureExplorer, name: str) -> Any:
    return next(each for each in parts(explorer, Button) if each.description == name)


def test_a_refresh_keeps_what_was_chosen(tmp_path: Path) -> None:
    """New rows change numbers and order, not the choice of the person who looks."""
    run = write_run(tmp_path, tutorial_failures())
    explorer = FailureExplorer(run)
    explorer._repr_mimebundle_()
    explorer.error_class = "ConnectionError"
    append(run, attempts(300, 9, False, failure_class="ConnectionError", category="transient",
                         fingerprint="other", worker="worker-7"))  # fmt: skip
    explorer.selected = "ConnectionError-transient"
    button(explorer, "Refresh").click()
    assert explorer.error_class == "ConnectionError"
    assert explorer.selected == "ConnectionError-transient"
    assert [value for _, value in parts(explorer, Select)[0].options] == [
        "other", "ConnectionError-transient",
    ]  # fmt: skip
    assert list(charts(explorer)[0].data[0].selectedpoints) == [0]


def test_a_refresh_that_fails_is_shown(tmp_path: Path) -> None:
    """When the folder cannot be read any more, the button says so and what was there stays."""
    run = write_run(tmp_path, tutorial_failures())
    explorer = FailureExplorer(run)
    run.failures.unlink()
    run.failures.mkdir()
    button(explorer, "Refresh").click()
    assert "is not a regular file" in html_of(explorer)
    assert len(explorer.frame) == 9


def test_nothing_failed_says_so_and_the_first_failure_appears(tmp_path: Path) -> None:
    """Without failures there is one sentence and no chart; the first failure brings all."""
    run = write_run(tmp_path)
    explorer = FailureExplorer(run)
    bundle = explorer._repr_mimebundle_()
    assert "Nothing has failed" in bundle["text/html"]
    assert "Nothing has failed" in bundle["text/plain"]
    assert parts(explorer, Select) == charts(explorer) == []
    append(run, [failure(1)])
    explorer.refresh()
    assert len(parts(explorer, Select)) == len(charts(explorer)) == 1


def test_a_run_is_followed(tmp_path: Path) -> None:
    """Given a run or its session, the explorer reads its folder, and again at a refresh."""
    run = write_run(tmp_path, tutorial_failures(), tutorial_tasks())
    explorer = FailureExplorer(run)
    assert RUN_ID in html_of(explorer)
    assert "retries_helped" in [item.rule for item in explorer.findings]
    with run.failures.open("a") as file:
        file.write(json.dumps(failure(77)) + "\n")
    explorer.refresh()
    assert len(explorer.frame) == 10

    class Session:
        paths = run

    assert len(FailureExplorer(Session()).frame) == 10


def test_several_runs_are_explored_together(tmp_path: Path) -> None:
    """Records of several runs, at once or as they grow, are one explorer."""
    runs = [write_run(tmp_path / name, [failure(n)]) for n, name in enumerate("ab")]
    explorer = FailureExplorer(RunRecords(*runs), title="both")
    assert len(explorer.frame) == 2
    append(runs[1], [failure(5)])
    explorer.refresh()
    assert len(explorer.frame) == 3


def test_a_saved_notebook_still_tells_the_story(explorer: FailureExplorer) -> None:
    """Beside the widget there is static HTML and text with kinds, traceback and diagnosis."""
    bundle = explorer._repr_mimebundle_()
    view = bundle["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == explorer.model_id
    for words in ("unable to allocate 4.2GB", "3 tasks failed for good", "44%"):
        assert words in bundle["text/html"]
        assert words in bundle["text/plain"]
    assert "grid = np.zeros(shape)" in bundle["text/html"]
    assert "<script" not in bundle["text/html"]


def test_hostile_text_stays_text_in_what_is_passed_on(tmp_path: Path) -> None:
    """In the exported page no tag of an error is markup, neither in words nor in charts."""
    explorer = FailureExplorer(hostile_rows(), title=HOSTILE)
    page = explorer.export(tmp_path / "page.html").read_text()
    body = page[page.rindex("Plotly.newPlot") :]
    for text in (page[: page.index("plotly.js")], body):
        assert "<script>alert(1)" not in text
        assert "<img src=x" not in text
    assert "<script>" not in parts(explorer, CopyButton)[0].text.splitlines()[0]
    assert len(page) < 8_000_000


def hostile_rows() -> list[dict[str, Any]]:
    names = ("failure_class", "message", "args_preview", "function_name", "worker", "host",
             "traceback", "task_id", "component", "category")  # fmt: skip
    return [
        failure(n, fingerprint=f"{n}", **dict.fromkeys(names, f"{n}{HOSTILE}")) for n in range(30)
    ]


def test_error_text_is_shown_as_text() -> None:
    """Tags, terminal escapes, directional marks and megabytes never act, and are cut."""
    explorer = FailureExplorer(hostile_rows(), title=HOSTILE)
    bundle = explorer._repr_mimebundle_()
    html = html_of(explorer) + bundle["text/html"]
    for tag in ("<script", "<img", "<a ", "</a", "<br><br>"):
        assert tag not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    allowed = {"div", "b", "br", "ul", "li", "span", "code", "pre", "table", "thead", "tbody",
               "tr", "th", "td"}  # fmt: skip
    assert set(re.findall(r"</?(\w+)", html)) <= allowed
    labels = [label for label, _ in parts(explorer, Select)[0].options]
    everything = "\n".join([html, bundle["text/plain"], repr(explorer), *labels])
    assert "\x1b" not in everything
    assert "\u202e" not in everything
    assert len(everything) < 200_000
    assert len(bundle["text/html"]) < 30_000
    assert len(bundle["text/plain"]) < 30_000


def test_markup_in_static_html_is_closed_where_it_is_cut() -> None:
    """However much is left out of the static form, every tag that it opens is closed."""
    html = FailureExplorer(hostile_rows())._repr_mimebundle_()["text/html"]
    for tag in ("div", "ul", "li", "table", "tr", "td", "pre", "code"):
        assert len(re.findall(rf"<{tag}[ >]", html)) == html.count(f"</{tag}>")


@given(rows=ANY_ROWS)
@settings(max_examples=15)
def test_no_row_is_fatal_to_the_explorer(rows: list[dict[str, Any]]) -> None:
    """Any JSON objects can be explored."""
    explorer = FailureExplorer(rows)
    assert len(explorer.frame) == len(rows)
    assert parts(explorer, HTML)
    explorer.close()
