"""A notebook open in JupyterLab: run its cells, read what they put out, save it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from lab_server import LabServer
from playwright.sync_api import Browser, FloatRect, Locator, expect
from quiet_page import QuietPage

_OPEN = """async path => {
    const app = window.jupyterapp;
    await app.restored;
    const panel = await app.commands.execute("docmanager:open", { path, factory: "Notebook" });
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.revealed;
    app.shell.collapseLeft();
    app.shell.collapseRight();
    window.underTest = { app, panel, run: null };
}"""
_BEGIN = """index => {
    const { app, panel } = underTest;
    panel.content.activeCellIndex = index;
    panel.content.deselectAll();
    underTest.isRunning = true;
    underTest.run = app.commands.execute("notebook:run-cell")
        .finally(() => { underTest.isRunning = false; });
}"""
_IS_IDLE = """() => !underTest.isRunning
    && underTest.panel.sessionContext.session?.kernel?.status === "idle\""""


class LabNotebook(QuietPage):
    """A notebook in a JupyterLab in a page.

    Parameters
    ----------
    browser : Browser
    server : LabServer
    name : str
        Of the file to write and to open.
    cells : list of str
        Sources of its code cells.
    **options : Any
        For ``browser.new_page``.
    """

    def __init__(
        self, browser: Browser, server: LabServer, name: str, cells: list[str], **options: Any
    ) -> None:
        self.file: Path = server.work / name
        nbformat.write(made_of(cells), self.file)
        super().__init__(browser.new_page(**options))
        self.page.goto(server.lab_address)
        self.page.wait_for_function("window.jupyterapp !== undefined")
        self.page.evaluate(_OPEN, name)
        self._wait_until_idle()

    def cell(self, index: int) -> Locator:
        """A cell as it is on the page."""
        return self.page.locator(".jp-NotebookPanel .jp-Notebook-cell").nth(index)

    def run(self, index: int) -> None:
        """Run a cell to its end."""
        self.begin(index)
        self.finish()

    def begin(self, index: int) -> None:
        """Run a cell, and return as soon as the kernel is at it."""
        self.page.evaluate(_BEGIN, index)
        self.page.wait_for_function(
            '() => underTest.panel.sessionContext.session?.kernel?.status === "busy"'
            " || !underTest.isRunning"
        )

    def finish(self) -> None:
        """Wait for the end of the cell that `begin` ran."""
        self.page.evaluate("() => underTest.run")
        self._wait_until_idle()

    def is_busy(self, index: int) -> bool:
        """Whether the kernel runs this cell, for JupyterLab and for who looks at the page."""
        is_running: bool = self.page.evaluate("() => underTest.isRunning")
        prompt = self.cell(index).locator(".jp-InputPrompt").first.inner_text()
        return is_running and prompt == "[*]:"

    def outputs(self, index: int) -> list[dict[str, Any]]:
        """What the notebook's model holds as the outputs of a cell."""
        outputs: list[dict[str, Any]] = self.page.evaluate(
            "index => underTest.panel.content.model.cells.get(index).toJSON().outputs", index
        )
        return outputs

    def errors(self) -> list[dict[str, Any]]:
        """Outputs of any cell that are errors."""
        count: int = self.page.evaluate("() => underTest.panel.content.model.cells.length")
        outputs = [output for index in range(count) for output in self.outputs(index)]
        return [output for output in outputs if output["output_type"] == "error"]

    def save(self) -> Any:
        """Save it as a person does, and read the file."""
        self.page.evaluate("() => underTest.app.commands.execute('docmanager:save')")
        return nbformat.read(self.file, as_version=4)

    def wear(self, theme: str) -> None:
        """Change JupyterLab's theme, e.g. to ``"JupyterLab Dark"``."""
        self.page.evaluate(
            "theme => underTest.app.commands.execute('apputils:change-theme', { theme })", theme
        )
        self.page.wait_for_function(
            "theme => document.body.dataset.jpThemeName === theme", arg=theme
        )
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0)

    def photograph(self, first: int, last: int, image: Path) -> None:
        """Keep a picture of some cells, as far as they fit on the page."""
        self.page.mouse.move(0, 0)
        self.page.evaluate("index => { underTest.panel.content.activeCellIndex = index }", last)
        self.cell(first).evaluate("cell => cell.scrollIntoView({ block: 'start' })")
        top, bottom = (self.cell(index).bounding_box() for index in (first, last))
        panel = self.page.locator(".jp-NotebookPanel-notebook").bounding_box()
        assert top and bottom and panel
        begin = max(top["y"], panel["y"])
        end = min(bottom["y"] + bottom["height"], panel["y"] + panel["height"])
        clip = FloatRect(x=panel["x"], y=begin, width=panel["width"], height=end - begin)
        self.page.screenshot(path=image, clip=clip)

    def close(self) -> None:
        """Leave the page."""
        self.page.close(run_before_unload=False)

    def _wait_until_idle(self) -> None:
        self.page.wait_for_function(_IS_IDLE)


def made_of(cells: list[str]) -> nbformat.NotebookNode:
    """A notebook of code cells that were never run."""
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    return notebook
