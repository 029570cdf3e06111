"""A Dask client whose calls are attempts: counted, retried with patience, recorded."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from numbers import Number
from typing import TYPE_CHECKING, Any, Final

import dask
from dask._expr import LLGExpr
from dask._task_spec import Task, parse_input
from dask.tokenize import tokenize
from dask.utils import funcname
from distributed import Client, Future
from distributed.client import SpanMetadata, futures_of
from distributed.utils_comm import pack_data, unpack_remotedata

from scalable_nb.answers import Answers
from scalable_nb.calls import pack_function
from scalable_nb.errors import HostDiedError, SubmitError
from scalable_nb.faults.policy import RetryPolicy, TaskPolicy
from scalable_nb.futures import Failed, FutureList, PartialResult, partial
from scalable_nb.host.attempt import run_async_attempt, run_attempt
from scalable_nb.host.batches import ANNOTATION
from scalable_nb.orders import Order
from scalable_nb.project import warn_if_stale
from scalable_nb.submission import (
    PackedCall,
    Placing,
    Prepared,
    Submission,
    list_calls,
    many_objects,
    name_calls,
    number_calls,
    pack_calls,
)
from scalable_nb.telemetry.ledger import Delta, key_text

if TYPE_CHECKING:
    from scalable_nb.session import ScalableSession
    from scalable_nb.telemetry.attempts import AttemptRow


class _Unset:
    """Tells an option that was not given from one that was given as None or 1."""

    def __repr__(self) -> str:
        return "<not given>"


_UNSET: Any = _Unset()


class ScalableClient(Client):
    """A `distributed.Client` connected to a session's host.

    Everything a Dask client does it does too, with the same signatures. `submit` and `map`
    take a few more keywords and give every task attempts, a place in the ledger and a row
    in ``failures.jsonl`` for each attempt that failed.

    Parameters
    ----------
    session : ScalableSession
        The session it belongs to.
    **kwargs
        As for `distributed.Client`.
    """

    def __init__(self, *args: Any, session: ScalableSession, **kwargs: Any) -> None:
        self.session = session
        self.answers = Answers(self)
        super().__init__(*args, **kwargs)

    # --- submitting --------------------------------------------------------------

    def submit(
        self,
        func: Callable[..., Any],
        *args: Any,
        tag: str | None = _UNSET,
        task: str | None = _UNSET,
        n: int = _UNSET,
        retries: int | RetryPolicy | None = _UNSET,
        policy: TaskPolicy | None = _UNSET,
        refresh: bool = _UNSET,
        key: Any = None,
        workers: Any = None,
        resources: Mapping[str, float] | None = None,
        priority: int = 0,
        fifo_timeout: str = "100 ms",
        allow_other_workers: bool = False,
        actor: bool = False,
        actors: bool = False,
        pure: bool = True,
        **kwargs: Any,
    ) -> Future[Any]:
        """Run a function on a worker.

        Parameters
        ----------
        func : callable
        *args, **kwargs
            Arguments of the function; futures among them are replaced by their results.
        tag : str, optional
            A component, or one of its tags, on whose workers the task runs.
        task : str, optional
            A task of the manifest: gives component, retries, timeout and caching.
        n : int
            Slots (worker threads) the task takes.
        retries : int or RetryPolicy, optional
            Further attempts after a failed one; overrides policy and manifest.
        policy : TaskPolicy, optional
        refresh : bool
            Call the function although a result is kept, and keep the new one in its place.
        key, workers, resources, priority, fifo_timeout, allow_other_workers, actor, actors, pure
            As in `distributed.Client.submit`.

        Returns
        -------
        Future

        Raises
        ------
        SubmitError
            When the call cannot be sent.
        UnknownNameError
            When the manifest has no such task or component.
        """
        _check_callable(func)
        workers = _check_places(workers, allow_other_workers)
        options = _given(
            func, tag=tag, task=task, n=n, retries=retries, policy=policy, refresh=refresh
        )
        if actor or actors:
            return super().submit(
                func, *args, key=key, workers=workers, resources=resources, priority=priority,
                allow_other_workers=allow_other_workers, actor=True, **kwargs,
            )  # fmt: skip
        order = Order.resolve(self.session, func, **_with_annotated_retries(options))
        placing = Placing(
            workers, allow_other_workers, {**(resources or {}), **order.resources},
            priority, fifo_timeout,
        )  # fmt: skip
        call = (args, kwargs)
        if key is not None:
            named = list_calls([key], [call])
        elif pure and not options.get("refresh"):
            named = name_calls(order, funcname(func), [call], lambda a, k: tokenize(func, k, *a))
        else:
            named = list_calls([f"{funcname(func)}-{uuid.uuid4()}"], [call])
        return self._send_calls(func, order, dict(named), placing)[0]

    def map(
        self,
        func: Callable[..., Any],
        *iterables: Iterable[Any],
        name: str | None = _UNSET,
        tag: str | None = _UNSET,
        task: str | None = _UNSET,
        n: int = _UNSET,
        retries: int | RetryPolicy | None = _UNSET,
        policy: TaskPolicy | None = _UNSET,
        refresh: bool = _UNSET,
        key: Any = None,
        workers: Any = None,
        resources: Mapping[str, float] | None = None,
        priority: int = 0,
        allow_other_workers: bool = False,
        fifo_timeout: str = "100 ms",
        actor: bool = False,
        actors: bool = False,
        pure: bool = True,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> FutureList:
        """Run a function on a worker for each item of the iterables.

        Parameters
        ----------
        func : callable
        *iterables : iterable
            Zipped, as in the built-in ``map``.
        name : str, optional
            Of the batch, under which ``session.batches`` gives it back.
        key : str or list, optional
            Prefix of the keys, or all of them.
        batch_size : int, optional
            Send the calls in batches of this many.
        tag, task, n, retries, policy, refresh, **kwargs
            As in `submit`.

        Returns
        -------
        FutureList
            A list of futures, in order, that draws itself as the live table.
        """
        _check_callable(func)
        workers = _check_places(workers, allow_other_workers)
        options = _given(
            func, tag=tag, task=task, n=n, retries=retries, policy=policy, refresh=refresh,
            name=name,
        )  # fmt: skip
        name = options.pop("name", None)
        if actor or actors:
            return FutureList(
                super().map(func, *map(list, iterables), key=key, workers=workers,
                            resources=dict(resources or {}), priority=priority, actor=True,
                            **kwargs)
            )  # fmt: skip
        order = Order.resolve(
            self.session, func, is_named=name is not None, **_with_annotated_retries(options)
        )
        placing = Placing(
            workers, allow_other_workers, {**(resources or {}), **order.resources},
            priority, fifo_timeout,
        )  # fmt: skip
        rows = list(zip(*iterables, strict=False))
        with many_objects(len(rows)):
            items = [(args, kwargs) for args in rows]
            named = _name_map(func, order, items, kwargs, key, pure and not options.get("refresh"))
            name = self.session.name_batch(name, order.task or funcname(func))
            futures = FutureList(name=name)
            size = batch_size or max(1, len(items))
            self.session.call_record.members(name, [key for key, _ in named])
            for start in range(0, len(items), size):
                part = named[start : start + size]
                sent = self._send_calls(func, order, dict(part), placing, name=name)
                by_key = {future.key: future for future in sent}
                # A call that occurs twice is one task with two futures, as in Dask.
                futures.extend(by_key[key] for key, _ in part)
        return futures

    def _send_calls(
        self,
        func: Callable[..., Any],
        order: Order,
        calls: Mapping[Any, Prepared],
        placing: Placing,
        name: str = "",
    ) -> list[Future[Any]]:
        self.session.check_alive()
        with self._refcount_lock:
            held: dict[Any, Future[Any]] = {
                key: Future(key, self) for key in calls if key in self.futures
            }
        self._reopen([key for key, future in held.items() if future.status == "error"], order)
        new = {key: call for key, call in calls.items() if key not in held}
        if not new:
            return list(held.values())
        warn_if_stale(func)
        submission = Submission(
            batch=order.batch(name, func),
            wire=order.wire,
            placing=placing,
            is_async=inspect.iscoroutinefunction(order.function),
            record_args=order.record_args,
            identity=order.identity(),
        )
        function = pack_function(order.function)
        packed = pack_calls(func, function, order, new, submission.batch.batch_id)
        futures = held | self.submit_packed(submission, packed)
        return [futures[key] for key in calls]

    def submit_packed(
        self, submission: Submission, packed: Mapping[Any, PackedCall]
    ) -> dict[Any, Future[Any]]:
        """Record calls, answer those whose results are kept, and send the others."""
        self.session.call_record.calls(submission, packed)
        rest = self.answers.give(submission, packed)
        futures: dict[Any, Future[Any]] = {
            key: Future(key, self) for key in packed if key not in rest
        }
        for key in futures:
            self.futures[key].finish()
        return futures | (self.send_packed(submission, rest) if rest else {})

    def send_packed(
        self,
        submission: Submission,
        packed: Mapping[Any, PackedCall],
        *,
        is_known: bool = False,
    ) -> dict[Any, Future[Any]]:
        """Send calls to the host; ``is_known``: kept results had answered them before."""
        inputs = {future.key for each in packed.values() for future in each.inputs}
        self.answers.hand_over(inputs)
        previews = {key: each.preview for key, each in packed.items()}
        batch = submission.batch.with_previews(previews, is_known=is_known)
        self._send_to_scheduler({"op": "scalable-batch", **batch.to_wire()})
        runner = run_async_attempt if submission.is_async else run_attempt
        graph = {
            key: Task(key, runner, key, each.call, *map(parse_input, each.inputs))
            for key, each in packed.items()
        }
        placing = submission.placing
        annotations: dict[str, Any] = {ANNOTATION: {**submission.wire, "batch": batch.batch_id}}
        if "retries" in dask.get_annotations():
            annotations["retries"] = 0  # they are in the order: Dask is not to retry as well
        with dask.annotate(**annotations):
            futures: dict[Any, Future[Any]] = super()._graph_to_futures(
                LLGExpr(graph, _determ_token=uuid.uuid4().hex),
                list(graph),
                workers=placing.workers,
                allow_other_workers=placing.allow_other_workers,
                internal_priority=dict(zip(graph, itertools.count(), strict=False)),
                user_priority=placing.priority,
                resources=dict(placing.resources) or None,
                fifo_timeout=placing.fifo_timeout,
                span_metadata=SpanMetadata(collections=[{"type": "Future"}]),
            )
        return futures

    def _graph_to_futures(self, expr: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
        """Called by Dask for every graph that is no call of ours."""
        if self.answers:
            self.answers.hand_over(_inputs_of(expr))
        return super()._graph_to_futures(expr, keys, *args, **kwargs)

    def _reopen(self, keys: list[Any], order: Order) -> None:
        """Run calls again whose failed futures are still held: same keys, fresh budgets."""
        if not keys:
            return
        for key in keys:
            self.futures[key].retry()
        self._send_to_scheduler({"op": "scalable-reopen", "keys": keys, "terms": order.wire})

    # --- gathering ---------------------------------------------------------------

    def gather(
        self, futures: Any, errors: str = "raise", direct: Any = None, asynchronous: Any = None
    ) -> Any:
        """Results of futures, in the shape they are given in.

        Parameters
        ----------
        futures : Future or nested collection of futures
        errors : {"raise", "skip", "return"}
            ``"raise"`` the first failure; ``"skip"`` failed tasks in a list; ``"return"``
            the exception in the place of the result (for a flat collection).
        direct, asynchronous
            As in `distributed.Client.gather`.
        """
        if errors != "return":
            if errors not in ("raise", "skip"):
                raise ValueError(
                    f"errors={errors!r} is not known; expected 'raise', 'skip' or 'return'"
                )
            plain = _plain_lists(futures)
            return super().gather(plain, errors=errors, direct=direct, asynchronous=asynchronous)
        return self.sync(self._results_or_errors, futures, asynchronous=asynchronous)

    async def _gather(
        self, futures: Any, errors: str = "raise", direct: Any = None, local_worker: Any = None
    ) -> Any:
        """Called by Dask for every result; those that are answered here are read here."""
        if not self.answers or local_worker is not None:
            return await super()._gather(futures, errors, direct, local_worker)
        unpacked, found = unpack_remotedata(futures, byte_keys=True)
        with many_objects(len(found)):
            values = await self.answers.read(future.key for future in found)
        if len(values) == len(found) == len(futures) and type(futures) is list:
            return [values[future.key] for future in futures]
        others = {future.key: future for future in found if future.key not in values}
        if others and errors == "skip":
            await asyncio.gather(*(_ended(future) for future in others.values()))
            others = {key: each for key, each in others.items() if each.status == "finished"}
        if others:
            gathered = await super()._gather(list(others.values()), "raise", direct)
            values.update(zip(others, gathered, strict=True))
        missing = {future.key: None for future in found if future.key not in values}
        if missing and isinstance(unpacked, list):
            unpacked = [each for each in unpacked if getattr(each, "key", each) not in missing]
        return pack_data(unpacked, {**missing, **values})

    def _release_key(self, key: Any) -> None:
        """Called by Dask when the last future of a task is gone."""
        self.answers.forget(key)
        super()._release_key(key)

    async def _results_or_errors(self, futures: Any) -> Any:
        listed = [futures] if isinstance(futures, Future) else list(futures)
        values = [
            each.error if isinstance(each, Failed) else each for each in await self.outcomes(listed)
        ]
        return values[0] if isinstance(futures, Future) else values

    async def outcomes(self, futures: list[Future[Any]]) -> list[Any]:
        """Wait for all futures; gives each one's result, or `Failed` in its place."""
        while True:
            await asyncio.gather(*(_ended(future) for future in futures))
            finished = [future for future in futures if future.status == "finished"]
            try:
                # "skip": what is lost at this very moment is no news for the notebook.
                gathered = await self._gather(finished, errors="skip")
                values = dict(zip(finished, gathered, strict=True))
            except Exception:  # noqa: BLE001 - one result is not to be had: ask for each alone
                values = {future: await self._outcome(future) for future in finished}
            if all(future in values or future.status in _ENDED_BADLY for future in futures):
                # Otherwise lost with its worker meanwhile, and computed again.
                return [
                    values[future] if future in values else Failed(await _error_of(future))
                    for future in futures
                ]

    async def _outcome(self, future: Future[Any]) -> Any:
        try:
            (value,) = await self._gather([future])
        except Exception as error:  # noqa: BLE001 - whatever kept it from coming
            return Failed(error)
        return value

    def partial(self, futures: Iterable[Future[Any]]) -> PartialResult:
        """Wait for all futures, then give results and failures; see `scalable_nb.partial`."""
        return partial(futures)

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
        if self.session.is_host_alive():
            await super()._reconnect()
            return
        error = HostDiedError(self.session.obituary())
        states = list(self.futures.values())
        self.futures.clear()  # else closing would cancel them, without a reason
        for state in states:
            if state.status == "pending":
                state.set_error(error, None)
        self.session.mirror.end("lost")
        await self._close(fast=True)


