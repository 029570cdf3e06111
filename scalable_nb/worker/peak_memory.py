"""The most memory that a worker process has used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import psutil

#: Under which name a worker's heartbeat carries it.
PEAK_METRIC: Final = "scalable_peak_bytes"

_STATUS: Final = Path("/proc/self/status")
_PEAK_LINE: Final = b"VmHWM:"


def peak_memory_bytes(worker: Any = None) -> int:
    """The peak of this process's resident memory; where the system does not say, what it has now.

    `resource.getrusage` would count the parent's memory at the time of the fork as well.

    Parameters
    ----------
    worker : distributed.Worker, optional
        Not used; given by Dask, which calls this for each heartbeat.
    """
    try:
        lines = _STATUS.read_bytes().splitlines()
    except OSError:  # no Linux
        lines = []
    for line in lines:
        if line.startswith(_PEAK_LINE):
            return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)
