"""The core of the tour in a real JupyterLab: live table, failure explorer, what is saved."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from chart_pointer import ChartPointer
from lab_notebook import LabNotebook
from lab_server import running_lab
from leftovers import processes_below, remove_leftovers
from playwright.sync_api import Locator, expect
from quiet_page import chromium
from station_service import (
    ATTEMPTS,
    BROKEN_TEXT,
    STATIONS,
    StationService,
    outcome_of,
    station_service,
)

from scalable_nb.paths import RunPaths, list_runs
from scalable_nb.telemetry.journal_reader import read_rows

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "out" / "screenshots"
IMAGES = ROOT / "docs" / "images"

# JupyterLab, chromium and a session start before the first test; alone that takes 15 seconds.
pytestmark = pytest.mark.timeout(300)

MANIFEST = """
version: 1
project: {name: stations}
targets: {local: {provider: local, max_workers: 2, threads_per_worker: 1}}
components: {analysis: {cpus: 1, memory: 500M}}
defaults: {backoff: {base_s: 2, factor: 1.5}}
"""
START, MAP, GATHER, FAILURES, LATE, PROGRESS, STOP = range(7)
CELLS = [
    '%load_ext scalable_nb\nSERVICE = "{ADDRESS}"\n%scalable start',
    """\
from urllib.request import urlopen

def daily_mean(station):
    with urlopen(f"{SERVICE}/{station}") as answer:
        hours = [float(text) for text in answer.read().decode().split()]
    return sum(hours) / len(hours)

futures = client.map(daily_mean, range(120), retries=2, name="daily means")
futures""",
    'means = client.gather(futures, errors="skip")',
    "%scalable failures",
    """\
from scalable_nb import RetryPolicy, progress

def not_yet(number):
    raise ConnectionError(f"station {number} is not there yet")

