"""Which attempts a worker process is executing, readable after its death.

A worker that is killed, or that holds the GIL in C code, cannot say what it was
doing. So every attempt notes itself in a small file mapped into memory before user
code runs; the nanny, another process, reads the file whenever it likes.

An attempt that ended stays noted as such until its outcome is known to be delivered, or its
slot is needed: a worker may die between the end of a function and the message about it.

The first block says whose file it is: a process may have come, worked and died before its
nanny was told its address. A slot is written by one thread at a time and its ``started_at``
is written last and cleared first, so a reader never takes a half-written slot for an
attempt.
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

from scalable_nb.protocol.call import SLOT_NAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Environment variable by which the nanny tells its worker process the file.
SLOTS_VARIABLE: Final = "SCALABLE_NB_SLOTS"

#: How long a call may take to be loaded, imports included, beside the task's time limit.
LOADING_S: Final = 60.0

_SLOT_COUNT: Final = 256  # more threads than any worker has
_OWNER: Final = struct.Struct("<qH")  # process id, bytes of the address
# started_at, ended_at (0: runs), timeout_s (0: none), serial, run_id, bytes of the key
_HEAD: Final = struct.Struct("<dddqqH")
_STAMP: Final = struct.Struct("<d")
_ENDED_AT: Final = 8  # where in a slot
_TIMEOUT_S: Final = 16
_SLOT_BYTES: Final = _HEAD.size + SLOT_NAME_BYTES


class NotedAttempt(NamedTuple):
    """What a slot says of an attempt.

    ``key`` is the `slot_name`; ``started_at`` and ``ended_at`` (0: it runs) are in seconds
    since the epoch; ``timeout_s`` is None without a limit; ``serial`` tells two attempts of one
    key in one process apart; ``run_id`` is the scheduler's number for it.
    """

    key: str
    started_at: float
    timeout_s: float | None
    serial: int
    run_id: int
    ended_at: float


class Owner(NamedTuple):
    """Whose file it is: a worker process, and its address as the scheduler knows it."""

    pid: int
    address: str


class SlotWriter:
    """The worker's side: notes attempts while they run.

    Parameters
    ----------
    path : Path
        File made by the nanny with `create_slots`.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        # The slot that was used longest ago is the next: what ended lately stays readable.
        self._free = deque(range(1, _SLOT_COUNT + 1))
        self._lock = threading.Lock()
        self._serial = 0

    @contextmanager
    def running(self, name: str, timeout_s: float | None, run_id: int = 0) -> Iterator[Note]:
        """Note an attempt, by its `slot_name`, as running for as long as the block runs."""
        encoded = name.encode()
        with self._lock:
            # More threads than slots: the attempt runs, unwatched.
            slot = self._free.popleft() if self._free else None
            self._serial += 1
            serial = self._serial
        if slot is None:
            yield Note()
            return
        start = slot * _SLOT_BYTES
        self._stamp(start, 0.0)
        key_at = start + _HEAD.size
        self._map[key_at : key_at + len(encoded)] = encoded
        loading_s = timeout_s + LOADING_S if timeout_s else 0.0
        _HEAD.pack_into(self._map, start, 0.0, 0.0, loading_s, serial, run_id, len(encoded))
        self._stamp(start, time.time())
        try:
            yield WrittenNote(self, start, serial, timeout_s)
        finally:
            self._stamp(start + _ENDED_AT, time.time())
            with self._lock:
                self._free.append(slot)

    def _stamp(self, at: int, value: float) -> None:
        _STAMP.pack_into(self._map, at, value)

    def restart_clock(self, start: int, timeout_s: float) -> None:
        """Let the time limit of the attempt in a slot count from now."""
        # In this order a reader between the two sees too much time, never too little.
        self._stamp(start, time.time())
        self._stamp(start + _TIMEOUT_S, timeout_s)

    def forget(self, start: int, serial: int) -> None:
        """Take a note away, where its slot was not used again meanwhile."""
        with self._lock:
            if _HEAD.unpack_from(self._map, start)[3] == serial:
                self._stamp(start, 0.0)


_making = threading.Lock()


def own_slots() -> SlotWriter | None:
    """The slots of this worker process; None where no nanny watches it."""
    # Two threads that begin their first attempts at once would each make one, and both would
    # begin at the first slot.
    with _making:
        return _open_own_slots()


@functools.cache
def _open_own_slots() -> SlotWriter | None:
    path = os.environ.get(SLOTS_VARIABLE)
    return SlotWriter(Path(path)) if path else None


class Note:
    """What is noted of one attempt: nothing, where there was no slot for it."""

    def called(self) -> None:
        """The call is loaded, its function begins: the time limit counts from now.

        Loading unpickles and imports, which may take long in a new process and is no fault of
        the function. It has `LOADING_S` seconds beside the limit.
        """

    def forget(self) -> None:
        """Take the note away: the outcome is known elsewhere. After the block, in its thread."""


class WrittenNote(Note):
    """A note in a slot.

    Parameters
    ----------
    writer : SlotWriter
    start : int
        Where the slot begins.
    serial : int
    timeout_s : float or None
    """

    def __init__(
        self, writer: SlotWriter, start: int, serial: int, timeout_s: float | None
    ) -> None:
        self._writer = writer
        self._start = start
        self._serial = serial
        self._timeout_s = timeout_s

    def called(self) -> None:
        """See `Note.called`."""
        if self._timeout_s:
            self._writer.restart_clock(self._start, self._timeout_s)

    def forget(self) -> None:
        """See `Note.forget`."""
        self._writer.forget(self._start, self._serial)


def create_slots(path: Path) -> None:
    """Make an empty file of slots, replacing what a former worker process left."""
    part = path.with_suffix(".part")
    part.write_bytes(bytes((_SLOT_COUNT + 1) * _SLOT_BYTES))
    part.chmod(0o600)
    part.replace(path)


def note_owner(path: Path, owner: Owner) -> None:
    """Say whose file it is; by the worker process, before it gets tasks."""
    address = owner.address.encode()
    with path.open("r+b") as file:
        file.write(_OWNER.pack(owner.pid, len(address)) + address)


def read_owner(path: Path) -> Owner | None:
    """Whose file it is; None as long as no worker has connected."""
    try:
        with path.open("rb") as file:
            data = file.read(_SLOT_BYTES)
    except FileNotFoundError:
        return None
    pid, length = _OWNER.unpack_from(data)
    return Owner(pid, data[_OWNER.size : _OWNER.size + length].decode()) if pid else None


def read_slots(path: Path) -> list[NotedAttempt]:
    """The attempts that were noted as running when the file was last written."""
    return [attempt for attempt in read_noted(path) if not attempt.ended_at]


def read_ended(path: Path) -> list[NotedAttempt]:
    """The attempts that ended lately, and of whose outcome nobody may have heard."""
    return [attempt for attempt in read_noted(path) if attempt.ended_at]


def read_noted(path: Path) -> Iterator[NotedAttempt]:
    """All attempts that are noted: those that run, and those that ended lately."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for start in range(_SLOT_BYTES, len(data) - _SLOT_BYTES + 1, _SLOT_BYTES):
        started_at, ended_at, timeout_s, *ids, length = _HEAD.unpack_from(data, start)
        if started_at > 0 and length <= SLOT_NAME_BYTES:
            key = data[start + _HEAD.size : start + _HEAD.size + length].decode(errors="replace")
            yield NotedAttempt(key, started_at, timeout_s or None, ids[0], ids[1], ended_at)
