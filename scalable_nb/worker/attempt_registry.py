"""The attempts that a worker process is executing, readable after its death.

A worker that is killed, or that holds the GIL in C code, cannot report what it was executing. So
every attempt is registered in a small file, mapped into memory, before user code runs. The nanny,
another process, reads the file at any time.

An attempt that ended stays registered until its outcome is known to be delivered, or its entry is
needed: a worker may die between the end of a function and the message about it.

The first block names the owner of the file: a process may have started, worked and died before
its nanny knew its address. An entry is written by one thread at a time. Its ``started_at`` is
written last and cleared first, so a reader never takes a half-written entry for an attempt.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct
import threading
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from scalable_nb.protocol.call import REGISTERED_NAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Environment variable with which the nanny passes the file's path to its worker process.
REGISTRY_VARIABLE: Final = "SCALABLE_NB_SLOTS"

#: How long a call may take to be loaded, imports included, beside the task's time limit.
LOADING_S: Final = 60.0

_ENTRY_COUNT: Final = 256  # more threads than any worker has
_OWNER: Final = struct.Struct("<qH")  # process id, bytes of the address
# started_at, ended_at (0: runs), timeout_s (0: none), serial, run_id, bytes of the key
_HEAD: Final = struct.Struct("<dddqqH")
_STAMP: Final = struct.Struct("<d")
_ENDED_AT: Final = 8  # offset in an entry
_TIMEOUT_S: Final = 16
_ENTRY_BYTES: Final = _HEAD.size + REGISTERED_NAME_BYTES


class RegisteredAttempt(NamedTuple):
    """An entry of the registry.

    ``name`` is the `registered_name`; ``started_at`` and ``ended_at`` (0: it runs) are in seconds
    since the epoch; ``timeout_s`` is None without a limit; ``serial`` tells two attempts of one
    key in one process apart; ``run_id`` is the scheduler's number for it.
    """

    name: str
    started_at: float
    timeout_s: float | None
    serial: int
    run_id: int
    ended_at: float


class Owner(NamedTuple):
    """The owner of the file: a worker process, and its address as the scheduler knows it."""

    pid: int
    address: str


class AttemptRegistry:
    """The worker's side: registers attempts while they run.

    Parameters
    ----------
    path : Path
        File made by the nanny with `create_registry`.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        # The entry used longest ago comes next: what ended lately stays readable.
        self._free = deque(range(1, _ENTRY_COUNT + 1))
        self._lock = threading.Lock()
        self._serial = 0

    @contextmanager
    def register(
        self, name: str, timeout_s: float | None, run_id: int = 0
    ) -> Iterator[AttemptEntry]:
        """Register an attempt, by its `registered_name`, as running while the block runs."""
        encoded = name.encode()
        with self._lock:
            # No free entry: run the attempt untracked.
            number = self._free.popleft() if self._free else None
            self._serial += 1
            serial = self._serial
        if number is None:
            yield AttemptEntry()
            return
        start = number * _ENTRY_BYTES
        self._stamp(start, 0.0)
        key_at = start + _HEAD.size
        self._map[key_at : key_at + len(encoded)] = encoded
        loading_s = timeout_s + LOADING_S if timeout_s else 0.0
        _HEAD.pack_into(self._map, start, 0.0, 0.0, loading_s, serial, run_id, len(encoded))
        self._stamp(start, time.time())
        try:
            yield FileEntry(self, start, serial, timeout_s)
        finally:
            self._stamp(start + _ENDED_AT, time.time())
            with self._lock:
                self._free.append(number)

    def _stamp(self, at: int, value: float) -> None:
        _STAMP.pack_into(self._map, at, value)

    def restart_clock(self, start: int, timeout_s: float) -> None:
        """Let the time limit of a registered attempt count from now."""
        # In this order a reader between the two sees too much time, never too little.
        self._stamp(start, time.time())
        self._stamp(start + _TIMEOUT_S, timeout_s)

    def remove(self, start: int, serial: int) -> None:
        """Remove an attempt, unless its entry was used again meanwhile."""
        with self._lock:
            if _HEAD.unpack_from(self._map, start)[3] == serial:
                self._stamp(start, 0.0)