late = client.map(not_yet, range(3), retries=RetryPolicy(5, base_s=600, max_s=600), name="late")
late""",
    "progress(futures)",
    "%scalable stop",
]
OUTCOMES = Counter(outcome_of(station) for station in range(STATIONS))
ENDS = {
    "succeeded": OUTCOMES["fine"] + OUTCOMES["late"],
    "failed": OUTCOMES["down"] + OUTCOMES["broken"],
}


@dataclass
class Moment:
    """What the page showed of the tasks, and whether the kernel was busy with the cell."""

    counts: dict[str, int]
    percent: int
    is_busy: bool


@dataclass
class Tour:
    """The notebook after its last cell but one, and what was seen while it ran."""

    notebook: LabNotebook
    service: StationService
    moments: list[Moment] = field(default_factory=list)
    saw_countdown: bool = False
    answered_while_busy: bool = False

    @property
    def table(self) -> Locator:
        return self.notebook.cell(MAP).locator(".scalable-table")

    @property
    def details(self) -> Locator:
        return self.table.get_by_role("region", name="Task details")

    @property
    def explorer(self) -> Locator:
        return self.notebook.cell(FAILURES).locator(".jp-OutputArea")

    @property
    def run(self) -> RunPaths:
        (run,) = list_runs(self.notebook.file.parent / ".scalable" / "runs")
        return run

    def is_done(self, tasks: int) -> None:
        """Wait until the page says how many tasks are done."""
        expect(self.table.locator(".snb-share")).to_have_text(f"{tasks} of {STATIONS} done")

    def look(self) -> Moment:
        """Read counts and progress off the page."""
        texts = self.table.locator(".snb-count[data-state]:not([hidden])").all_inner_texts()
        counts = dict(re.findall(r"([a-z]+)\s+(\d+)", " ".join(texts)))
        percent = self.table.get_by_role("progressbar").get_attribute("aria-valuenow")
        return Moment(
            counts={state: int(count) for state, count in counts.items()},
            percent=int(percent or -1),
            is_busy=self.notebook.is_busy(GATHER),
        )


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Tour]:
    """The notebook, run once for all tests; its last cell is left to one of them."""
    folder = tmp_path_factory.mktemp("lab")
    with station_service() as service, running_lab(folder) as server, chromium() as browser:
        (server.work / "scalable.yaml").write_text(MANIFEST)
        cells = [cell.replace("{ADDRESS}", service.address) for cell in CELLS]
        window = {"width": 1100, "height": 900}
        notebook = LabNotebook(
            browser, server, "stations.ipynb", cells, viewport=window, device_scale_factor=1.5
        )
        tour = Tour(notebook, service)
        notebook.run(START)
        notebook.run(MAP)
        watch_a_busy_cell(tour)
        notebook.run(FAILURES)
        yield tour
        notebook.close()
    if pytestconfig.getoption("--update-images", default=False):
        IMAGES.mkdir(parents=True, exist_ok=True)
        shutil.copy(SCREENSHOTS / "live-table-light.png", IMAGES / "live-table.png")
    assert remove_leftovers(folder) == []


def watch_a_busy_cell(tour: Tour) -> None:
    """Run the cell that blocks and look at the table while it does."""
    tour.is_done(0)
    # What needs attention comes first.
    tour.table.get_by_role("columnheader", name="State").get_by_role("button").click()
    tour.notebook.begin(GATHER)
    tour.service.release(30)
    waiting = tour.table.locator('.snb-body .snb-row[data-state="retrying"] .snb-retry').first
    expect(waiting).to_have_text(re.compile("^[123] s$"))
    tour.saw_countdown = tour.notebook.is_busy(GATHER)
    for tasks in (30, 60, 90):
        tour.service.release(tasks)
        tour.is_done(tasks)
        tour.moments.append(tour.look())
        if tasks == 60:
            take_screenshots(tour, "live-table", MAP, GATHER)
    look_at_task(tour, 8)
    expect(tour.details.get_by_role("article")).to_contain_text(BROKEN_TEXT)
    tour.answered_while_busy = tour.notebook.is_busy(GATHER)
    look_at_all(tour)
    tour.service.release(STATIONS)
    tour.notebook.finish()


def look_at_task(tour: Tour, station: int) -> None:
    """Find a task by its name and choose it."""
    tour.table.get_by_role("searchbox").fill(f"station={station})")
    expect(tour.table.locator(".snb-shown")).to_have_text(f"1 of {STATIONS} shown")
    tour.table.locator(".snb-body .snb-row:not([hidden])").click()


def look_at_all(tour: Tour) -> None:
    """Leave the chosen task, and take all filters away."""
    tour.details.get_by_role("button", name="Close").click()
    tour.table.get_by_role("button", name="Show all").click()
    expect(tour.table.locator(".snb-shown")).to_have_text(f"{STATIONS} tasks")


def take_screenshots(tour: Tour, name: str, first: int, last: int) -> None:
    """Keep pictures of some cells for people to look at, in both themes."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for theme in ("Light", "Dark"):
        tour.notebook.wear(f"JupyterLab {theme}")
        image = SCREENSHOTS / f"{name}-{theme.lower()}.png"
        tour.notebook.photograph(first, last, image)
    tour.notebook.wear("JupyterLab Light")


def test_the_table_moves_while_a_cell_blocks(tour: Tour) -> None:
    """Counts and progress follow the work while the kernel is busy with another cell."""
    assert [moment.is_busy for moment in tour.moments] == [True, True, True]
    assert [moment.percent for moment in tour.moments] == [25, 50, 75]
    for moment, done in zip(tour.moments, (30, 60, 90), strict=True):
        assert moment.counts["succeeded"] + moment.counts["failed"] == done
        assert moment.counts["running"] > 0
        assert sum(moment.counts.values()) == STATIONS


def test_attempts_are_at_hand_while_a_cell_blocks(tour: Tour) -> None:
    """The kernel answers what the table asks though it is busy, where JupyterLab has subshells."""
    assert tour.answered_while_busy


def test_a_retry_counts_down_while_a_cell_blocks(tour: Tour) -> None:
    """A task between two attempts says how long it waits, also while the kernel is busy."""
    assert tour.saw_countdown


def test_the_card_of_a_task_tells_both_attempts(tour: Tour) -> None:
    """The attempt that failed and the one that succeeded: when, where, how long, and why."""
    look_at_task(tour, 13)
    first, second = (tour.details.get_by_role("article").nth(at) for at in (0, 1))
    for word in ("Attempt 1", "HTTPError", "503", "transient", "tried again after"):
        expect(first).to_contain_text(word)
    for word in ("Attempt 2", "succeeded", "worker-", "process", "memory"):
        expect(second).to_contain_text(word)
    reported = re.compile(
        r"attempt 1: ran .failed..*waited .* after attempt 1;.*attempt 2: ran .succ"
    )
    line = tour.details.get_by_role("img", name=reported)
    expect(line).to_be_visible()
    take_screenshots(tour, "task-card", MAP, MAP)
    look_at_all(tour)


