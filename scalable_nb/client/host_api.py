"""The operations that a client calls on its host, one method each, and the tasks it observes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future as Reply
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from scalable_nb.client.cached_futures import CachedFutures
from scalable_nb.client.context import ClientTransport
from scalable_nb.errors import HostDiedError, ProtocolError
from scalable_nb.faults.circuit_breaker import Pause
from scalable_nb.protocol.messages import (
    AdaptRequest,
    CallReply,
    CallRequest,
    CancelRequest,
    EmptyMessage,
    JoinReply,
    JoinRequest,
    LedgerRequest,
    PausesReply,
    ResubmitReply,
    ResubmitRequest,
    ResumeRequest,
    ScaleRequest,
    StatusReply,
    TaskCount,
    TaskKeys,
    WorkerCounts,
)
from scalable_nb.protocol.operations import Operation
from scalable_nb.protocol.wire import Message, call_remote, stream_message
from scalable_nb.telemetry.ledger import Delta

M = TypeVar("M", bound=Message)
T = TypeVar("T")

#: Settles futures of tasks that the host has released: some results are stored.
Settle = Callable[[Collection[Any]], None]


class HostApi:
    """Calls the host and waits for the reply.

    With an asynchronous client the methods return awaitables.

    Parameters
    ----------
    transport : ClientTransport
    """

    def __init__(self, transport: ClientTransport) -> None:
        self._transport = transport
        self._request_ids = itertools.count()
        self._joining: dict[int, Reply[list[Any]]] = {}

    # --- the session -------------------------------------------------------------------

    def status(self) -> StatusReply:
        """Return workers, tasks, jobs and notices as the host sees them now."""
        return self._get(Operation.STATUS, EmptyMessage(), StatusReply)

    def flush(self) -> None:
        """Let the host write its journal to disk."""
        self._call(Operation.FLUSH)

    def stop(self) -> None:
        """Stop the host and its workers."""
        self._call(Operation.STOP)

    def scale(self, count: int, component: str | None) -> dict[str, int]:
        """Set the number of workers; returns the wanted ones by component."""
        request = ScaleRequest(count, component)
        return self._get_part(Operation.SCALE, request, WorkerCounts, lambda reply: reply.counts)

    def adapt(self, minimum: int, maximum: int, component: str | None) -> dict[str, int]:
        """Set limits of the number of workers; returns the wanted ones by component."""
        request = AdaptRequest(minimum, maximum, component)
        return self._get_part(Operation.ADAPT, request, WorkerCounts, lambda reply: reply.counts)

    # --- tasks -------------------------------------------------------------------------

    def retry_now(self, keys: Sequence[Any]) -> int:
        """Start the next attempt of waiting tasks now; returns how many were waiting."""
        return self._count(Operation.RETRY_NOW, keys)

    def give_up(self, keys: Sequence[Any]) -> int:
        """Let waiting tasks fail with their last error; returns how many were waiting."""
        return self._count(Operation.GIVE_UP, keys)

    def resume_tasks(self, keys: Sequence[Any]) -> int:
        """Resume paused tasks; returns how many were paused."""
        return self._count(Operation.RESUME_TASKS, keys)

    def cancel_tasks(self, keys: Sequence[Any]) -> int:
        """Cancel unfinished tasks; returns how many there were."""
        return self._count(Operation.CANCEL_TASKS, keys)

    def resume_batches(self, names: Sequence[str] | None) -> int:
        """Resume paused batches, or all for None; returns how many tasks were paused."""
        request = ResumeRequest(_names(names))
        return self._get_part(
            Operation.RESUME_BATCHES, request, TaskCount, lambda reply: reply.count
        )

    def cancel_batches(self, names: Sequence[str] | None, *, only_paused: bool) -> int:
        """Cancel the unfinished tasks of batches, or of all for None; returns their number."""
        request = CancelRequest(_names(names), only_paused)
        return self._get_part(
            Operation.CANCEL_BATCHES, request, TaskCount, lambda reply: reply.count
        )

    def resubmit(
        self, keys: Sequence[Any], changes: dict[str, Any], named: Sequence[str], *, dry_run: bool
    ) -> ResubmitReply:
        """Run failed tasks again under their own keys; returns which ones, and which are not."""
        request = ResubmitRequest(tuple(keys), changes, tuple(named), dry_run)
        return self._get(Operation.RESUBMIT, request, ResubmitReply)

    def call_of(self, key: Any) -> CallReply | None:
        """Return what a task calls, or None if the host does not know it."""
        return self._get(Operation.GET_CALL, CallRequest(key), CallReply)

    def drop_left_claims(self, keys: Collection[Any]) -> int:
        """Release the claims that vanished kernels left on tasks; returns how many there were."""
        return self._count(Operation.DROP_LEFT_CLAIMS, keys)

    async def observe(self, keys: Collection[Any]) -> list[Any]:
        """Let the host report the states of tasks; returns the keys of those it cannot."""
        return await asyncio.wrap_future(self._join(keys, is_claim=False))

    async def claim(self, keys: Collection[Any]) -> list[Any]:
        """Let the host keep tasks for this client; returns the keys of those it cannot."""
        return await asyncio.wrap_future(self.send_claim(keys))

    def send_claim(self, keys: Collection[Any]) -> Reply[list[Any]]:
        """Claim tasks before the next graph is sent; see `claim`."""
        return self._join(keys, is_claim=True)

    def _join(self, keys: Collection[Any], *, is_claim: bool) -> Reply[list[Any]]:
        # In order with what the client releases: a call of a handler would overtake that.
        request = JoinRequest(next(self._request_ids), tuple(keys), is_claim)
        reply = self._joining[request.request_id] = Reply()
        self._transport.send(stream_message(Operation.JOIN, request))
        return reply

    def on_joined(self, message: JoinReply) -> None:
        """Take the host's reply to a request to observe or claim tasks."""
        reply = self._joining.pop(message.request_id, None)
        if reply is not None and reply.set_running_or_notify_cancel():
            reply.set_result(list(message.unknown))

    def on_disconnect(self, error: Exception) -> None:
        """Fail the requests that the host will not reply to."""
        joining, self._joining = self._joining, {}
        for reply in joining.values():
            if reply.set_running_or_notify_cancel():
                reply.set_exception(error)

    async def blocking_pauses(self, keys: Collection[Any]) -> Sequence[Pause]:
        """Return why none of these tasks can go on without the user; empty if any can."""
        message = TaskKeys(tuple(keys))
        reply = await self._get_async(Operation.BLOCKING_PAUSES, message, PausesReply)
        return reply.pauses if reply is not None else ()

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
        request = LedgerRequest(ledger_id, since, wait_s, self._transport.id, reports_sent)
        delta: Delta | None = await self._call_async(Operation.GET_LEDGER, request)
        if delta is not None and not Delta.__required_keys__ <= delta.keys():
            missing = sorted(Delta.__required_keys__ - delta.keys())
            raise ProtocolError(f"the host's Delta has no {missing}")
        return delta

    # --- internals -----------------------------------------------------------------------

    def _count(self, operation: Operation, keys: Collection[Any]) -> int:
        tasks = TaskKeys(tuple(keys))
        return self._get_part(operation, tasks, TaskKeys, lambda reply: len(reply.keys))

    def _call(self, operation: Operation) -> None:
        self._transport.sync(self._call_async, operation, EmptyMessage())

    def _get(self, operation: Operation, message: Message, reply: type[M]) -> M:
        received: M = self._transport.sync(self._get_async, operation, message, reply)
        return received

    def _get_part(
        self, operation: Operation, message: Message, reply: type[M], part: Callable[[M], T]
    ) -> T:
        async def get() -> T:  # also the part: an asynchronous client has no reply yet
            return part(reply.from_wire(await self._call_async(operation, message)))

        received: T = self._transport.sync(get)
        return received

    async def _get_async(self, operation: Operation, message: Message, reply: type[M]) -> M | None:
        values = await self._call_async(operation, message)
        return reply.from_wire(values) if values is not None else None

    async def _call_async(self, operation: Operation, message: Message) -> Any:
        return await call_remote(self._transport.scheduler, operation, message)


