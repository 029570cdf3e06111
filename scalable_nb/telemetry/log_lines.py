"""Lines of a log that were written in a span of time; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final

# As `logging` writes the time, in the machine's own zone: 2026-03-01 12:00:00,123
_STAMP: Final = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}")


def lines_between(lines: Iterable[str], begin_at: float, end_at: float) -> list[str]:
    """The lines of a span of time, oldest first.

    Parameters
    ----------
    lines : iterable of str
        In the order in which they were written. A line without a time belongs to the one
        before it.
    begin_at, end_at : float
        Seconds since the epoch, both included.
    """
    found = []
    is_within = False
    for line in lines:
        stamp = _STAMP.match(line)
        if stamp is not None:
            at = datetime.strptime(stamp[0], "%Y-%m-%d %H:%M:%S,%f").timestamp()
            is_within = begin_at <= at <= end_at
        if is_within:
            found.append(line)
    return found