def test_the_table_ends_with_the_truth(tour: Tour) -> None:
    """What the page says in the end is what the service, the journal and the outcomes say."""
    tour.is_done(STATIONS)
    expect(tour.table.locator(".snb-badge")).to_have_text("done")
    shown = tour.look()
    assert shown.counts == ENDS
    assert shown.percent == 100
    tasks = read_rows(tour.run.tasks).rows
    assert Counter(task["state"] for task in tasks) == ENDS
    assert sum(task["attempts"] for task in tasks) == tour.service.requests.total()
    failures = Counter(row["failure_class"] for row in read_rows(tour.run.failures).rows)
    tries = OUTCOMES["late"] + ATTEMPTS * OUTCOMES["down"]
    assert failures == {"ValueError": OUTCOMES["broken"], "HTTPError": tries}


def test_failed_tasks_are_found_with_their_class_and_attempts(tour: Tour) -> None:
    """One press shows the failed tasks alone: how often they were tried, and with what error."""
    tour.table.get_by_role("button", name="failed").click()
    expect(tour.table.locator(".snb-shown")).to_have_text(f"{ENDS['failed']} of {STATIONS} shown")
    rows = tour.table.locator(".snb-body .snb-row:not([hidden])").all()
    shown = Counter(
        (row.locator(".snb-attempt").inner_text(), row.locator(".snb-error").inner_text())
        for row in rows
    )
    assert shown == {
        (f"1/{ATTEMPTS}", "ValueError"): OUTCOMES["broken"],
        (f"{ATTEMPTS}/{ATTEMPTS}", "HTTPError"): OUTCOMES["down"],
    }
    tour.table.get_by_role("button", name="Show all").click()


def test_markup_in_an_error_is_text(tour: Tour) -> None:
    """A task's attempts come from the kernel, and what its error contains is shown as text."""
    look_at_task(tour, 23)
    expect(tour.details.get_by_role("article")).to_contain_text(BROKEN_TEXT)
    trace = tour.details.locator('[data-part="traceback"] pre')
    expect(trace).to_contain_text("in daily_mean")
    assert tour.details.locator("script, img").count() == 0
    look_at_all(tour)


def test_a_click_on_an_error_class_filters_the_failures(tour: Tour) -> None:
    """The explorer draws a bar per class; a click lists its kinds alone, a second one all."""
    chart = tour.explorer.locator(".js-plotly-plot")
    kinds = tour.explorer.locator(".widget-select option")
    expect(chart.locator(".barlayer .point path:visible")).not_to_have_count(0)
    expect(chart.locator(".ytick")).to_have_text(["HTTPError", "ValueError"])
    expect(kinds).to_have_count(2)
    ChartPointer(chart).click_bar("ValueError")
    expect(kinds).to_have_count(1)
    expect(kinds).to_have_text(re.compile(rf"^{OUTCOMES['broken']}\s×.*ValueError"))
    expect(tour.explorer.locator("pre").first).to_contain_text(BROKEN_TEXT)
    take_screenshots(tour, "failures", FAILURES, FAILURES)
    assert tour.explorer.locator(":is(pre, .widget-html) :is(script, img)").count() == 0
    ChartPointer(chart).click_bar("ValueError")
    expect(kinds).to_have_count(2)


def test_the_saved_notebook_shows_the_last_state(tour: Tour) -> None:
    """On disk the table and the explorer are there without kernel and scripts, and are small."""
    saved = tour.notebook.save()
    for index, words in (
        (MAP, ["daily means: 120 tasks, 100 % done", "108", "12", "station=8)", "ValueError"]),
        (FAILURES, ["28 failed attempts of 20 tasks", "HTTPError", "ValueError"]),
    ):
        (output,) = saved.cells[index].outputs
        assert "application/vnd.jupyter.widget-view+json" in output.data
        markup = output.data["text/html"]
        assert len(markup.encode()) < 30_000
        assert "<script" not in markup
        for word in words:
            assert word in html.unescape(markup)
            assert word in output.data["text/plain"]


