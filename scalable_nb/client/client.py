"""The client of a session: a Dask client whose calls are counted, retried and logged."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from dask.tokenize import tokenize
from dask.utils import funcname
from distributed import Future, futures_of

from scalable_nb.client.batch_records import BatchRecord
from scalable_nb.client.cached_futures import CachedFutures
from scalable_nb.client.call_log import read_call_log
from scalable_nb.client.call_log_writer import CallLogWriter
from scalable_nb.client.call_options import (
    UNSET,
    CallOptions,
    check_callable,
    check_places,
    given_options,
    with_annotated_retries,
)
from scalable_nb.client.context import ClientContext, HostHealth, SessionHandle
from scalable_nb.client.futures import FutureList, PartialResult, partial
from scalable_nb.client.gatherer import Gatherer, plain_lists
from scalable_nb.client.host_api import HostApi, ObservedKeys
from scalable_nb.client.pause_watch import PauseWatch, check_on_pause, futures_in
from scalable_nb.client.submission import (
    PackedCall,
    Prepared,
    SchedulingOptions,
    Submission,
    as_submission,
    find_stored,
    identified,
    list_calls,
    many_objects,
    name_calls,
    name_map,
)
from scalable_nb.client.submitter import Submitter
from scalable_nb.dask_adapter.client_hooks import ClientHooks, requested_future, waited_futures
from scalable_nb.dask_adapter.graphs import keys_in
from scalable_nb.errors import HostDiedError
from scalable_nb.faults.backoff import RetryPolicy
from scalable_nb.faults.policy import TaskPolicy
from scalable_nb.protocol.messages import (
    CallReply,
    InputsChanged,
    JoinReply,
    LeftOutCalls,
)
from scalable_nb.protocol.operations import Operation
from scalable_nb.protocol.wire import receiving, stream_message
from scalable_nb.telemetry.rows import RELEASED, key_text

if TYPE_CHECKING:
    from scalable_nb.telemetry.journal_replay import AttemptRow

_DYING_S: Final = 0.5
_POLL_S: Final = 0.02

logger = logging.getLogger(__name__)


class ScalableClient(ClientHooks):
    """A `distributed.Client` connected to a session's host.

    Everything a Dask client does it does too, with the same signatures. `submit` and `map`
    take a few more keywords and give every task attempts, a place in the ledger and a row
    in ``failures.jsonl`` for each attempt that failed.

    Parameters
    ----------
    address : str
        The address of the host's scheduler.
    context : ClientContext
    call_log : CallLogWriter
        Where the calls are logged before they are sent.
    host_health : HostHealth
    session : SessionHandle
        The session it belongs to.
    on_host_lost : callable
        Called when the host has died.
    **kwargs
        As for `distributed.Client`.

    Attributes
    ----------
    session : SessionHandle
    context : ClientContext
    host_api : HostApi
    cached_futures : CachedFutures
    observed_keys : ObservedKeys
    """

    def __init__(
        self,
        address: str,
        *,
        context: ClientContext,
        call_log: CallLogWriter,
        host_health: HostHealth,
        session: SessionHandle,
        on_host_lost: Callable[[], None],
        **kwargs: Any,
    ) -> None:
        self.session = session
        self.context = context
        self._call_log = call_log
        self.host_api = HostApi(self)
        self.cached_futures = CachedFutures(self)
        self.observed_keys = ObservedKeys(self, self.host_api)
        self._submitter = Submitter(
            self, self.cached_futures, self.observed_keys, call_log, session.check_alive
        )
        self._pause_watch = PauseWatch(self.host_api)
        self._gatherer = Gatherer(
            self,
            self.cached_futures,
            self.observed_keys,
            self._submitter.submit_cached,
            self._find_stored,
            self._find_host_error,
        )
        self._host_health = host_health
        self._on_host_lost = on_host_lost
        super().__init__(address, **kwargs)  # connects, so all parts are there before

    @property
    def dashboard_link(self) -> str:
        """As `ScalableSession.dashboard_link`; Dask's own lacks the prefix."""
        return self.session.dashboard_link

    def _repr_html_(self) -> None:
        # Dask's shows the link, which is secret, and a notebook saves what it shows.
        return None

    # --- submitting --------------------------------------------------------------------

    def submit(
        self,
        func: Callable[..., Any],
        *args: Any,
        tag: str | None = UNSET,
        task: str | None = UNSET,
        n: int = UNSET,
        retries: int | RetryPolicy | None = UNSET,
        policy: TaskPolicy | None = UNSET,
        refresh: bool = UNSET,
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
            Call the function although a result is stored, and store the new one in its place.
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
        check_callable(func)
        workers = check_places(workers, allow_other_workers)
        given = given_options(
            func, tag=tag, task=task, n=n, retries=retries, policy=policy, refresh=refresh
        )
        if actor or actors:
            return super().submit(
                func, *args, key=key, workers=workers, resources=resources, priority=priority,
                allow_other_workers=allow_other_workers, actor=True, **kwargs,
            )  # fmt: skip
        options = CallOptions.resolve(self.context, func, **with_annotated_retries(given))
        scheduling = SchedulingOptions(
            workers, allow_other_workers, {**(resources or {}), **options.resources},
            priority, fifo_timeout,
        )  # fmt: skip
        call = (args, kwargs)
        if key is not None:
            named = list_calls([key], [call])
        elif pure and not given.get("refresh"):
            named = name_calls(
                options, funcname(func), [call],
                lambda a, k: tokenize(identified(func, options), k, *a),
            )  # fmt: skip
        else:
            named = list_calls([f"{funcname(func)}-{uuid.uuid4()}"], [call])
        packed = self._submitter.pack(func, options, dict(named), scheduling, is_submit=True)
        if not packed.parts:  # all calls are held: without an entry of a call, the batch needs one
            self._log_batch(func, options, [key for key, _ in named], is_single=True)
        (future,) = self._submitter.send(packed)
        self.report_inputs(packed.input_changes([future.key]))
        return future

    def map(
        self,
        func: Callable[..., Any],
        *iterables: Iterable[Any],
        name: str | None = UNSET,
        tag: str | None = UNSET,
        task: str | None = UNSET,
        n: int = UNSET,
        retries: int | RetryPolicy | None = UNSET,
        policy: TaskPolicy | None = UNSET,
        refresh: bool = UNSET,
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
            Of the batch; ``session.batches`` has it under this name.
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
        check_callable(func)
        workers = check_places(workers, allow_other_workers)
        given = given_options(
            func, tag=tag, task=task, n=n, retries=retries, policy=policy, refresh=refresh,
            name=name,
        )  # fmt: skip
        name = given.pop("name", None)
        if actor or actors:
            return FutureList(
                super().map(func, *map(list, iterables), key=key, workers=workers,
                            resources=dict(resources or {}), priority=priority, actor=True,
                            **kwargs)
            )  # fmt: skip
        options = CallOptions.resolve(
            self.context, func, is_named=name is not None, **with_annotated_retries(given)
        )
        scheduling = SchedulingOptions(
            workers, allow_other_workers, {**(resources or {}), **options.resources},
            priority, fifo_timeout,
        )  # fmt: skip
        rows = list(zip(*iterables, strict=False))
        with many_objects(len(rows)):
            items = [(args, kwargs) for args in rows]
            named = name_map(func, options, items, kwargs, key, pure and not given.get("refresh"))
            name = self.session.name_batch(name, options.task or funcname(func))
            packed = self._submitter.pack(
                func, options, dict(named), scheduling, name, part_size=batch_size
            )
            keys = [key for key, _ in named]
            batch_id = self._log_batch(func, options, keys, name=name)
            sent = self._submitter.send(packed)
            self.report_inputs(packed.input_changes(keys))
            if len(sent) < len(keys):
                # A call that occurs twice is one task with two futures, as in Dask.
                by_key = {future.key: future for future in sent}
                sent = [by_key[key] for key in keys]
        return FutureList(sent, name=name, batch_ids=(batch_id,))

    def _log_batch(
        self,
        func: Callable[..., Any],
        options: CallOptions,
        keys: list[Any],
        *,
        name: str = "",
        is_single: bool = False,
    ) -> str:
        """Record a new batch before any of its tasks can run, and return its id."""
        record = BatchRecord(
            batch_id=uuid.uuid4().hex,
            name=name or options.task,
            function_name=funcname(func),
            at=time.time(),
            kernel=self._call_log.name,
            keys=keys,
            is_single=is_single,
        )
        self._call_log.log_batches([record], is_durable=not is_single)
        return record.batch_id

    # --- submitting again what was recorded --------------------------------------------

    def submit_calls(
        self,
        func: Callable[..., Any],
        options: CallOptions,
        calls: Mapping[Any, Prepared],
        scheduling: SchedulingOptions,
        name: str,
    ) -> list[Future[Any]]:
        """Return the futures of calls that have keys; no batch is recorded."""
        return self._submitter.send(
            self._submitter.pack(func, options, calls, scheduling, name=name)
        )

    def submit_packed(
        self,
        submission: Submission,
        packed: Mapping[Any, PackedCall],
        *,
        is_known: bool = False,
    ) -> dict[Any, Future[Any]]:
        """Return the futures of packed calls; see `Submitter.submit_packed`."""
        return self._submitter.submit_packed(submission, packed, is_known=is_known)

    def report_left_out(self, message: LeftOutCalls) -> None:
        """Report calls of an earlier run to the host that do not run in this one."""
        self.send(stream_message(Operation.CALLS_LEFT_OUT, message))

    def report_inputs(self, changes: Mapping[Any, int]) -> None:
        """Report tasks to the host that compute more or fewer inputs than were announced."""
        changes = {key: change for key, change in changes.items() if change}
        if changes:
            message = InputsChanged(tuple(changes), tuple(changes.values()))
            self.send(stream_message(Operation.INPUTS_CHANGED, message))

    def forget_terms(self, keys: Iterable[Any]) -> None:
        """Take note that calls run on other terms than those of their submission."""
        for key in keys:
            self._submitter.forget(key)

    @property
    def call_log(self) -> CallLogWriter:
        """The writer of this kernel's calls and batches."""
        return self._call_log

    # --- gathering ---------------------------------------------------------------------

    def gather(
        self,
        futures: Any,
        errors: str = "raise",
        direct: Any = None,
        asynchronous: Any = None,
        *,
        on_pause: str = "raise",
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
        on_pause : {"raise", "wait"}
            If the circuit breaker has paused the tasks and no other task can run: raise
            `BatchPausedError`, or wait until the user resumes or cancels them.
        """
        check_on_pause(on_pause)
        if errors == "return":
            outcomes = self._gatherer.results_or_errors
            return self.sync(self._wait_for, outcomes, futures, on_pause, asynchronous=asynchronous)
        if errors not in ("raise", "skip"):
            raise ValueError(
                f"errors={errors!r} is not known; expected 'raise', 'skip' or 'return'"
            )
        plain = plain_lists(futures)
        if on_pause == "wait":
            return self.sync(
                self._gatherer.gather, plain, errors, direct, asynchronous=asynchronous
            )
        return super().gather(plain, errors=errors, direct=direct, asynchronous=asynchronous)

    def sync(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """As in `distributed.Client.sync`; the task of a requested result is claimed first."""
        waited = waited_futures(func, args)
        if waited and kwargs.get("timeout") is None:
            return super().sync(
                self._pause_watch.run, waited, functools.partial(func, *args, **kwargs)
            )
        future = requested_future(func) if self.observed_keys else None
        if future is None:
            return super().sync(func, *args, **kwargs)
        return super().sync(self._claim_and_wait, future.key, func, **kwargs)

    async def _claim_and_wait(self, key: Any, result: Callable[[], Awaitable[Any]]) -> Any:
        await self.observed_keys.claim((key,))
        return await result()

    async def _wait_for(
        self, wait: Callable[[Any], Awaitable[Any]], futures: Any, on_pause: str
    ) -> Any:
        if on_pause == "wait":
            return await wait(futures)
        return await self._pause_watch.run(futures_in(futures), lambda: wait(futures))

    def outcomes(self, futures: list[Future[Any]], on_pause: str = "raise") -> list[Any]:
        """Wait for all futures; return each one's result, or `Failed` in its place."""
        check_on_pause(on_pause)
        outcomes: list[Any] = self.sync(self._wait_for, self._gatherer.outcomes, futures, on_pause)
        return outcomes

    def check_progress(self, futures: Iterable[Future[Any]]) -> None:
        """Raise if futures wait for the user; see `PauseWatch.check`.

        Raises
        ------
        BatchPausedError
        """
        self.sync(self._pause_watch.check, [each for each in futures if not each.done()])

    def partial(self, futures: Iterable[Future[Any]], *, on_pause: str = "raise") -> PartialResult:
        """Wait for all futures, then return results and failures; see `scalable_nb.partial`."""
        return partial(futures, on_pause=on_pause)

    # --- tasks -------------------------------------------------------------------------

    def attempts(self, future: Future[Any]) -> list[AttemptRow]:
        """Return all attempts of a task so far, oldest first, including a running one.

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
        """Return the keys of the futures held here, by their texts as in the journal."""
        # A list first: other threads create and release futures.
        return {key_text(key): key for key in list(self.futures)}

    def call_of(self, key: Any) -> CallReply | None:
        """Return what a task calls, or None if the host does not know it."""
        return self.host_api.call_of(key)

    def retry(self, futures: Any, asynchronous: Any = None) -> Any:
        """Run failed tasks again; others stay as they are, with a message.

        Dask's own also executes a task a second time that is running.
        """
        listed = futures_of(futures)
        failed = [future for future in listed if future.status == "error"]
        if len(failed) < len(listed):
            logger.warning(
                "%s of these %s tasks have not failed and are not retried; "
                "`client.cancel(futures)` ends tasks, `pure=False` runs a call once more.",
                f"{len(listed) - len(failed):,}",
                f"{len(listed):,}",
            )
        return super().retry(failed, asynchronous=asynchronous)

    def retry_now(self, futures: Iterable[Future[Any]]) -> int:
        """End the pause of tasks that wait for their next attempt; returns how many did."""
        return self.host_api.retry_now([future.key for future in futures])

    def give_up(self, futures: Iterable[Future[Any]]) -> int:
        """Let tasks that wait for their next attempt fail now, with their last error.

        Returns
        -------
        int
            How many were waiting; others are left alone.
        """
        return self.host_api.give_up([future.key for future in futures])

    def resume(self, futures: Iterable[Future[Any]]) -> int:
        """Let the paused tasks of a batch go on although all before them failed alike.

        Returns
        -------
        int
            How many were paused.
        """
        return self.host_api.resume_tasks([future.key for future in futures])

    # --- what Dask calls, see `ClientHooks` ----------------------------------------------

    def message_handlers(self) -> Mapping[str, Callable[..., Any]]:
        """Return functions for messages of the host."""
        on_joined = self.host_api.on_joined
        return {Operation.JOINED: receiving(JoinReply, lambda _, reply: on_joined(reply))}

    def on_graph(self, expression: Any) -> None:
        """Send the inputs of a graph to the host that stored results have answered."""
        if self.cached_futures or self.observed_keys:
            self._submitter.submit_cached(keys_in(expression))

    def on_share(self, keys: Collection[Any]) -> None:
        """Send tasks to the host whose futures others will look for there."""
        self._submitter.submit_cached(keys)

    async def on_gather(
        self, futures: Any, errors: str = "raise", direct: Any = None, local_worker: Any = None
    ) -> Any:
        """Return results; stored ones are read here."""
        gather = self._gatherer.gather
        return await self._pause_watch.run(
            futures_in(futures), lambda: gather(futures, errors, direct, local_worker)
        )

    def on_release(self, key: Any) -> bool:
        """Return whether a stored result answered the task, of which the last future is gone."""
        self.observed_keys.discard(key)
        self._submitter.forget(key)
        return self.cached_futures.forget(key)

    def on_cancelled(self, keys: Collection[Any], reason: Any, message: Any) -> None:
        """Cancel futures of tasks that were cancelled elsewhere; settle released ones."""
        if reason == RELEASED:
            self.observed_keys.on_released(keys)
            return
        for key in keys:
            self.cancel_future(key, reason, message)

    async def on_disconnect(self) -> bool:
        """Return whether the host has died; all futures fail then."""
        self.observed_keys.clear()
        error = await self._find_host_error()
        if error is None:
            self.host_api.on_disconnect(ConnectionError("the connection to the host broke"))
            return False
        self._gatherer.lose_host(error)
        self.host_api.on_disconnect(error)
        self.fail_pending_futures(error)
        self._on_host_lost()
        await self.close_fast()
        return True

    async def _find_host_error(self) -> HostDiedError | None:
        """Return the error of a host that has died, after a connection to it broke."""
        if await _is_alive_after_disconnect(self._host_health):
            return None
        return HostDiedError(self._host_health.death_message())

    def _find_stored(self) -> None:
        """Let the stored results of all calls of the run be read here."""
        assert self.session.paths is not None
        log = read_call_log(self.session.paths.calls)
        stored = find_stored(log, log.tasks.values(), self.context.results_dir)
        for key, (folder, packed) in stored.items():
            self.cached_futures.add(key, as_submission(log.tasks[key], store=folder), packed)


async def _is_alive_after_disconnect(host_health: HostHealth) -> bool:
    """Return whether the host outlives the connection to it."""
    # A process that is killed loses its connections a moment before it is gone.
    deadline = time.monotonic() + _DYING_S
    while host_health.is_host_alive():
        if time.monotonic() > deadline:
            return True
        await asyncio.sleep(_POLL_S)
    return False
