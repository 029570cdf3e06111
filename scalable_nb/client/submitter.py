"""Sends calls: they are logged first, answered by stored results, and the rest goes to the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import dask
from distributed import Future

from scalable_nb.client.cached_futures import CachedFutures, input_keys
from scalable_nb.client.call_log_writer import CallLogWriter
from scalable_nb.client.call_options import STORED_WITH_A_NAME_BYTES, CallOptions
from scalable_nb.client.context import ClientTransport
from scalable_nb.client.held_terms import HeldTerms
from scalable_nb.client.host_api import ObservedKeys
from scalable_nb.client.submission import (
    PackedCall,
    Prepared,
    SchedulingOptions,
    Submission,
    pack_calls,
)
from scalable_nb.client.user_code.code_pickler import note_user_modules
from scalable_nb.client.user_code.kernel_sources import packed_sources, warn_of_stale
from scalable_nb.client.user_code.project_modules import warn_if_stale
from scalable_nb.dask_adapter.graphs import make_task
from scalable_nb.protocol.annotations import ANNOTATION
from scalable_nb.protocol.messages import ModuleSources, ReopenedTasks, StoreRequest
from scalable_nb.protocol.operations import Operation
from scalable_nb.protocol.wire import stream_message
from scalable_nb.worker.attempt import run_async_attempt, run_attempt

#: Submissions within this time of a look at the host do not look again.
_BURST_S: Final = 0.1


@dataclass
class PackedSubmissions:
    """Calls that are ready to be sent.

    Attributes
    ----------
    options : CallOptions
    keys : list
        Of all calls, in order.
    held : dict
        Key -> future, of the calls that the client has futures of.
    parts : list of (Submission, dict)
        The others, with the calls by key.
    """

    options: CallOptions
    keys: list[Any]
    held: dict[Any, Future[Any]]
    parts: list[tuple[Submission, dict[Any, PackedCall]]] = field(default_factory=list)

    def input_changes(self, inputs: Sequence[Any]) -> Counter[Any]:
        """Return how many more inputs of a batch each task has than is announced to the host.

        Parameters
        ----------
        inputs : sequence
            The key of each input's task. Each call of `parts` is announced once.
        """
        if sum(len(calls) for _, calls in self.parts) == len(inputs):
            return Counter()  # no input shares its task
        changes = Counter(inputs)
        for _, calls in self.parts:
            changes.subtract(calls.keys())
        return changes


class Submitter:
    """Sends the calls of one client.

    Parameters
    ----------
    transport : ClientTransport
    cached_futures : CachedFutures
    observed_keys : ObservedKeys
    call_log : CallLogWriter
    check_alive : callable
        Raises unless the session takes work; see `SessionHandle.check_alive`.
    """

    def __init__(
        self,
        transport: ClientTransport,
        cached_futures: CachedFutures,
        observed_keys: ObservedKeys,
        call_log: CallLogWriter,
        check_alive: Callable[..., None],
    ) -> None:
        self._transport = transport
        self._cached_futures = cached_futures
        self._observed_keys = observed_keys
        self._call_log = call_log
        self._check_alive = check_alive
        self._terms = HeldTerms()
        self._sent_sources: set[str] = set()
        note_user_modules()  # early: a file may be edited before the first submission

    def pack(
        self,
        func: Callable[..., Any],
        options: CallOptions,
        calls: Mapping[Any, Prepared],
        scheduling: SchedulingOptions,
        name: str = "",
        *,
        part_size: int | None = None,
        is_submit: bool = False,
    ) -> PackedSubmissions:
        """Pack the calls that are new; nothing is recorded or sent yet."""
        self._check_alive(seen_within_s=_BURST_S)
        held = self._transport.held_futures(calls)
        self._terms.check(held, options)
        # Those that are only observed are sent again, which claims them.
        new = [key for key in calls if key not in held or key in self._observed_keys]
        packed = PackedSubmissions(options, list(calls), held)
        if new:
            warn_if_stale(func)
            warn_of_stale(options.modules.stale)
            identity = options.identity
        for start in range(0, len(new), part_size or len(new) or 1):
            submission = Submission(
                batch=options.batch(name, func),
                wire=options.wire,
                scheduling=scheduling,
                record_args=options.record_args,
                identity=identity,
                is_submit=is_submit,
            )
            part = {key: calls[key] for key in new[start : start + (part_size or len(new))]}
            packed_calls = pack_calls(func, options, part, submission.batch.batch_id)
            packed.parts.append((submission, packed_calls))
        if options.call_keys is not None:
            options.check_unedited()
        return packed

    def send(self, packed: PackedSubmissions) -> list[Future[Any]]:
        """Send the new calls, and return the futures of all calls in order."""
        for submission, calls in packed.parts:
            self._call_log.log_calls(submission, calls)
        held = packed.held
        failed = {key for key, future in held.items() if future.status == "error"}
        again = failed.difference(*(calls for _, calls in packed.parts))
        self._reopen(list(again), packed.options)
        unstored = self._terms.unstored(held, packed.options)
        self._request_storage(unstored)
        self._terms.note_stored(unstored, packed.options)
        futures = dict(held)
        for submission, calls in packed.parts:
            futures |= self._dispatch(submission, calls)
        return [futures[key] for key in packed.keys]

    def submit_packed(
        self,
        submission: Submission,
        packed: Mapping[Any, PackedCall],
        *,
        is_known: bool = False,
    ) -> dict[Any, Future[Any]]:
        """Log calls, answer those whose results are stored, and send the others.

        ``is_known``: the ledger has them already.
        """
        self._call_log.log_calls(submission, packed)
        return self._dispatch(submission, packed, is_known=is_known)

    def _dispatch(
        self,
        submission: Submission,
        packed: Mapping[Any, PackedCall],
        *,
        is_known: bool = False,
    ) -> dict[Any, Future[Any]]:
        observed = self._transport.held_futures(self._observed_keys.take(packed))
        failed = [key for key, future in observed.items() if future.status == "error"]
        self._transport.reopen_futures(failed)
        futures, rest = self._cached_futures.answer(submission, packed, is_known=is_known)
        if rest:
            self.submit_cached(input_keys(rest))
            futures |= self._send(submission, rest, is_known=is_known)
            if submission.batch.runs_to_end and "store" in submission.wire:
                # Cached calls that take results of others have no key in the cache.
                self._request_storage(k for k, each in rest.items() if not each.call.result_key)
        self._terms.note(submission, packed)
        return futures

    def forget(self, key: Any) -> None:
        """Forget the terms of a call: its last future is gone, or they have changed."""
        self._terms.forget(key)

    def submit_cached(self, keys: Iterable[Any]) -> None:
        """Send the tasks among these that stored results have answered: the host needs them.

        Those that this client only observes are claimed.
        """
        self._observed_keys.claim_soon(keys)
        for submission, packed in self._cached_futures.withdraw(keys):
            self._send(submission, packed, is_known=True)

    def _send(
        self,
        submission: Submission,
        packed: Mapping[Any, PackedCall],
        *,
        is_known: bool = False,
    ) -> dict[Any, Future[Any]]:
        """Send calls to the host; ``is_known``: stored results had answered them before."""
        self._send_sources({each.call.modules for each in packed.values()})
        previews = {key: each.preview for key, each in packed.items()}
        batch = submission.batch.with_previews(previews, is_known=is_known)
        self._transport.send(stream_message(Operation.BATCH_SUBMITTED, batch))
        runner = run_async_attempt if batch.is_async else run_attempt
        graph = {
            key: make_task(key, runner, key, each.call, inputs=each.inputs)
            for key, each in packed.items()
        }
        scheduling = submission.scheduling
        annotations: dict[str, Any] = {ANNOTATION: {**submission.wire, "batch": batch.batch_id}}
        if "retries" in dask.get_annotations():
            annotations["retries"] = 0  # they are in the options: Dask is not to retry as well
        with dask.annotate(**annotations):
            return self._transport.submit_graph(
                graph,
                workers=scheduling.workers,
                allow_other_workers=scheduling.allow_other_workers,
                priority=scheduling.priority,
                resources=dict(scheduling.resources) or None,
                fifo_timeout=scheduling.fifo_timeout,
            )

    def _request_storage(self, keys: Iterable[Any]) -> None:
        """Ask the host to store results that their tasks do not store, as of a named batch."""
        request = StoreRequest(tuple(keys), STORED_WITH_A_NAME_BYTES)
        if request.keys:
            self._transport.send(stream_message(Operation.STORE_RESULTS, request))

    def _send_sources(self, digests: set[str]) -> None:
        """Send the host the sources of modules that it does not have yet."""
        for digest in digests - self._sent_sources:
            if digest:
                message = ModuleSources(digest, packed_sources(digest))
                self._transport.send(stream_message(Operation.SOURCES_SENT, message))
        self._sent_sources |= digests

    def _reopen(self, keys: list[Any], options: CallOptions) -> None:
        """Run calls again whose failed futures are still held: same keys, fresh budgets."""
        if not keys:
            return
        self._transport.reopen_futures(keys)
        self._terms.note_reopened(keys, options)
        wire = {**options.wire, "component": options.component} if options.tag else options.wire
        reopened = ReopenedTasks(tuple(keys), wire)
        self._transport.send(stream_message(Operation.TASKS_REOPENED, reopened))
