"""One owner at a time: a lock on a file that says who has it, with a heartbeat."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

from scalable_nb.errors import ScalableError

_BEAT_S: Final = 5.0
#: After so long without a heartbeat an owner that cannot be seen from here is taken for dead.
STALE_AFTER_S: Final = 60.0


class IndexBusyError(ScalableError):
    """Another process owns this machine's index; the results themselves can be used."""


class OwnerLock:
    """Holds a file as its only owner, until it is closed or the process ends.

    On one machine the kernel's lock tells, and goes with the process however it ends. Two
    machines of one name that share the folder, where that lock may not reach, are told apart by
    what the owner writes: its boot id, and when it was last alive.

    Parameters
    ----------
    path : Path
        Made where it is missing.

    Raises
    ------
    IndexBusyError
        When another process has it; names the process and says when it was last alive.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "r+", encoding="utf-8")
        self._path = path
        self._is_closed = threading.Event()
        try:
            self._take()
        except BaseException:
            self._file.close()
            raise
        self._beater = threading.Thread(target=self._beat, name="owner-heartbeat", daemon=True)
        self._beater.start()

    def close(self) -> None:
        """Let go; closing twice is harmless."""
        if not self._is_closed.is_set():
            self._is_closed.set()
            self._beater.join()
            self._file.truncate(0)
            self._file.close()

    def _take(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._busy(self._owner()) from None
        owner = self._owner()
        is_elsewhere = owner.get("boot_id") not in (None, _boot_id())
        if is_elsewhere and time.time() - _seen_at(owner) < STALE_AFTER_S:
            raise self._busy(owner)
        self._write()

    def _owner(self) -> dict[str, Any]:
        self._file.seek(0)
        try:
            owner = json.loads(self._file.read())
        except ValueError:  # nobody has it, or it is being written
            return {}
        return owner if isinstance(owner, dict) else {}

    def _busy(self, owner: dict[str, Any]) -> IndexBusyError:
        who = json.dumps({name: owner[name] for name in ("pid", "host") if name in owner})
        ago_s = max(0.0, time.time() - _seen_at(owner))
        when = f", alive {ago_s:.0f} s ago" if owner else ""
        return IndexBusyError(
            f"the index of kept results {str(self._path.parent)!r} is in use by {who}{when}; "
            "only one process of a machine has it open at a time"
        )

    def _write(self) -> None:
        content = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "boot_id": _boot_id(),
            "alive_at": time.time(),
        }
        self._file.seek(0)
        self._file.write(json.dumps(content) + "\n")
        self._file.truncate()
        self._file.flush()

    def _beat(self) -> None:
        while not self._is_closed.wait(_BEAT_S):
            try:
                self._write()
            except OSError:
                continue  # a full disk: the kernel's lock still holds


def _seen_at(owner: dict[str, Any]) -> float:
    value = owner.get("alive_at")
    return float(value) if isinstance(value, int | float) else 0.0


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