_making = threading.Lock()


def own_registry() -> AttemptRegistry | None:
    """Return the registry of this worker process; None without a nanny of ours."""
    # Two threads that begin their first attempts at once would each make one, and both would
    # begin at the first entry.
    with _making:
        return _open_own_registry()


@functools.cache
def _open_own_registry() -> AttemptRegistry | None:
    path = os.environ.get(REGISTRY_VARIABLE)
    return AttemptRegistry(Path(path)) if path else None


class AttemptEntry:
    """The entry of one attempt; of an untracked one, nothing."""

    def restart_clock(self) -> None:
        """Let the time limit count from now: the call is loaded, its function begins.

        Loading unpickles and imports, which may take long in a new process and is no fault of
        the function. It has `LOADING_S` seconds beside the limit.
        """

    def remove(self) -> None:
        """Remove the attempt: its outcome is known elsewhere. After the block, in its thread."""


class FileEntry(AttemptEntry):
    """An entry of the file.

    Parameters
    ----------
    registry : AttemptRegistry
    start : int
        Offset of the entry.
    serial : int
    timeout_s : float or None
    """

    def __init__(
        self, registry: AttemptRegistry, start: int, serial: int, timeout_s: float | None
    ) -> None:
        self._registry = registry
        self._start = start
        self._serial = serial
        self._timeout_s = timeout_s

    def restart_clock(self) -> None:
        """See `AttemptEntry.restart_clock`."""
        if self._timeout_s:
            self._registry.restart_clock(self._start, self._timeout_s)

    def remove(self) -> None:
        """See `AttemptEntry.remove`."""
        self._registry.remove(self._start, self._serial)


def create_registry(path: Path) -> None:
    """Write an empty registry, replacing that of a former worker process."""
    part = path.with_suffix(".part")
    part.write_bytes(bytes((_ENTRY_COUNT + 1) * _ENTRY_BYTES))
    part.chmod(0o600)
    part.replace(path)


def write_owner(path: Path, owner: Owner) -> None:
    """Write the owner of the file; called by the worker process before it gets tasks."""
    address = owner.address.encode()
    with path.open("r+b") as file:
        file.write(_OWNER.pack(owner.pid, len(address)) + address)


def read_owner(path: Path) -> Owner | None:
    """Return the owner of the file; None as long as no worker has connected."""
    try:
        with path.open("rb") as file:
            data = file.read(_ENTRY_BYTES)
    except FileNotFoundError:
        return None
    pid, length = _OWNER.unpack_from(data)
    return Owner(pid, data[_OWNER.size : _OWNER.size + length].decode()) if pid else None


def read_executing(path: Path) -> list[RegisteredAttempt]:
    """Return the attempts that were running when the file was last written."""
    return [attempt for attempt in read_attempts(path) if not attempt.ended_at]


def read_ended(path: Path) -> list[RegisteredAttempt]:
    """Return the attempts that ended lately, and whose outcome may not have been delivered."""
    return [attempt for attempt in read_attempts(path) if attempt.ended_at]


def read_attempts(path: Path) -> Iterator[RegisteredAttempt]:
    """Yield all registered attempts: those that run, and those that ended lately."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for start in range(_ENTRY_BYTES, len(data) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        started_at, ended_at, timeout_s, *ids, length = _HEAD.unpack_from(data, start)
        if started_at > 0 and length <= REGISTERED_NAME_BYTES:
            name = data[start + _HEAD.size : start + _HEAD.size + length].decode(errors="replace")
            yield RegisteredAttempt(name, started_at, timeout_s or None, ids[0], ids[1], ended_at)
