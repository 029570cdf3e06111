"""A client whose tasks end as a test says, without any host."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from distributed import Future

from scalable_nb.client.cached_futures import CachedFutures
from scalable_nb.client.client import ScalableClient
from scalable_nb.client.futures import FutureList
from scalable_nb.client.gatherer import Gatherer
from scalable_nb.client.host_api import HostApi, ObservedKeys
from scalable_nb.client.pause_watch import PauseWatch
from scalable_nb.telemetry.ledger import Delta, Ledger
from scalable_nb.telemetry.ledger_mirror import Mirror
from scalable_nb.telemetry.rows import TaskState


class FakeClient(ScalableClient):
    """Knows futures and results; the ledger is kept by the test."""

    asynchronous = False
    generation = 0
    loop = SimpleNamespace(add_callback=lambda *args: None)

    def __init__(self) -> None:
        self.futures: dict[Any, Any] = {}
        self.values: dict[Any, Any] = {}
        self.host = Ledger("run")
        self.session = SimpleNamespace(mirror=Mirror(self, ""))  # type: ignore[assignment]
        self._gatherer = Gatherer(
            self,
            CachedFutures(self),
            ObservedKeys(self, HostApi(self)),
            self._no_host,
            self._find_stored,
            self._find_host_error,
        )
        self._pause_watch = PauseWatch(HostApi(self))
        self._refcount_lock = threading.RLock()

    def __del__(self) -> None:
        """Nothing was opened."""

    def _no_host(self, keys: Any) -> None:
        raise AssertionError(f"there is no host to send {keys} to")

    def _inc_ref(self, key: Any) -> None:
        """Nobody counts."""

    # --- what happens to tasks ---------------------------------------------------

    def submitted(self, *keys: Any, name: str = "") -> FutureList:
        """Tasks of which nothing is known yet."""
        for key in keys:
            self.host.add(
                key if isinstance(key, str) else repr(key),
                f"f({key})",
                state=TaskState.QUEUED,
                attempts_allowed=2,
            )
        return FutureList((Future(key, self) for key in keys), name=name)

    def succeed(self, key: Any, value: Any) -> None:
        """A task ended with a result."""
        self.values[key] = value
        self._end(key, TaskState.SUCCEEDED)
        self.futures[key].finish()

    def fail(self, key: Any, error: Exception) -> None:
        """A task ended with an error, in its second attempt."""
        self._end(key, TaskState.FAILED, attempt=2, error=type(error).__name__)
        self.futures[key].set_error(error, None)

    def cancel_one(self, key: Any) -> None:
        """A person cancelled a task."""
        self._end(key, TaskState.CANCELLED, attempt=0)
        self.futures[key].cancel()

    def _end(self, key: Any, state: TaskState, attempt: int = 1, error: str = "") -> None:
        row = self.host.row_of[key if isinstance(key, str) else repr(key)]
        self.host.set_state(row, state)
        self.host.set(
            row,
            attempt=attempt,
            duration_s=0.5,
            worker=self.host.code("worker-0"),
            error=self.host.code(error),
        )

    # --- what Dask and the mirror ask for ------------------------------------------

    def sync(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a coroutine function."""
        kwargs.pop("asynchronous", None)
        return asyncio.run(func(*args, **kwargs))

    async def gather_remote(self, futures: Any, *args: Any, **kwargs: Any) -> Any:
        for future in futures:
            if future.status != "finished":
                raise self.futures[future.key].exception
        return [self.values[future.key] for future in futures]

    async def fetch(self, ledger_id: str, since: int, wait_s: float) -> Delta | None:
        """As the host answers."""
        since = since if ledger_id == self.host.ledger_id else 0
        return self.host.delta(since) if self.host.has_changed(since) else None

    def run(self, coroutine: Callable[[], Awaitable[Any]]) -> None:
        """No view follows here."""

    def run_sync(self, coroutine: Callable[[], Awaitable[Any]]) -> Any:
        """Run a coroutine."""
        return self.sync(coroutine)
