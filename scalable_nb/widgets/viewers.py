"""Whether anybody looks at a view, and following a run while its view is open.

A run that nobody watches costs nothing.

A page that shows a view says so every 20 seconds (feed.mjs). A kernel that runs a cell hears
nothing, so silence counts only while it is idle.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

_INTERVAL_S: Final = 1.0
#: Of the time, at most this share is spent on bringing a view up to date.
_SHARE: Final = 0.1
logger = logging.getLogger(__name__)


#: Silence of an idle kernel's pages after which nobody looks; several times their interval.
VIEWER_TIMEOUT_S: Final = 90.0


class Kernel:
    """Whether this kernel runs a cell, and until when it did."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.is_busy = False
        self.idle_since = float("-inf")

    def begin_cell(self) -> None:
        """A cell begins: from now on nobody is heard."""
        self.is_busy = True

    def end_cell(self) -> None:
        """A cell ended: who is there will be heard again."""
        self.is_busy = False
        self.idle_since = self.clock()


THIS_KERNEL: Final = Kernel()


class Viewers:
    """Those who look at one view; at first somebody who has just displayed it.

    Parameters
    ----------
    kernel : Kernel
    """

    def __init__(self, kernel: Kernel = THIS_KERNEL) -> None:
        self._kernel = kernel
        self._last_seen_at = kernel.clock()

    def record_seen(self) -> None:
        """A page says that it shows the view."""
        self._last_seen_at = self._kernel.clock()

    def leave(self) -> None:
        """The last page that showed it does so no more."""
        self._last_seen_at = float("-inf")

    def expires_in_s(self) -> float | None:
        """Seconds after which nobody counts as there; None while nobody can be heard."""
        if self._kernel.is_busy:
            return None
        last = self._last_seen_at
        if last > float("-inf"):
            last = max(last, self._kernel.idle_since)
        return max(0.0, last + VIEWER_TIMEOUT_S - self._kernel.clock())

    @property
    def are_present(self) -> bool:
        """Whether somebody may be looking."""
        return self.expires_in_s() != 0.0


def let_callbacks_run_in_subshells(comm: Any) -> None:
    """Have what a page asks through a widget's comm answered at once, where that is possible."""
    # ipykernel 7.4 sends a page's message to the shell that last published on the comm; with
    # JupyterLab's subshells it would be answered while a cell runs. Checked on 7.4.0; where
    # the method is missing, messages wait for the end of the cell, and the view says so.
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default


class Follower:
    """Calls ``step`` now and again in a thread, until the run is over or nobody looks any more.

    Parameters
    ----------
    step : callable
        Brings the view up to date.
    is_running : callable
        Whether there may be more; after it said no, ``step`` is called once more.
    """

    def __init__(self, step: Callable[[], None], is_running: Callable[[], bool]) -> None:
        self._step, self._is_running = step, is_running
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="failure-explorer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End soon; does not wait."""
        self._closed.set()

    @property
    def is_following(self) -> bool:
        """Whether its thread goes on."""
        return self._thread.is_alive()

    def _follow(self) -> None:
        pause_s, is_last = _INTERVAL_S, False
        while not is_last and not self._closed.wait(pause_s):
            is_last = not self._is_running()
            began = time.perf_counter()
            try:
                self._step()
            except Exception:
                # The journal stays; only this view stands still, and the log says why.
                logger.exception("the failure explorer no longer follows its run")
                return
            pause_s = max(_INTERVAL_S, (time.perf_counter() - began) / _SHARE)