def _names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


class ObservedKeys:
    """The keys of the tasks that one client only observes.

    A client observes tasks that it did not submit: the host reports their states to it, but keeps
    nothing for it. When a value is requested, or a task is submitted or is an input of another
    one, the observation becomes a claim.

    Parameters
    ----------
    transport : ClientTransport
    host_api : HostApi
    """

    def __init__(self, transport: ClientTransport, host_api: HostApi) -> None:
        self._transport = transport
        self._host_api = host_api
        self._settle: dict[Any, Settle] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._settle

    def __len__(self) -> int:
        return len(self._settle)

    def observe(self, keys: Collection[Any], settle: Settle) -> list[Any]:
        """Observe tasks of which futures were just made; return the keys of those it cannot.

        The states of the others have been reported on return. With an asynchronous client, it
        returns an awaitable.

        Parameters
        ----------
        keys : collection
        settle : callable
            Called in the client's event loop with the keys of tasks that are released later.
        """
        unknown: list[Any] = self._transport.sync(self._observe, keys, settle)
        return unknown

    async def _observe(self, keys: Collection[Any], settle: Settle) -> list[Any]:
        self._settle.update(dict.fromkeys(keys, settle))
        unknown = await self._host_api.observe(keys)
        self.take(unknown)
        return unknown

    async def claim(self, keys: Iterable[Any]) -> None:
        """Claim those of the tasks that are observed, and settle the released ones."""
        observed = self.take(keys)
        if observed:
            with suppress(HostDiedError):  # the futures have the error, too
                self._release(observed, await self._host_api.claim(list(observed)))

    def claim_soon(self, keys: Iterable[Any]) -> None:
        """Claim those of the tasks that are observed before the next graph is sent."""
        observed = self.take(keys)
        if observed:
            reply = self._host_api.send_claim(list(observed))
            reply.add_done_callback(partial(self._on_claimed, observed))

    def take(self, keys: Iterable[Any]) -> dict[Any, Settle]:
        """Forget those of the keys that are observed: they are claimed; return them."""
        found: dict[Any, Settle] = {}
        for key in keys if self._settle else ():
            settle = self._settle.pop(key, None)
            if settle is not None:
                found[key] = settle
        return found

    def discard(self, key: Any) -> None:
        """Forget a key of which no future is left."""
        self._settle.pop(key, None)

    def clear(self) -> None:
        """Forget all keys: the connection broke, and with it all futures."""
        self._settle.clear()

    def on_released(self, keys: Iterable[Any]) -> None:
        """Settle the observed ones among tasks that the host has released."""
        # The others are claimed meanwhile.
        released = self.take(keys)
        self._release(released, released)

    def _on_claimed(self, observed: Mapping[Any, Settle], reply: Reply[list[Any]]) -> None:
        if reply.exception() is None:
            self._release(observed, reply.result())

    def _release(self, observed: Mapping[Any, Settle], released: Collection[Any]) -> None:
        lost: dict[Settle, list[Any]] = {}
        for key in released:
            # A failed future has all that there was, so it keeps its error.
            if key in self._transport.futures and not self._transport.forget_failed(key):
                lost.setdefault(observed[key], []).append(key)
        for settle, keys in lost.items():
            settle(keys)


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
