"""The operations that a client calls on its host, one method each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from scalable_nb.client.cached_futures import CachedFutures
from scalable_nb.client.context import ClientTransport
from scalable_nb.telemetry.ledger import Delta


class HostApi:
    """Calls the host. With an asynchronous client all methods return awaitables.

    Parameters
    ----------
    transport : ClientTransport
    """

    def __init__(self, transport: ClientTransport) -> None:
        self._transport = transport

    # --- the session -------------------------------------------------------------------

    def status(self) -> Any:
        """Return workers, tasks, jobs and notices as the host sees them now."""
        return self._call("status")

    def flush(self) -> None:
        """Have the journal written up to now."""
        self._call("flush")

    def stop(self) -> None:
        """Have the host end itself and its workers."""
        self._call("stop")

    def scale(self, count: int, component: str | None) -> dict[str, int]:
        """Set the number of workers; returns the wanted ones by component."""
        return dict(self._call("scale", count=count, component=component))

    def adapt(self, minimum: int, maximum: int, component: str | None) -> dict[str, int]:
        """Set limits of the number of workers; returns the wanted ones by component."""
        values = {"minimum": minimum, "maximum": maximum, "component": component}
        return dict(self._call("adapt", **values))

    # --- tasks -------------------------------------------------------------------------

    def retry_now(self, keys: Sequence[Any]) -> int:
        """Start the next attempt of waiting tasks now; returns how many were waiting."""
        return self._count("retry_now", keys)

    def give_up(self, keys: Sequence[Any]) -> int:
        """Let waiting tasks fail with their last error; returns how many were waiting."""
        return self._count("give_up", keys)

    def resume_tasks(self, keys: Sequence[Any]) -> int:
        """Resume paused tasks; returns how many were paused."""
        return self._count("resume", keys)

    def cancel_tasks(self, keys: Sequence[Any]) -> int:
        """Cancel unfinished tasks; returns how many there were."""
        return self._count("cancel_tasks", keys)

    def resume_batches(self, names: Sequence[str] | None) -> int:
        """Resume paused batches, or all for None; returns how many tasks were paused."""
        return int(self._call("resume_batches", batches=names))

    def cancel_batches(self, names: Sequence[str] | None, *, only_paused: bool) -> int:
        """Cancel the unfinished tasks of batches, or of all for None; returns their number."""
        return int(self._call("cancel", batches=names, only_paused=only_paused))

    def resubmit(
        self, keys: Sequence[Any], changes: dict[str, Any], named: Sequence[str], *, dry_run: bool
    ) -> Any:
        """Run failed tasks again under their own keys; returns which ones, and which are not."""
        values = {"keys": keys, "changes": changes, "named": named, "dry_run": dry_run}
        return self._call("resubmit", **values)

    def call_of(self, key: Any) -> Any:
        """Return what a task calls, or None if the host does not know it."""
        return self._call("call", key=key)

    def join(self, keys: Sequence[Any]) -> list[Any]:
        """Let the host keep the results of tasks for this client, too; returns unknown keys."""
        return list(self._call("join", client=self._transport.id, keys=keys))

    async def ledger_delta(
        self, ledger_id: str, since: int, wait_s: float, reports_sent: int
    ) -> Delta | None:
        """Return what changed in the ledger, or None if nothing did within ``wait_s`` seconds.

        Parameters
        ----------
        ledger_id : str
            Of the ledger that this client has a copy of.
        since : int
            The last sequence number in it.
        wait_s : float
        reports_sent : int
            Messages about answered calls that the ledger is to contain.
        """
        delta: Delta | None = await self._call_async(
            "ledger",
            ledger_id=ledger_id,
            since=since,
            wait_s=wait_s,
            client=self._transport.id,
            answered=reports_sent,
        )
        return delta

    # --- internals -----------------------------------------------------------------------

    def _count(self, handler: str, keys: Sequence[Any]) -> int:
        count: int = self._transport.sync(self._count_async, handler, keys)
        return count

    async def _count_async(self, handler: str, keys: Sequence[Any]) -> int:
        return len(await self._call_async(handler, keys=keys))

    def _call(self, handler: str, **values: Any) -> Any:
        return self._transport.sync(self._call_async, handler, **values)

    async def _call_async(self, handler: str, **values: Any) -> Any:
        return await getattr(self._transport.scheduler, f"scalable_{handler}")(**values)


class LedgerFeed:
    """Fetches changes of the ledger for the mirror (`telemetry.ledger_mirror.LedgerSource`).

    Parameters
    ----------
    transport : ClientTransport
    host_api : HostApi
    cached_futures : CachedFutures
    """

    def __init__(
        self, transport: ClientTransport, host_api: HostApi, cached_futures: CachedFutures
    ) -> None:
        self._transport = transport
        self._host_api = host_api
        self._cached_futures = cached_futures

    async def fetch(self, ledger_id: str, since: int, wait_s: float) -> Delta | None:
        """Return what changed, or None if nothing did within ``wait_s`` seconds."""
        sent = self._cached_futures.reports_sent
        return await self._host_api.ledger_delta(ledger_id, since, wait_s, sent)

    def run(self, coroutine: Callable[[], Awaitable[Any]]) -> None:
        """Start a coroutine in the client's IO thread."""
        loop = self._transport.loop
        assert loop is not None  # a connected client has one
        loop.add_callback(coroutine)

    def run_sync(self, coroutine: Callable[[], Awaitable[Any]]) -> Any:
        """Run a coroutine in the client's IO thread and wait for its result."""
        return self._transport.sync(coroutine)
