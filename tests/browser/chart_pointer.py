"""Points at the failure explorer's chart as a person does."""

from __future__ import annotations

from playwright.sync_api import FloatRect, Locator
from waiting import until


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
        """Click the bar of an error class, once the chart has noticed the pointer there."""
        self._chart.scroll_into_view_if_needed()
        noticed = self._chart.locator(".hoverlayer .hovertext").filter(has_text=name)

        def is_noticed() -> bool:
            tick, drawing = self._row(name), self._box(".nsewdrag")
            place = drawing["x"] + 12, tick["y"] + tick["height"] / 2
            self._mouse.move(drawing["x"] + drawing["width"] - 5, place[1])
            self._mouse.move(*place, steps=5)
            return noticed.count() > 0

        until(is_noticed)
        self._mouse.down()
        self._mouse.up()

    def draw_box(self, name: str, subplot: str) -> None:
        """Enclose what a subplot shows of an error class."""
        self._chart.hover()
        self._chart.locator('.modebar-btn[data-title="Box Select"]').click()
        tick, drawing = self._row(name), self._box(f".nsewdrag[data-subplot={subplot}]")
        self._mouse.move(drawing["x"] + 2, tick["y"] - 5)
        self._mouse.down()
        right, bottom = drawing["x"] + drawing["width"] - 2, tick["y"] + tick["height"] + 5
        self._mouse.move(right, bottom, steps=5)
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
