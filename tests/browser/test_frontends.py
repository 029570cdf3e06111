"""The live table where JupyterLab is not: in Notebook 7 and, of the same run, in Voila."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from lab_notebook import made_of
from lab_server import LabServer, running_lab
from leftovers import remove_leftovers
from playwright.sync_api import Browser, Locator, expect
from quiet_page import QuietPage, chromium

SCREENSHOTS = Path(__file__).parents[2] / "out" / "screenshots"

# A server, chromium and a session start before the first test.
pytestmark = pytest.mark.timeout(300)

CELLS = [
    "%load_ext scalable_nb\n%scalable start",
    """\
import time
from pathlib import Path

def model(number):
    while not Path(f"end-{number // 10}").exists():
        time.sleep(0.05)
    if number % 4 == 3:
        raise ValueError(f"no data for {number}")
    return number**2

futures = client.map(model, range(20), name="sweep")
futures""",
    'done = client.gather(futures, errors="skip")',
]
BOARD = ['%load_ext scalable_nb\n%scalable attach\nsession.batches["sweep"]']


class Pages:
    """The server's applications in pages, and the files that its run waits for."""

    def __init__(self, server: LabServer, browser: Browser) -> None:
        self._server = server
        self._browser = browser
        for name, cells in (("sweep", CELLS), ("board", BOARD)):
            nbformat.write(made_of(cells), server.work / f"{name}.ipynb")

    def open(self, path: str) -> QuietPage:
        """Open what lies behind a path of the server."""
        quiet = QuietPage(self._browser.new_page(viewport={"width": 1000, "height": 900}))
        quiet.page.goto(self._server.address_of(path))
        return quiet

    def let_end(self, ten: int) -> None:
        """Let ten tasks end: the first ones or the others."""
        (self._server.work / f"end-{ten}").touch()


VOILAS_OWN = re.compile("/fontawesome-free@|/mathjax/")
IS_READY = """() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status
    === "idle\""""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("frontends")
    with running_lab(folder) as server, chromium() as browser:
        yield Pages(server, browser)
    assert remove_leftovers(folder) == []


def has_ended(table: Locator, tasks: int) -> None:
    """Wait until a table says how many of the run's tasks are done."""
    expect(table.locator(".snb-share")).to_have_text(f"{tasks} of 20 done")


def shows_failures(page: QuietPage, table: Locator, name: str) -> None:
    """Filter the table, open a task, and see its error; what was asked, the kernel answered."""
    table.get_by_role("button", name="failed").click()
    expect(table.locator(".snb-shown")).to_have_text("5 of 20 shown")
    table.locator(".snb-body .snb-row:not([hidden])").first.click()
    card = table.get_by_role("region", name="Task details").get_by_role("article")
    expect(card).to_contain_text("ValueError")
    expect(card).to_contain_text("no data for")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.page.screenshot(path=SCREENSHOTS / f"{name}.png")
    # The applications complain of their own extensions, and Voila fetches its icons and MathJax.
    assert [words for words in page.complaints if "anywidget" in words or "blob:" in words] == []
    assert [url for url in page.asked_elsewhere if not VOILAS_OWN.search(url)] == []


def test_one_run_is_live_in_notebook_7_and_in_voila(pages: Pages) -> None:
    """The table moves while a cell of Notebook 7 blocks, and in a Voila page that attached."""
    notebook = pages.open("notebooks/sweep.ipynb")
    cells = notebook.page.locator(".jp-Notebook-cell")
    notebook.page.wait_for_function(IS_READY)
    cells.first.locator(".cm-content").click()
    for _ in CELLS:
        notebook.page.keyboard.press("Shift+Enter")
    table = cells.nth(1).locator(".scalable-table")
    has_ended(table, 0)
    pages.let_end(0)
    has_ended(table, 10)
    blocked = cells.nth(2).locator(".jp-InputPrompt").first
    expect(blocked).to_have_text("[*]:")

    board = pages.open("voila/render/board.ipynb")
    other = board.page.locator(".scalable-table")
    has_ended(other, 10)
    pages.let_end(1)
    has_ended(other, 20)
    has_ended(table, 20)
    expect(blocked).not_to_have_text("[*]:")
    shows_failures(board, other, "voila")
    shows_failures(notebook, table, "notebook-7")
