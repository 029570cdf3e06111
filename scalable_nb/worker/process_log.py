"""The log of a worker process, and its last lines after a crash."""

from __future__ import annotations

import faulthandler
import os
import sys
from pathlib import Path
from typing import Final

#: Under which name a nanny tells its worker process where the log is.
LOG_VARIABLE: Final = "SCALABLE_NB_WORKER_LOG"

_TAIL_LINES: Final = 30
_TAIL_BYTES: Final = 8_000


def write_to_log() -> None:
    """Send what this process prints to its log, where it has one.

    A crash in C code ends with Python's stack at that moment, which is all there is to know.
    """
    name = os.environ.get(LOG_VARIABLE)
    if not name:
        return
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.close(descriptor)
    faulthandler.enable(all_threads=False)


class WorkerLog:
    """A worker's log, read by its nanny.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin = 0

    def begin(self) -> None:
        """A new worker process starts: what is there was written by an earlier one."""
        self._begin = self.path.stat().st_size if self.path.exists() else 0

    def excerpt(self) -> str:
        """Return the last lines of the worker process, with a heading; empty if there are none."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._begin, size - _TAIL_BYTES))
                text = file.read(_TAIL_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return ""
        lines = text.splitlines()[-_TAIL_LINES:]
        return "\n".join(["The worker's last words:", *lines]) if lines else ""
