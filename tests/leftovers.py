"""What a session leaves behind when it did not end as it should."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psutil

_ENDS_WITHIN_S: Final = 20.0


def processes_below(folder: Path) -> list[psutil.Process]:
    """The processes that work in a folder or name a place in it."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.cwd()]
        except psutil.Error:
            continue  # it ended meanwhile, or belongs to somebody else
        if any(str(folder) in word for word in words):
            found.append(process)
    return found


def remove_leftovers(folder: Path) -> list[psutil.Process]:
    """End the processes of a folder that do not end soon by themselves; returns them."""
    _, left = psutil.wait_procs(processes_below(folder), _ENDS_WITHIN_S)
    for process in left:
        process.kill()
    psutil.wait_procs(left, _ENDS_WITHIN_S)
    return left
