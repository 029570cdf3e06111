"""Waiting for futures with one line that says how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from distributed import Future

_POLL_S: Final = 0.1
#: Every line that is printed is kept in the saved notebook: a few a second would fill it.
_PRINT_EVERY_S: Final = 0.5


class WaitInterrupted(KeyboardInterrupt):
    """The person interrupted the wait; the tasks were left alone."""

    def _render_traceback_(self) -> list[str]:
        # IPython shows this in place of frames that say nothing to anybody.
        return [f"KeyboardInterrupt: {self}"]


def wait_for(
    futures: Sequence[Future[Any]], line: TextIO | None, check: Callable[[], None]
) -> None:
    """Return when all futures are done, failed or cancelled.

    Parameters
    ----------
    futures : sequence of Future
        What to wait for.
    line : text stream or None
        Where counts go as they change, each over the one before; None for silence.
    check : callable
        Asked again and again; raises where waiting has become vain.

    Raises
    ------
    KeyboardInterrupt
        When interrupted; the line is ended, the futures are left alone.
    """
    from scalable_nb.widgets.progress import count_line

    waiting = list(futures)
    shown, looked_at = "", float("-inf")
    try:
        while True:
            waiting = [future for future in waiting if not future.done()]
            if not waiting or time.monotonic() - looked_at >= _PRINT_EVERY_S:
                looked_at = time.monotonic()
                check()
                text = count_line(futures)
                if line is not None and text != shown:
                    line.write("\r" + text.ljust(len(shown)))
                    line.flush()
                    shown = text
            if not waiting:
                return
            time.sleep(_POLL_S)
    finally:
        if line is not None and shown:
            line.write("\n")
