"""The failure explorer in a real JupyterLab: it follows, it filters, it acts, it shows text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chart_pointer import ChartPointer
from lab_notebook import LabNotebook
from lab_server import running_lab
from leftovers import remove_leftovers
from playwright.sync_api import Locator, expect
from quiet_page import chromium

SCREENSHOTS = Path(__file__).parents[2] / "out" / "screenshots"

# JupyterLab, chromium and a session start before the first test; alone that takes 15 seconds.
pytestmark = pytest.mark.timeout(300)

START, MAP, GATHER, FAILURES, MORE, STOP = range(6)
HOSTILE = (
    "<script>window.wasHacked = 1</script><img src=x onerror='window.wasHacked = 2'>"
    "\\x1b[31mred\\x1b[0m \\u202egnp.exe" + "x" * 10
)
CELLS = [
    "%load_ext scalable_nb\n%scalable start",
    f'''\
from pathlib import Path

HOSTILE = "{HOSTILE}" + 1_000_000 * "y"

def simulate(scenario, year):
    with Path("calls.txt").open("a") as calls:
        calls.write(f"{{scenario}}\\n")
    if year < 1960:
        raise ValueError(HOSTILE)
    if scenario % 10 == 3 and not Path("mended").exists():
        raise KeyError("rainfall")
    return scenario

futures = client.map(simulate, range(80), [1950 + n % 40 for n in range(80)], name="scenarios")
futures''',
    'done = client.gather(futures, errors="skip")',
    "%scalable failures -o explorer\nexplorer",
    """\
more = client.map(simulate, range(103, 163, 10), [1990] * 6, name="more")
_ = client.gather(more, errors="skip")""",
    "%scalable stop",
]
BAD_YEARS = sum(1950 + n % 40 < 1960 for n in range(80))
KEYS = sum(n % 10 == 3 and 1950 + n % 40 >= 1960 for n in range(80))


@dataclass
class Explorer:
    """The notebook, with the explorer open on a session that goes on."""

    notebook: LabNotebook

    @property
    def place(self) -> Locator:
        return self.notebook.cell(FAILURES).locator(".jp-OutputArea")

    @property
    def chart(self) -> Locator:
        return self.place.locator(".js-plotly-plot")

    @property
    def kinds(self) -> Locator:
        return self.place.locator(".widget-select option")

    @property
    def pointer(self) -> ChartPointer:
        return ChartPointer(self.chart)

    def enclose(self, name: str, tool: str) -> None:
        """Enclose the attempts of a class in the chart of execution times."""
        # A drawing that comes while the mouse is down would end the box or lasso.
        self.notebook.page.wait_for_function(
            "chart => !chart.data[0].selectedpoints", arg=self.chart.element_handle()
        )
        self.pointer.enclose(name, "x2y2", tool)

    def calls(self) -> Counter[str]:
        """How often each scenario was computed, by what the function wrote."""
        return Counter((self.notebook.file.parent / "calls.txt").read_text().split())


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    """The notebook, run up to the explorer."""
    folder = tmp_path_factory.mktemp("lab")
    with running_lab(folder) as server, chromium() as browser:
        window = {"width": 1100, "height": 1000}
        notebook = LabNotebook(browser, server, "failures.ipynb", CELLS, viewport=window)
        for cell in (START, MAP, GATHER, FAILURES):
            notebook.run(cell)
        yield Explorer(notebook)
        notebook.close()
    assert remove_leftovers(folder) == []


def test_it_says_what_failed_and_with_which_arguments(explorer: Explorer) -> None:
    """The diagnosis names the years that fail, and the chart has a bar for each class."""
    expect(explorer.place).to_contain_text(f"{BAD_YEARS + KEYS} failed attempts of")
    expect(explorer.place).to_contain_text(re.compile(r"Calls with year = 1950 to 195\d fail"))
    ticks = explorer.chart.locator(".yaxislayer-above .ytick, .yaxislayer-below .ytick")
    expect(ticks.filter(has_text="ValueError")).to_have_count(1)
    expect(ticks.filter(has_text="KeyError")).to_have_count(1)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for theme in ("Light", "Dark"):
        explorer.notebook.wear(f"JupyterLab {theme}")
        image = SCREENSHOTS / f"explorer-{theme.lower()}.png"
        explorer.notebook.photograph(FAILURES, FAILURES, image)
    explorer.notebook.wear("JupyterLab Light")


@pytest.mark.parametrize("tool", ["Box Select", "Lasso Select"])
def test_attempts_that_are_enclosed_filter_like_a_click(explorer: Explorer, tool: str) -> None:
    """What a person encloses among the execution times is what everything else shows."""
    expect(explorer.kinds).to_have_count(2)
    explorer.enclose("KeyError", tool)
    expect(explorer.kinds).to_have_count(1)
    expect(explorer.place).to_contain_text("Only class: KeyError; took:")
    expect(explorer.chart.locator(".selectionlayer path")).to_have_count(0)
    explorer.place.get_by_role("button", name="Show all").click()


def test_a_click_filters_everything_else(explorer: Explorer) -> None:
    """A click on a class leaves its kinds alone, and says what is chosen."""
    expect(explorer.kinds).to_have_count(2)
    explorer.pointer.click_bar("KeyError")
    expect(explorer.kinds).to_have_count(1)
    expect(explorer.kinds).to_have_text(re.compile(rf"^{KEYS}\s×.*KeyError"))
    expect(explorer.place).to_contain_text("Only class: KeyError")


def test_the_chosen_kind_is_reproduced_here(explorer: Explorer) -> None:
    """The call is made once more in the notebook's process, and its traceback is shown."""
    before = explorer.calls()
    explorer.place.get_by_role("button", name="Reproduce here").click()
    expect(explorer.place.get_by_role("status").first).to_contain_text("raised KeyError")
    expect(explorer.place.get_by_role("status").first).to_contain_text("%debug")
    expect(explorer.place.locator("pre").first).to_contain_text("in simulate")
    assert (explorer.calls() - before).total() == 1