_ENDED_BADLY: Final = ("error", "cancelled")


async def _ended(future: Future[Any]) -> None:
    """Wait for a future; one that was cancelled has ended too."""
    await future._state.wait()  # type: ignore[union-attr]


async def _error_of(future: Future[Any]) -> BaseException:
    """What a failed or cancelled future raises."""
    error = await future._exception()
    return error if isinstance(error, BaseException) else CancelledError(str(future.key))


class LedgerFeed:
    """How the mirror asks the host for changes (`telemetry.mirror.LedgerSource`)."""

    def __init__(self, client: ScalableClient) -> None:
        self._client = client

    async def fetch(self, ledger_id: str, since: int, wait_s: float) -> Delta | None:
        """What changed, or None when nothing did within ``wait_s`` seconds."""
        answer: Delta | None = await self._client.ask_async(
            "ledger",
            ledger_id=ledger_id,
            since=since,
            wait_s=wait_s,
            client=self._client.id,
            answered=self._client.answers.told,
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


def _plain_lists(futures: Any) -> Any:
    """The same collection with plain lists, so that results come in those."""
    if isinstance(futures, list):
        return [_plain_lists(item) if isinstance(item, list | dict) else item for item in futures]
    if type(futures) is dict:
        return {key: _plain_lists(item) for key, item in futures.items()}
    return futures


def _check_callable(func: Any) -> None:
    if not callable(func):
        raise SubmitError(
            f"{func!r} (a {type(func).__name__}) is not callable; expected a function first, "
            "then its arguments, as in client.submit(function, 1, 2)"
        )


def _check_places(workers: Any, allow_other_workers: Any) -> Any:
    """The workers as a list, where they contradict nothing; as Dask does."""
    if allow_other_workers and workers is None:
        raise ValueError(
            f"allow_other_workers={allow_other_workers!r} says nothing without workers=; expected "
            "both, as in workers=['tcp://10.0.0.7:40001'], allow_other_workers=True"
        )
    return [workers] if isinstance(workers, str | Number) else workers


def _with_annotated_retries(options: dict[str, Any]) -> dict[str, Any]:
    """The options, with the retries of `dask.annotate` where the call says nothing of them."""
    retries = dask.get_annotations().get("retries")
    if retries is None or "retries" in options or options.get("policy") is not None:
        return options
    return {**options, "retries": retries}


def _given(func: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """The options that were given; none may have the name of a parameter of the function."""
    given = {name: value for name, value in options.items() if value is not _UNSET}
    try:
        parameters = inspect.signature(func).parameters if given else {}
    except (TypeError, ValueError):
        return given
    for name in given:
        if name in parameters:
            raise SubmitError(
                f"{name}= is an option of submit and map, and {funcname(func)}() has a parameter "
                f"of that name. To pass it to the function, bind it first: "
                f"functools.partial({funcname(func)}, {name}=...)"
            )
    return given


def _name_map(
    func: Callable[..., Any],
    order: Order,
    items: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]],
    kwargs: Mapping[str, Any],
    key: Any,
    pure: bool,
) -> list[tuple[Any, Prepared]]:
    """Calls with the keys that Dask itself would give."""
    if isinstance(key, Iterable) and not isinstance(key, str):
        return list_calls(list(key), items)
    prefix = key or funcname(func)
    if not pure:
        return number_calls(prefix, items)
    token = tokenize(func, dict(kwargs))
    return name_calls(order, prefix, items, lambda args, _: tokenize(token, args))


def _inputs_of(expr: Any) -> set[Any]:
    """The keys of the tasks that a graph takes results of, and of its own."""
    graph = expr.__dask_graph__()
    return {key for task in graph.values() for key in getattr(task, "dependencies", ())} | {
        future.key for future in futures_of(list(graph.values()))
    }
