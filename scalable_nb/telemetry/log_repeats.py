"""Limits how often the same message is logged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

INTERVAL_S: Final = 60.0


class RepeatFilter(logging.Filter):
    """Passes a message once per interval, with the number of repeats since the last one.

    Messages count as equal if their text before the arguments are inserted is, and the type of
    the exception that is logged with them.

    Parameters
    ----------
    interval_s : float
    clock : callable
        Returns the time in seconds.
    """

    def __init__(
        self, interval_s: float = INTERVAL_S, clock: Callable[[], float] = monotonic
    ) -> None:
        super().__init__()
        self._interval_s, self._clock = interval_s, clock
        self._passed: dict[str, tuple[float, int]] = {}  # message -> when, repeats since then

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged."""
        now = self._clock()
        message = _without_arguments(record)
        passed_at, repeats = self._passed.get(message, (float("-inf"), 0))
        if now - passed_at < self._interval_s:
            self._passed[message] = passed_at, repeats + 1
            return False
        if message not in self._passed:
            self._drop_old(now)
        self._passed[message] = now, 0
        if repeats:
            record.msg = f"{record.msg} ({repeats} more like this since the last one)"
        return True

    def _drop_old(self, now: float) -> None:
        """Forget messages that were not repeated, so that this does not grow."""
        old = [message for message, (passed_at, repeats) in self._passed.items()
               if not repeats and now - passed_at > self._interval_s]  # fmt: skip
        for message in old:
            del self._passed[message]


def _without_arguments(record: logging.LogRecord) -> str:
    error = record.exc_info[0] if record.exc_info else None
    first_line = str(record.msg).partition("\n")[0]
    return first_line if error is None else f"{first_line} {error.__name__}"