def test_the_card_of_the_session_follows_it(tour: Tour) -> None:
    """Shown before there was a worker or a task, it tells of both."""
    card = tour.notebook.cell(START)
    card.scroll_into_view_if_needed()
    expect(card).to_contain_text("2 (2 idle), 2 threads")
    expect(card).to_contain_text("108 succeeded, 12 failed")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    tour.notebook.page.screenshot(path=SCREENSHOTS / "session-card.png")


def test_the_link_to_the_dashboard_is_not_saved(tour: Tour) -> None:
    """The card links to the dashboard, which opens; the file has its secret nowhere."""
    dashboard: str = json.loads(tour.run.session_json.read_bytes())["dashboard"]
    link = tour.notebook.cell(START).get_by_role("link", name=dashboard)
    with tour.notebook.page.context.expect_page() as opened:
        link.click()
    expect(opened.value).to_have_title("Dask: Status")
    opened.value.close()
    saved = tour.notebook.save()
    state = saved.metadata.widgets["application/vnd.jupyter.widget-state+json"].state
    assert "Session on target 'local': running" in [
        card.state.get("title") for card in state.values()
    ]
    (output,) = [each for each in saved.cells[START].outputs if "data" in each]
    for form in ("text/plain", "text/html"):
        assert "`session.dashboard_link`" in output.data[form]
    secret = urlsplit(dashboard).path.split("/")[1]
    assert len(secret) > 30
    assert secret not in tour.notebook.file.read_text()


def test_buttons_hurry_give_up_cancel_and_reproduce(tour: Tour) -> None:
    """What a person presses in a task's card is done to the task, and what came of it is told."""
    tour.notebook.run(LATE)
    table = tour.notebook.cell(LATE).locator(".scalable-table")
    card = table.get_by_role("region", name="Task details")
    rows = [table.locator(f'[data-row="{row}"]') for row in range(3)]
    for row in rows:
        expect(row.locator(".snb-retry")).to_have_text(re.compile("^([789]|10) min"))
    rows[0].click()
    card.get_by_role("button", name="Cancel").click()
    expect(rows[0]).to_contain_text("cancelled")
    expect(card).to_contain_text("1 task cancelled")
    rows[1].click()
    card.get_by_role("button", name="Retry now").click()
    expect(rows[1].locator(".snb-attempt")).to_have_text("2/6")
    expect(rows[1]).to_contain_text("retrying")
    card.get_by_role("button", name="Give up").click()
    expect(rows[1]).to_contain_text("failed")
    expect(card.get_by_role("article")).to_have_count(2)
    rows[2].click()
    card.get_by_role("button", name="Reproduce here").click()
    expect(card).to_contain_text("raised ConnectionError: station 2 is not there yet `%debug`")
    expect(card.locator(".snb-outcome pre")).to_contain_text("in not_yet")
    card.get_by_role("button", name="Cancel").click()
    expect(rows[2]).to_contain_text("cancelled")


def test_the_line_form_shows_progress_alone(tour: Tour) -> None:
    """`progress(futures)` is counts and a bar, without rows."""
    tour.notebook.run(PROGRESS)
    line = tour.notebook.cell(PROGRESS).locator(".scalable-table")
    expect(line.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "100")
    expect(line.get_by_role("button", name="failed")).to_contain_text("12")
    expect(line.locator(".snb-grid")).to_have_count(0)


def test_the_end_of_the_session_is_told(tour: Tour) -> None:
    """`%scalable stop` sums up, ends every process of the session, and the table says so."""
    tour.notebook.run(STOP)
    expect(tour.notebook.cell(STOP)).to_contain_text("123 (108 succeeded, 13 failed, 2 cancelled)")
    card = tour.notebook.cell(START)
    card.scroll_into_view_if_needed()
    expect(card).to_contain_text("Session on target 'local': ended")
    expect(tour.table.locator(".snb-badge")).to_have_text("the session has ended")
    assert processes_below(tour.run.folder) == []


def test_nothing_went_wrong_in_the_page(tour: Tour) -> None:
    """No cell ended with an error, the console is silent, and only this machine was asked."""
    assert tour.notebook.errors() == []
    assert tour.notebook.complaints == []
    assert tour.notebook.asked_elsewhere == []
    assert tour.notebook.page.evaluate("window.wasHacked") is None  # by the text of an error