def test_it_follows_the_run_and_keeps_the_choice(explorer: Explorer) -> None:
    """New failures appear by themselves, in the same drawing, and what was chosen stays chosen."""
    explorer.chart.evaluate("chart => { chart.isTheSame = true; }")
    explorer.notebook.run(MORE)
    expect(explorer.place).to_contain_text(f"{BAD_YEARS + KEYS + 6} failed attempts of")
    expect(explorer.kinds).to_have_text(re.compile(rf"^{KEYS + 6}\s×.*KeyError"))
    assert explorer.chart.evaluate("chart => chart.isTheSame")


def test_failed_tasks_are_resubmitted_from_the_explorer(explorer: Explorer) -> None:
    """The button runs the chosen kind again, and it alone; the task table shows the attempts."""
    (explorer.notebook.file.parent / "mended").touch()
    before = explorer.calls()
    explorer.place.get_by_role("button", name="Resubmit these").click()
    expect(explorer.place.get_by_role("status").first).to_contain_text("submitted again")
    table = explorer.notebook.cell(MAP).locator(".scalable-table")
    ended = re.compile(rf"succeeded\s+{80 - BAD_YEARS}")
    expect(table.locator(".snb-counts, .snb-head, header").first).to_be_visible()
    expect(table).to_contain_text(ended)
    again = explorer.calls() - before
    assert set(again.values()) == {1}
    assert {int(number) % 10 for number in again} == {3}
    assert len(again) == KEYS + 6


def test_error_text_is_text_everywhere(explorer: Explorer) -> None:
    """Tags, terminal escapes and reading marks of a megabyte's message are shown, and never act."""
    explorer.place.get_by_role("button", name="Show all").click()
    expect(explorer.kinds).to_have_count(2)
    explorer.pointer.click_bar("ValueError")
    expect(explorer.place).to_contain_text("Only class: ValueError")
    expect(explorer.place.locator("pre").first).to_contain_text("<script>window.wasHacked = 1")
    expect(explorer.place.locator("pre").first).to_contain_text("\\u202e")
    assert explorer.place.locator(":is(pre, .widget-html) :is(script, img)").count() == 0
    explorer.place.get_by_role("button", name="Save as HTML").click()
    expect(explorer.place.get_by_role("status").first).to_contain_text("Written to")
    (page,) = explorer.notebook.file.parent.glob("failures-run-*.html")
    explorer.notebook.page.evaluate("window.wasHacked = null")
    browser = explorer.notebook.page.context.browser
    assert browser
    other = browser.new_page()
    asked: list[str] = []
    other.on("request", lambda request: asked.append(request.url))
    other.goto(page.as_uri())
    expect(other.locator(".barlayer .point path:visible")).not_to_have_count(0)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert other.evaluate("window.wasHacked") is None
    expect(other.locator("pre").first).to_contain_text("<script>window.wasHacked = 1")
    other.screenshot(path=SCREENSHOTS / "explorer-report.png", full_page=False)
    other.close()


def test_nothing_went_wrong_in_the_page(explorer: Explorer) -> None:
    """No cell ended with an error, the console is silent, and only this machine was asked."""
    explorer.notebook.run(STOP)
    assert explorer.notebook.errors() == []
    assert explorer.notebook.complaints == []
    assert explorer.notebook.asked_elsewhere == []
    assert explorer.notebook.page.evaluate("window.wasHacked") is None
