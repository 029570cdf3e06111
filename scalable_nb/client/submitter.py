"""A client that sends calls: recorded first, answered by stored results, the rest to the host."""

from __future__ import annotations

import inspect
import itertools
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import dask
from dask._expr import LLGExpr
from dask._task_spec import Task, parse_input
from distributed import Future
from distributed.client import SpanMetadata, futures_of

from scalable_nb.client.call_options import CallOptions
from scalable_nb.client.gatherer import GatheringClient
from scalable_nb.client.packing import pack_function
from scalable_nb.client.project_modules import warn_if_stale
from scalable_nb.client.submission import (
    PackedCall,
    Prepared,
    SchedulingOptions,
    Submission,
    pack_calls,
)
from scalable_nb.protocol.messages import ANNOTATION
from scalable_nb.worker.attempt import run_async_attempt, run_attempt

#: In a burst of submissions the host is looked at once for all that come so soon.
_BURST_S: Final = 0.1


class SendingClient(GatheringClient):
    """How calls of a session get to its host."""

    def send_calls(
        self,
        func: Callable[..., Any],
        options: CallOptions,
        calls: Mapping[Any, Prepared],
        scheduling: SchedulingOptions,
        name: str = "",
    ) -> list[Future[Any]]:
        """Futures of calls, in their order; only what is new is sent."""
        self.session.check_alive(seen_within_s=_BURST_S)
        with self._refcount_lock:
            held: dict[Any, Future[Any]] = {
                key: Future(key, self) for key in calls if key in self.futures
            }
        self._reopen([key for key, future in held.items() if future.status == "error"], options)
        new = {key: call for key, call in calls.items() if key not in held}
        if not new:
            return list(held.values())
        warn_if_stale(func)
        submission = Submission(
            batch=options.batch(name, func),
            wire=options.wire,
            scheduling=scheduling,
            is_async=inspect.iscoroutinefunction(options.function),
            record_args=options.record_args,
            identity=options.identity(),
        )
        function = pack_function(options.function)
        packed = pack_calls(func, function, options, new, submission.batch.batch_id)
        futures = held | self.submit_packed(submission, packed)
        return [futures[key] for key in calls]

    def submit_packed(
        self, submission: Submission, packed: Mapping[Any, PackedCall]
    ) -> dict[Any, Future[Any]]:
        """Record calls, answer those whose results are stored, and send the others."""
        self.session.call_log.log_calls(submission, packed)
        rest = self.cached_futures.give(submission, packed)
        futures: dict[Any, Future[Any]] = {
            key: Future(key, self) for key in packed if key not in rest
        }
        return futures | (self.send_packed(submission, rest) if rest else {})

    def send_packed(
        self,
        submission: Submission,
        packed: Mapping[Any, PackedCall],
        *,
        is_known: bool = False,
    ) -> dict[Any, Future[Any]]:
        """Send calls to the host; ``is_known``: stored results had answered them before."""
        inputs = {future.key for each in packed.values() for future in each.inputs}
        self.cached_futures.hand_over(inputs)
        previews = {key: each.preview for key, each in packed.items()}
        batch = submission.batch.with_previews(previews, is_known=is_known)
        self._send_to_scheduler({"op": "scalable-batch", **batch.to_wire()})
        runner = run_async_attempt if submission.is_async else run_attempt
        graph = {
            key: Task(key, runner, key, each.call, *map(parse_input, each.inputs))
            for key, each in packed.items()
        }
        scheduling = submission.scheduling
        annotations: dict[str, Any] = {ANNOTATION: {**submission.wire, "batch": batch.batch_id}}
        if "retries" in dask.get_annotations():
            annotations["retries"] = 0  # they are in the options: Dask is not to retry as well
        with dask.annotate(**annotations):
            futures: dict[Any, Future[Any]] = super()._graph_to_futures(
                LLGExpr(graph, _determ_token=uuid.uuid4().hex),
                list(graph),
                workers=scheduling.workers,
                allow_other_workers=scheduling.allow_other_workers,
                internal_priority=dict(zip(graph, itertools.count(), strict=False)),
                user_priority=scheduling.priority,
                resources=dict(scheduling.resources) or None,
                fifo_timeout=scheduling.fifo_timeout,
                span_metadata=SpanMetadata(collections=[{"type": "Future"}]),
            )
        return futures

    def _graph_to_futures(self, expr: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
        """Called by Dask for every graph that is no call of ours."""
        if self.cached_futures:
            self.cached_futures.hand_over(_inputs_of(expr))
        return super()._graph_to_futures(expr, keys, *args, **kwargs)

    async def _start(self, *args: Any, **kwargs: Any) -> Any:
        """Called by Dask to connect."""
        started = await super()._start(*args, **kwargs)
        host: Any = self.scheduler
        for handler in ("variable_set", "queue_put"):
            setattr(host, handler, partial(self._put, getattr(host, handler)))
        return started

    async def _put(self, send: Callable[..., Any], key: Any = None, **values: Any) -> Any:
        """Called by Dask to put a value, or the future of a ``key``, into a variable or queue."""
        if key is None:
            return await send(**values)
        self.cached_futures.hand_over([key])  # others look for it at the host
        return await send(key=key, **values)

    async def _publish_dataset(self, *args: Any, **kwargs: Any) -> Any:
        """Called by Dask to publish collections, whose futures others will look for."""
        self.cached_futures.hand_over({future.key for future in futures_of([args, kwargs])})
        return await super()._publish_dataset(*args, **kwargs)

    def _reopen(self, keys: list[Any], options: CallOptions) -> None:
        """Run calls again whose failed futures are still held: same keys, fresh budgets."""
        if not keys:
            return
        for key in keys:
            self.futures[key].retry()
        self._send_to_scheduler({"op": "scalable-reopen", "keys": keys, "terms": options.wire})


def _inputs_of(expr: Any) -> set[Any]:
    """The keys of the tasks that a graph takes results of, and of its own."""
    graph = expr.__dask_graph__()
    return {key for task in graph.values() for key in getattr(task, "dependencies", ())} | {
        future.key for future in futures_of(list(graph.values()))
    }
