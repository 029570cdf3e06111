"""The most memory that a worker process has used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import psutil

_SELF: Final = Path("/proc/self/cgroup")
_ROOT: Final = Path("/sys/fs/cgroup")
#: What cgroup v1 says where there is no limit is about the largest signed number.
_NO_LIMIT_BYTES: Final = 2**60


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


class OomKills:
    """Counts the kernel's kills since it was last asked.

    Parameters
    ----------
    self_cgroup, root : Path
        Where the system says which groups a process is in, and where the groups are.
    """

    def __init__(self, self_cgroup: Path = _SELF, root: Path = _ROOT) -> None:
        self._file = _counter(self_cgroup, root)
        self._seen = self._read()

    def has_grown(self) -> bool:
        """Whether there was another kill; False where the system does not say."""
        before, self._seen = self._seen, self._read()
        return self._seen > before

    def limit_bytes(self) -> int | None:
        """The memory that the group may use; None where the system does not say or sets none."""
        if self._file is None:
            return None
        name = "memory.max" if self._file.name == "memory.events" else "memory.limit_in_bytes"
        try:
            text = self._file.with_name(name).read_text().strip()
        except OSError:
            return None
        return int(text) if text.isdigit() and int(text) < _NO_LIMIT_BYTES else None

    def _read(self) -> int:
        if self._file is None:
            return 0
        try:
            lines = self._file.read_text().splitlines()
        except OSError:  # the group is gone
            return 0
        counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
        return int(counts[0]) if counts else 0


def _counter(self_cgroup: Path, root: Path) -> Path | None:
    """The file with the counter: of cgroup v1's memory controller, else of the one of v2."""
    try:
        entries = [line.split(":", 2) for line in self_cgroup.read_text().splitlines()]
    except OSError:  # no Linux
        return None
    candidates = [
        root / "memory" / group.lstrip("/") / "memory.oom_control"
        for _, controllers, group in entries
        if "memory" in controllers.split(",")
    ]
    candidates += [
        root / group.lstrip("/") / "memory.events"
        for number, controllers, group in entries
        if number == "0" and not controllers
    ]
    return next((path for path in candidates if path.exists()), None)
