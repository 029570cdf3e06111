"""Following records while their run goes on, beside the kernel's cells."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

_INTERVAL_S: Final = 1.0
#: Of the time, at most this share is spent on bringing a view up to date.
_SHARE: Final = 0.1

logger = logging.getLogger(__name__)


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
