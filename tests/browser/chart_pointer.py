"""Points at the failure explorer's chart as a person does."""

from __future__ import annotations

from playwright.sync_api import FloatRect, Locator
from waiting import until

_COUNT_CLICKS = """chart => {
    chart.clicksHeard = 0;
    chart.on("plotly_click", () => { chart.clicksHeard += 1; });
}"""


class ChartPointer:
    """A mouse over a chart that is drawn anew, in new elements, whenever its values change.

    Parameters
    ----------
    chart : Locator
        The plotly element.
    """

    def __init__(self, chart: Locator) -> None:
        self._chart = chart
        self._mouse = chart.page.mouse

    def click_bar(self, name: str) -> None:
        """Click the bar of an error class, until the chart has noticed it.

        A chart that is drawn anew between the pointer's coming and its click hears no click.
        """
        self._chart.scroll_into_view_if_needed()
        noticed = self._chart.locator(".hoverlayer .hovertext").filter(has_text=name)
        self._chart.evaluate(_COUNT_CLICKS)

        def is_noticed() -> bool:
            tick, drawing = self._row(name), self._box(".nsewdrag")
            place = drawing["x"] + 12, tick["y"] + tick["height"] / 2
            self._mouse.move(drawing["x"] + drawing["width"] - 5, place[1])
            self._mouse.move(*place, steps=5)
            return noticed.count() > 0

        def is_clicked() -> bool:
            until(is_noticed)
            self._mouse.down()
            self._mouse.up()
            return bool(self._chart.evaluate("chart => chart.clicksHeard > 0"))

        until(is_clicked)

    def enclose(self, name: str, subplot: str, tool: str) -> None:
        """Draw a box or a lasso around what a subplot shows of an error class."""
        self._chart.hover()
        self._chart.locator(f'.modebar-btn[data-title="{tool}"]').click()
        tick, drawing = self._row(name), self._box(f".nsewdrag[data-subplot={subplot}]")
        left, right = drawing["x"] + 2, drawing["x"] + drawing["width"] - 2
        top, bottom = tick["y"] - 5, tick["y"] + tick["height"] + 5
        corners = [(right, bottom)]  # from which a box is spanned
        if tool == "Lasso Select":
            corners = [(right, top), (right, bottom), (left, bottom)]
        self._mouse.move(left, top)
        self._mouse.down()
        for corner in corners:
            self._mouse.move(*corner, steps=5)
        self._mouse.up()

    def _row(self, name: str) -> FloatRect:
        return self._settled(self._chart.locator(".ytick").filter(has_text=name).first)

    def _box(self, selector: str) -> FloatRect:
        return self._settled(self._chart.locator(selector).first)

    def _settled(self, part: Locator) -> FloatRect:
        """Where a part is once it stays there."""
        boxes: list[FloatRect | None] = [part.bounding_box()]

        def stays() -> bool:
            boxes.append(part.bounding_box())
            return boxes[-1] is not None and boxes[-1] == boxes[-2]

        until(stays)
        (*_, box) = boxes
        assert box is not None
        return box
