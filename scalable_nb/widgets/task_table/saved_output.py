"""What a saved notebook shows of a table whose kernel is gone.

A cell's output is written when it is first shown, when often nothing has happened yet.
So it gets a name (a ``display_id``) and is written again when the work is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from IPython.core.getipython import get_ipython
from IPython.display import display

from scalable_nb.widgets.task_table.summary import TableSummary

#: At most this often: JupyterLab draws a widget anew when its output is updated.
UPDATE_INTERVAL_S: Final = 5.0


def in_notebook() -> bool:
    """Whether there is a kernel, whose outputs can be updated; a terminal has none."""
    return hasattr(get_ipython(), "kernel")


class SavedOutputs:
    """The outputs of cells that show one table.

    Parameters
    ----------
    render : callable
        Makes the MIME bundle of a picture.
    """

    def __init__(self, render: Callable[[TableSummary], dict[str, Any]]) -> None:
        self._render = render
        self._shown: dict[str, TableSummary] = {}
        self._updated_at = float("-inf")
        self.due_at: float | None = None
        """When `update` has something to do; seconds of ``time.monotonic()``."""

    def show(self, summary: TableSummary) -> None:
        """Show the table below the cell that runs."""
        if in_notebook():
            handle = display(self._render(summary), raw=True, display_id=True)
            self._shown[handle.display_id] = summary
        else:
            display(self._render(summary), raw=True)

    def update(self, summary: TableSummary, *, at_once: bool = False) -> None:
        """Write the outputs again that say something else than the final ``summary``."""
        now = time.monotonic()
        outdated = [
            at for at, shown in self._shown.items() if not _has_same_content(shown, summary)
        ]
        self.due_at = None
        if not outdated:
            return
        if now < self._updated_at + UPDATE_INTERVAL_S and not at_once:
            self.due_at = self._updated_at + UPDATE_INTERVAL_S
            return
        bundle = self._render(summary)
        for display_id in outdated:
            display(bundle, raw=True, display_id=display_id, update=True)
            self._shown[display_id] = summary
        self._updated_at = now


def _has_same_content(one: TableSummary, other: TableSummary) -> bool:
    # All but the time.
    return (
        one.status == other.status
        and one.lines == other.lines
        and one.counts == other.counts
        and one.title == other.title
    )
