"""A Dask client with public hooks, and the state of its futures.

Dask's client has no hooks. It calls private methods of its own, which `ClientHooks` overrides to
call public ones. The links lead to distributed 2026.8.0.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

from dask._task_spec import Task
from distributed import Client, Future
from distributed.client import FutureState, SpanMetadata, _wait, futures_of

from scalable_nb.dask_adapter.graphs import expression_of


class ClientHooks(Client):
    """A `distributed.Client` whose subclass decides about some of its futures.

    A subclass overrides `message_handlers`, `on_graph`, `on_share`, `on_gather`, `on_release`,
    `on_cancelled` and `on_disconnect`. As they are, the client does what Dask's does.
    """

    # --- hooks -------------------------------------------------------------------------

    def message_handlers(self) -> Mapping[str, Callable[..., Any]]:
        """Return functions for messages of the scheduler, by the names of these."""
        return {}

    def on_graph(self, expression: Any) -> None:
        """Prepare for a graph that is about to be sent, other than one of `submit_graph`."""

    def on_share(self, keys: Collection[Any]) -> None:
        """Prepare for futures that other clients will get: in variables, queues, datasets."""

    async def on_gather(
        self, futures: Any, errors: str = "raise", direct: Any = None, local_worker: Any = None
    ) -> Any:
        """Return the results of futures, in the shape they are given in; see `gather_remote`."""
        return await self.gather_remote(futures, errors, direct, local_worker)

    def on_release(self, key: Any) -> bool:
        """Return whether a task without futures left is unknown to the scheduler."""
        return False

    def on_cancelled(self, keys: Collection[Any], reason: Any, message: Any) -> None:
        """Cancel the futures of tasks that another client or the scheduler cancelled."""
        super()._handle_cancelled_keys(keys, reason, message)

    async def on_disconnect(self) -> bool:
        """Return whether the client has given up a connection that broke; else it reconnects."""
        return False

    # --- what a subclass calls ---------------------------------------------------------
    # `Client.cancel` and `Future.retry` ask the scheduler, which need not know the tasks. Their
    # futures share a state in `Client.futures`:
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L661

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message for a stream handler of the scheduler."""
        # Messages and graphs arrive in the order in which they are sent; calls of a handler,
        # which are public, overtake them.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L1439
        self._send_to_scheduler(dict(message))

    def submit_graph(
        self,
        tasks: Mapping[Any, Task],
        *,
        workers: Any = None,
        allow_other_workers: bool = False,
        priority: int = 0,
        resources: dict[str, float] | None = None,
        fifo_timeout: str | float = 0,
    ) -> dict[Any, Future[Any]]:
        """Send tasks and return their futures; the first ones have precedence.

        `Client.map` sends many tasks at once, but not tasks with different inputs each.
        """
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L3373
        futures: dict[Any, Future[Any]] = super()._graph_to_futures(
            expression_of(tasks),
            list(tasks),
            workers=workers,
            allow_other_workers=allow_other_workers,
            internal_priority=dict(zip(tasks, itertools.count(), strict=False)),
            user_priority=priority,
            resources=resources,
            fifo_timeout=fifo_timeout,
            span_metadata=SpanMetadata(collections=[{"type": "Future"}]),
        )
        return futures

    async def gather_remote(
        self, futures: Any, errors: str = "raise", direct: Any = None, local_worker: Any = None
    ) -> Any:
        """Return the results of futures as Dask does: from the memory of the workers."""
        return await super()._gather(futures, errors, direct, local_worker)

    def open_futures(self, keys: Iterable[Any]) -> tuple[list[Future[Any]], list[Any]]:
        """Return a future for each key, and the keys of which none was held before."""
        with self._refcount_lock:  # as for `held_futures`
            new = [key for key in dict.fromkeys(keys) if key not in self.futures]
            return [Future(key, self) for key in keys], new

    def held_futures(self, keys: Iterable[Any]) -> dict[Any, Future[Any]]:
        """Return a future of each task of which one is held already."""
        # Without the lock another thread could drop the last future in between.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L1122
        with self._refcount_lock:
            return {key: Future(key, self) for key in keys if key in self.futures}

    def finish_futures(self, keys: Iterable[Any]) -> dict[Any, Future[Any]]:
        """Finish tasks that the scheduler does not know, and return a future of each."""
        finished: dict[Any, Future[Any]] = {}
        with self._refcount_lock:  # as for `held_futures`
            for key in keys:
                if key in self.futures:
                    self.futures[key].finish()
                else:
                    self.futures[key] = FinishedFutureState(key)
                finished[key] = Future(key, self)
        return finished

    def reopen_futures(self, keys: Iterable[Any]) -> None:
        """Make futures pending again whose tasks run again."""
        for key in keys:
            self.futures[key].retry()

    def fail_future(self, key: Any, error: Exception) -> None:
        """Fail a future of a task that the scheduler does not know."""
        self.futures[key].set_error(error, None)

    def cancel_future(self, key: Any, reason: str | None, message: str | None) -> None:
        """Cancel a future of a task that the scheduler does not know, and forget the task.

        As in `Client.cancel`: the same call, submitted again, is to run.
        """
        state = self.futures.pop(key, None)
        if state is not None:
            state.cancel(reason, message)

    def forget_failed(self, key: Any) -> bool:
        """Forget a task if its future has failed; the future keeps its error."""
        return self.futures[key].status == "error" and bool(self.futures.pop(key, None))

    def fail_pending_futures(self, error: Exception) -> None:
        """Fail all futures that are pending, and forget all."""
        states = list(self.futures.values())
        self.futures.clear()  # else closing would cancel them, without a reason
        for state in states:
            if state.status == "pending":
                state.set_error(error, None)

    async def close_fast(self) -> None:
        """Close without waiting for the scheduler, in the client's event loop."""
        # `close` waits for the scheduler unless it runs in another event loop.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L1862
        await self._close(fast=True)

    # --- what Dask calls ---------------------------------------------------------------

    async def _start(self, *args: Any, **kwargs: Any) -> Any:
        # Called to connect. No public method adds a handler of the scheduler's messages.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L1214
        self._stream_handlers.update(self.message_handlers())
        started = await super()._start(*args, **kwargs)
        # Variables and queues send keys of futures through `scheduler`.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/variable.py#L197
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/queues.py#L223
        scheduler: Any = self.scheduler
        for handler in ("variable_set", "queue_put"):
            setattr(scheduler, handler, partial(self._put, getattr(scheduler, handler)))
        return started

    async def _put(self, send: Callable[..., Any], key: Any = None, **values: Any) -> Any:
        """Send a value, or the key of a future, for a variable or queue."""
        if key is None:
            return await send(**values)
        self.on_share([key])
        return await send(key=key, **values)

    async def _publish_dataset(self, *args: Any, **kwargs: Any) -> Any:
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L2849
        self.on_share({future.key for future in futures_of([args, kwargs])})
        return await super()._publish_dataset(*args, **kwargs)

    def _graph_to_futures(self, expr: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
        # Called for every graph, of collections too: `submit` and `map` are not all.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L3373
        self.on_graph(expr)
        return super()._graph_to_futures(expr, keys, *args, **kwargs)

    async def _gather(
        self, futures: Any, errors: str = "raise", direct: Any = None, local_worker: Any = None
    ) -> Any:
        # Called for every result: `Future.result` does not call `gather`.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L2342
        return await self.on_gather(futures, errors, direct, local_worker)

    def _release_key(self, key: Any) -> None:
        # Called when the last future of a task is gone.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L1723
        if not self.on_release(key):
            super()._release_key(key)
        elif key in self.futures:
            self.futures.pop(key).cancel()  # the scheduler has no such task to release

    def _handle_cancelled_keys(self, keys: list[Any], reason: Any = None, msg: Any = None) -> None:
        # Called when another client or the scheduler cancelled tasks.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L1810
        self.on_cancelled(keys, reason, msg)

    async def _reconnect(self) -> None:
        # Called when the connection to the scheduler broke.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L1513
        if not await self.on_disconnect():
            await super()._reconnect()


class FinishedFutureState(FutureState):
    """State of a future that is finished from the start.

    Dask makes an event for it at once, which takes more memory than all else of a cached result,
    and is hardly ever waited for.
    """

    # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L661
    __slots__ = ()

    def __init__(self, key: Any) -> None:
        super().__init__(key)
        self.status = "finished"

    def _get_event(self) -> asyncio.Event:
        event: asyncio.Event | None = self._event
        if event is None:
            event = asyncio.Event()
            if self.status == "finished":
                event.set()
            self._event = event  # type: ignore[assignment]  # Dask declares it as None
        return event

    def done(self) -> bool:
        """Return whether there is a result or an error."""
        return self._get_event().is_set()


def requested_future(function: Any) -> Future[Any] | None:
    """Return the future whose result a coroutine function waits for, or None.

    `Future.result` has its client call such a function, which gathers only after the task has
    ended.
    """
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L431
    is_result = getattr(function, "__func__", None) is Future._result
    return function.__self__ if is_result else None


def waited_futures(function: Any, args: Sequence[Any]) -> list[Future[Any]]:
    """Return the futures that a call of `Client.sync` waits for, if `distributed.wait` made it."""
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L5560
    return list(futures_of(args[0])) if function is _wait else []


def is_pending(future: Future[Any]) -> bool:
    """Return whether a future's task has not ended."""
    return future.status == "pending"


async def wait_until_done(future: Future[Any]) -> None:
    """Wait until a future is finished, failed or cancelled."""
    # `distributed.wait` raises for a future that is cancelled.
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L661
    await future._state.wait()  # type: ignore[union-attr]


async def error_of(future: Future[Any]) -> BaseException:
    """Return the exception that a failed or cancelled future raises."""
    # `Future.exception` cannot be awaited unless the client is asynchronous.
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/client.py#L454
    error = await future._exception()
    if not isinstance(error, BaseException):  # it was cancelled, with a reason, or released
        error = getattr(future._state, "exception", None)
    return error if isinstance(error, BaseException) else CancelledError(str(future.key))
