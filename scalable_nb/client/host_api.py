"""A Dask client that belongs to a session, and asks its host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from distributed import Client, Future

from scalable_nb.errors import HostDiedError
from scalable_nb.telemetry.ledger import Delta, key_text

if TYPE_CHECKING:
    from scalable_nb.client.cached_futures import CachedFutures
    from scalable_nb.session.session import ScalableSession
    from scalable_nb.telemetry.journal_replay import AttemptRow

_DYING_S: Final = 0.5
_LOOK_EVERY_S: Final = 0.02


class HostClient(Client):
    """What a client of a session knows of its host.

    Attributes
    ----------
    session : ScalableSession
        The session it belongs to.
    cached_futures : CachedFutures
        The calls that stored results answer.
    """

    session: ScalableSession
    cached_futures: CachedFutures

    def attempts(self, future: Future[Any]) -> list[AttemptRow]:
        """All attempts of a task so far, oldest first, the one that is running included.

        Returns
        -------
        list of AttemptRow
            Each with ``attempt, outcome`` ("failed", "succeeded" or "running"),
            ``started_at, ended_at`` (UTC, ISO 8601), ``queued_s, duration_s, worker, host,
            pid, memory_bytes``; a failed one also with ``failure_class, message, category,
            fingerprint, traceback, retry_in_s`` and the rest of its row in
            ``failures.jsonl``.
        """
        return self.session.attempts(key_text(future.key))

    def held_keys(self) -> dict[str, Any]:
        """Keys of the futures held here, by their texts as in the journal."""
        # A list first: other threads make futures and let go of them.
        return {key_text(key): key for key in list(self.futures)}

    # --- tasks that wait for a retry ---------------------------------------------------

    def retry_now(self, futures: Iterable[Future[Any]]) -> int:
        """End the pause of tasks that wait for their next attempt; returns how many did."""
        count: int = self.sync(self._count_of, "retry_now", futures)
        return count

    def give_up(self, futures: Iterable[Future[Any]]) -> int:
        """Let tasks that wait for their next attempt fail now, with their last error.

        Returns
        -------
        int
            How many were waiting; others are left alone.
        """
        count: int = self.sync(self._count_of, "give_up", futures)
        return count

    def resume(self, futures: Iterable[Future[Any]]) -> int:
        """Let the paused tasks of a batch go on although all before them failed alike.

        Returns
        -------
        int
            How many were paused.
        """
        count: int = self.sync(self._count_of, "resume", futures)
        return count

    async def _count_of(self, handler: str, futures: Iterable[Future[Any]]) -> int:
        return len(await self.ask_async(handler, keys=[future.key for future in futures]))

    # --- the host --------------------------------------------------------------------

    def ask(self, handler: str, **values: Any) -> Any:
        """Call a handler of the host and wait for its answer."""
        return self.sync(self.ask_async, handler, **values)

    async def ask_async(self, handler: str, **values: Any) -> Any:
        """Call a handler of the host, in the client's event loop."""
        return await getattr(self.scheduler, f"scalable_{handler}")(**values)

    def _handle_cancelled_keys(self, keys: list[Any], reason: Any = None, msg: Any = None) -> None:
        """Called by Dask when tasks were cancelled by another client or by the host."""
        super()._handle_cancelled_keys(keys, reason, msg)
        # As `cancel` itself does: the same call, submitted again, is to run.
        for key in keys:
            self.futures.pop(key, None)

    async def _reconnect(self) -> None:
        """Called by Dask when the connection to the scheduler broke."""
        if await self._has_live_host():
            await super()._reconnect()
            return
        error = HostDiedError(self.session.death_message())
        states = list(self.futures.values())
        self.futures.clear()  # else closing would cancel them, without a reason
        for state in states:
            if state.status == "pending":
                state.set_error(error, None)
        self.session.mirror.end("lost")
        await self._close(fast=True)

    async def _has_live_host(self) -> bool:
        """Whether the host outlives the connection to it."""
        # A process that is killed loses its connections a moment before it is gone.
        deadline = time.monotonic() + _DYING_S
        while self.session.is_host_alive():
            if time.monotonic() > deadline:
                return True
            await asyncio.sleep(_LOOK_EVERY_S)
        return False


class LedgerFeed:
    """How the mirror asks the host for changes (`telemetry.mirror.LedgerSource`)."""

    def __init__(self, client: HostClient) -> None:
        self._client = client

    async def fetch(self, ledger_id: str, since: int, wait_s: float) -> Delta | None:
        """What changed, or None when nothing did within ``wait_s`` seconds."""
        answer: Delta | None = await self._client.ask_async(
            "ledger",
            ledger_id=ledger_id,
            since=since,
            wait_s=wait_s,
            client=self._client.id,
            answered=self._client.cached_futures.reports_sent,
        )
        return answer

    def run(self, coroutine: Callable[[], Awaitable[Any]]) -> None:
        """Start a coroutine in the client's IO thread."""
        loop = self._client.loop
        assert loop is not None  # a connected client has one
        loop.add_callback(coroutine)

    def run_sync(self, coroutine: Callable[[], Awaitable[Any]]) -> Any:
        """Run a coroutine in the client's IO thread and wait for its result."""
        return self._client.sync(coroutine)
