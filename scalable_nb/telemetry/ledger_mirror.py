"""The kernel's live copy of the ledger.

It is fetched by the client's IO thread, so it also moves while a cell runs, and only while
somebody is subscribed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

from scalable_nb.telemetry.ledger import Delta, Ledger

logger = logging.getLogger(__name__)

_LONG_POLL_S: Final = 10.0
_PAUSE_S: Final = 0.25


class LedgerSource(Protocol):
    """What the mirror asks for changes: the client's connection to the host."""

    def fetch(self, ledger_id: str, since: int, wait_s: float) -> Awaitable[Delta | None]:
        """What changed, or None when nothing did within ``wait_s`` seconds."""

    def run(self, coroutine: Callable[[], Awaitable[Any]]) -> None:
        """Start a coroutine in the IO thread and do not wait for it."""

    def run_sync(self, coroutine: Callable[[], Awaitable[Any]]) -> Any:
        """Run a coroutine in the IO thread and wait for its result."""


class Mirror:
    """A copy of the host's ledger and the views that follow it.

    Attributes
    ----------
    ledger : Ledger
        The copy. Guard with `lock` when reading more than one thing.
    lock : threading.RLock
    status : str
        ``"live"``, ``"lost"`` (the host does not answer) or ``"closed"``.
    """

    def __init__(self, source: LedgerSource, ledger_id: str) -> None:
        self.ledger = Ledger(ledger_id)
        self.lock = threading.RLock()
        self.status = "live"
        self._source = source
        self._callbacks: list[Callable[[Delta], None]] = []
        self._is_following = False

    def subscribe(self, callback: Callable[[Delta], None]) -> Callable[[], None]:
        """Follow the ledger; returns a function that ends it.

        The callback gets a snapshot first (in the caller's thread), then deltas in the
        client's IO thread, at most four a second and only when something changed.
        """
        with self.lock:
            callback(self.ledger.delta(0))
            self._callbacks.append(callback)
            if not self._is_following and self.status == "live":
                self._is_following = True
                self._source.run(self._follow)
        return lambda: self._unsubscribe(callback)

    def snapshot(self) -> Delta:
        """Everything the copy holds now."""
        with self.lock:
            return self.ledger.delta(0)

    def known_keys(self) -> set[str]:
        """Keys of the tasks that the copy holds now."""
        with self.lock:
            return set(self.ledger.row_of)

    def labels(self, keys: Iterable[str]) -> list[str]:
        """Return the calls of tasks as text; the key of a task that the copy lacks."""
        with self.lock:
            rows, labels = self.ledger.row_of, self.ledger.labels
            return [labels[rows[key]] if key in rows else key for key in keys]

    def refresh(self) -> None:
        """Fetch what changed, now."""
        if self.status == "live":
            self._source.run_sync(lambda: self._step(0.0))

    def end(self, status: str) -> None:
        """Stop following for good and tell the views, by an empty delta."""
        with self.lock:
            if self.status != "live":
                return
            self.status = status
            self._notify(self.ledger.delta(self.ledger.seq))

    def _unsubscribe(self, callback: Callable[[Delta], None]) -> None:
        with self.lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    async def _follow(self) -> None:
        try:
            while self._is_wanted():
                try:
                    await self._step(_LONG_POLL_S)
                except OSError:
                    await asyncio.sleep(_PAUSE_S)  # the client itself decides when it is lost
                await asyncio.sleep(_PAUSE_S)
        finally:
            self._is_following = False

    def _is_wanted(self) -> bool:
        with self.lock:
            # Under the lock, so that who subscribes now either sees it end or is followed.
            self._is_following = bool(self._callbacks) and self.status == "live"
            return self._is_following

    async def _step(self, wait_s: float) -> None:
        delta = await self._source.fetch(self.ledger.ledger_id, self.ledger.seq, wait_s)
        if delta is not None and not self._take(delta):
            snapshot = await self._source.fetch("", 0, 0.0)
            if snapshot is not None:
                self._take(snapshot)

    def _take(self, delta: Delta) -> bool:
        with self.lock:
            before = self.ledger.ledger_id, self.ledger.seq
            is_next = self.ledger.apply(delta)
            if (self.ledger.ledger_id, self.ledger.seq) != before:
                self._notify(delta)
            return is_next

    def _notify(self, delta: Delta) -> None:
        for callback in list(self._callbacks):
            try:
                callback(delta)
            except Exception:
                # One broken view must not stop the others; it is dropped and said so.
                logger.exception("a view failed and no longer follows the ledger")
                self._unsubscribe(callback)
