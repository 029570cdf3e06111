"""An index over the stored results, for questions about all of them at once.

Nothing depends on it: the files are the truth, and it can be thrown away at any time.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import diskcache

from scalable_nb.cache.store import ResultStore, ResultStoreError, StoredResult
from scalable_nb.errors import ScalableError
from scalable_nb.paths import private_folder

_HEARTBEAT_S: Final = 5.0
#: After so long without a heartbeat an owner that cannot be seen from here is taken for dead.
STALE_AFTER_S: Final = 60.0


__all__ = ["IndexBusyError", "ResultIndex", "Totals"]

# One folder per machine: SQLite's locks do not reach from one to another.
_FOLDER: Final = "index"
_UNLIMITED_BYTES: Final = 1 << 62
#: The folder that earlier versions pickled rows into.
_PICKLED: Final = "sqlite"
#: How diskcache marks a value that is in the database as it is.
_RAW: Final = 1


@dataclass(frozen=True)
class Totals:
    """Number and size of the stored results.

    Attributes
    ----------
    count : int
        Number of results.
    nbytes : int
        Size of their files in bytes.
    """

    count: int
    nbytes: int


class ResultIndex:
    """The stored results: key -> size and meta. One process per machine has it open.

    Parameters
    ----------
    store : ResultStore
        The results. An index that is new or damaged is built from their files.

    Raises
    ------
    IndexBusyError
        When another process has it open; names the process.
    OSError
        When its folder cannot be used.
    """

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        machine = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()).lstrip(".") or "host"
        private_folder(store.folder)
        private_folder(store.folder / _FOLDER)
        self.folder: Final = private_folder(store.folder / _FOLDER / machine)
        self._lock = FileLock(self.folder / "owner.lock")
        try:
            self._cache, is_new = self._open()
            if is_new:
                self.rebuild()
        except BaseException:
            self._lock.close()
            raise

    def record(self, stored: StoredResult) -> None:
        """Note a result that was written."""
        self._cache.set(stored.key, [stored.nbytes, dict(stored.meta)])

    def forget(self, key: str) -> None:
        """Note that a result is no longer there."""
        self._cache.delete(key)

    def find(self, key: str) -> StoredResult | None:
        """What is known of a result."""
        known = self._cache.get(key)
        return None if known is None else self._entry(key, known)

    def entries(self) -> Iterator[StoredResult]:
        """Everything that is known, oldest note first."""
        for key in self._cache:
            known = self._cache.get(key)
            if known is not None:
                yield self._entry(key, known)

    def total(self) -> Totals:
        """Return number and size of the results that the index contains."""
        sizes = [entry.nbytes for entry in self.entries()]
        return Totals(len(sizes), sum(sizes))

    def rebuild(self) -> int:
        """Forget everything and read the files; gives the number of results.

        Damaged files are set aside on the way.
        """
        self._cache.clear()
        count = 0
        with self._cache.transact():
            for key in self._store.iter_keys():
                try:
                    self.record(self._store.meta(key))
                except (KeyError, ResultStoreError, OSError):
                    continue  # gone, damaged or unreadable: nothing that could be used
                count += 1
        return count

    def update(self) -> None:
        """Learn what others wrote and removed, from the names of the files."""
        there, known = set(self._store.iter_keys()), set(self._cache)
        with self._cache.transact():
            for key in known - there:
                self.forget(key)
            for key in there - known:
                try:
                    self.record(self._store.meta(key))
                except (KeyError, ResultStoreError, OSError):
                    continue  # gone, damaged or unreadable: nothing that could be used

    def close(self) -> None:
        """Close it; another process may open it then."""
        self._cache.close()
        self._lock.close()

    def __enter__(self) -> ResultIndex:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- internals -------------------------------------------------------------------

    def _entry(self, key: str, known: Any) -> StoredResult:
        nbytes, meta = known
        return StoredResult(key, nbytes, self._store.path(key), meta)

    def _open(self) -> tuple[Any, bool]:
        _remove(self.folder / _PICKLED)
        folder = self.folder / "sqlite-json"
        is_new = not folder.exists()
        try:
            return _open_cache(folder), is_new
        except sqlite3.DatabaseError:
            _remove(folder)
            return _open_cache(folder), True


def _remove(folder: Path) -> None:
    """Remove an index; a link is removed and not followed."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


class _PlainDisk(diskcache.JSONDisk):  # type: ignore[misc]
    """Rows as JSON in the database; another one is an error, where `JSONDisk` would unpickle it."""

    def get(self, key: Any, raw: bool) -> Any:
        """Return a key."""
        if not raw:
            raise sqlite3.DatabaseError("a key that is not JSON")
        return super().get(key, raw)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        """Return a value."""
        if mode != _RAW or filename is not None:
            raise sqlite3.DatabaseError("a value that is not JSON")
        return super().fetch(mode, filename, value, read)


def _check_rows(connection: sqlite3.Connection) -> None:
    """Raise for an index with rows that `_PlainDisk` does not write."""
    query = "SELECT COUNT(*) FROM Cache WHERE mode IS NOT ? OR raw IS NOT 1 OR filename IS NOT NULL"
    if connection.execute(query, (_RAW,)).fetchone()[0]:
        raise sqlite3.DatabaseError("rows that are not JSON")


def _open_cache(folder: Path) -> Any:
    database = folder / "cache.db"
    if database.exists():
        # diskcache would not close its connection to a file that is no database, of which Python
        # 3.13 complains.
        with closing(sqlite3.connect(database)) as connection:
            _check_rows(connection)
    cache = diskcache.Cache(
        str(folder),
        disk=_PlainDisk,
        disk_min_file_size=_UNLIMITED_BYTES,
        eviction_policy="none",
        cull_limit=0,
        size_limit=_UNLIMITED_BYTES,
        # The write-ahead log needs shared memory, which a network folder does not have, and
        # what is lost in a crash is in the files.
        sqlite_journal_mode="truncate",
        sqlite_synchronous=0,
        sqlite_mmap_size=0,
    )
    try:
        cache.check()
    except BaseException:
        cache.close()
        raise
    return cache


class IndexBusyError(ScalableError):
    """Another process owns this machine's index; the results themselves can be used."""


class FileLock:
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
        self._heartbeat_thread = threading.Thread(
            target=self._write_heartbeats, name="owner-heartbeat", daemon=True
        )
        self._heartbeat_thread.start()

    def close(self) -> None:
        """Let go; closing twice is harmless."""
        if not self._is_closed.is_set():
            self._is_closed.set()
            self._heartbeat_thread.join()
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

    def _write_heartbeats(self) -> None:
        while not self._is_closed.wait(_HEARTBEAT_S):
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
