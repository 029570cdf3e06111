"""Futures of calls whose results are stored already: finished here, without the host.

Their results are read when they are gathered. A call whose result cannot be read, or that another
task needs as input, is withdrawn: the submitter then sends it to the host, which has a worker load
or compute the result.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from distributed import Future

from scalable_nb.cache.store import (
    ChangedOutputError,
    ResultStore,
    ResultStoreError,
    UnsignedResultError,
)
from scalable_nb.client.context import ClientTransport
from scalable_nb.client.submission import PackedCall, Submission
from scalable_nb.protocol.messages import AnsweredCalls
from scalable_nb.protocol.operations import Operation
from scalable_nb.protocol.wire import stream_message

logger = logging.getLogger(__name__)

#: Calls of one submission, to be sent together.
Withdrawn = tuple[Submission, dict[Any, PackedCall]]


class CachedCall(NamedTuple):
    """A call whose result is stored."""

    submission: Submission
    packed: PackedCall
    store: ResultStore


class CachedFutures:
    """The calls of one client that stored results answer.

    Parameters
    ----------
    transport : ClientTransport

    Attributes
    ----------
    reports_sent : int
        How many messages about answered calls were sent to the host.
    """

    def __init__(self, transport: ClientTransport) -> None:
        self._transport = transport
        self._by_key: dict[Any, CachedCall] = {}
        self.reports_sent = 0

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def __len__(self) -> int:
        return len(self._by_key)

    def answer(
        self,
        submission: Submission,
        packed: Mapping[Any, PackedCall],
        *,
        is_known: bool = False,
    ) -> tuple[dict[Any, Future[Any]], dict[Any, PackedCall]]:
        """Return finished futures of the calls whose results are stored, and the other calls.

        ``is_known``: the ledger has them already.
        """
        folder = submission.wire.get("store", "")
        if not folder or submission.wire.get("recompute"):
            return {}, dict(packed)
        store = ResultStore(Path(folder))
        stored = store.contained({each.call.result_key for each in packed.values()} - {""})
        if not stored:
            return {}, dict(packed)
        answered: dict[Any, PackedCall] = {}
        rest: dict[Any, PackedCall] = {}
        for key, each in packed.items():
            if each.call.result_key not in stored:
                rest[key] = each
                continue
            answered[key] = each
            self._by_key[key] = CachedCall(submission, each, store)
        futures = self._transport.finish_futures(answered)
        self._report(submission, answered, is_known=is_known)
        return futures, rest

    def restore(self, key: Any, submission: Submission, packed: PackedCall) -> None:
        """Finish a future that another kernel of this run had; the host has its task."""
        self.add(key, submission, packed)
        self._transport.finish_futures([key])

    def add(self, key: Any, submission: Submission, packed: PackedCall) -> None:
        """Read the result of a task from the store from now on."""
        store = ResultStore(Path(submission.wire["store"]))
        self._by_key[key] = CachedCall(submission, packed, store)

    async def read(self, keys: Iterable[Any]) -> tuple[dict[Any, Any], set[Any]]:
        """Return the results of those keys that are answered here, and the unreadable keys."""
        cached = {key: self._by_key[key] for key in keys if key in self._by_key}
        if not cached:
            return {}, set()
        found = await asyncio.to_thread(_read, cached)
        unreadable = cached.keys() - found.keys() if len(found) < len(cached) else set()
        return found, unreadable

    def withdraw(self, keys: Iterable[Any]) -> list[Withdrawn]:
        """Make futures pending that are finished here, and return their calls: inputs first.

        Other keys are passed over: the host knows those.
        """
        by_batch: dict[str, Withdrawn] = {}
        for key in keys:
            cached = self._by_key.pop(key, None)
            if cached is None or key not in self._transport.futures:
                continue
            self._transport.reopen_futures([key])
            submission = cached.submission
            _, packed = by_batch.setdefault(submission.batch.batch_id, (submission, {}))
            packed[key] = cached.packed
        withdrawn: list[Withdrawn] = []
        for submission, packed in by_batch.values():
            withdrawn += self.withdraw(input_keys(packed))
            withdrawn.append((submission, packed))
        return withdrawn

    def forget(self, key: Any) -> bool:
        """Drop a call whose future is gone; return whether it was answered here."""
        return self._by_key.pop(key, None) is not None

    def _report(
        self, submission: Submission, answered: Mapping[Any, PackedCall], *, is_known: bool
    ) -> None:
        previews = {key: each.preview for key, each in answered.items()}
        message = AnsweredCalls(
            submission.batch.with_previews(previews, is_known=is_known),
            result_keys=tuple(each.call.result_key for each in answered.values()),
        )
        self.reports_sent += 1
        self._transport.send(stream_message(Operation.CALLS_ANSWERED, message))


def input_keys(packed: Mapping[Any, PackedCall]) -> set[Any]:
    """Return the keys of the tasks whose results some calls take."""
    return {future.key for each in packed.values() for future in each.inputs}


def _read(cached: Mapping[Any, CachedCall]) -> dict[Any, Any]:
    found = {}
    with ExitStack() as stack:
        readers: dict[ResultStore, Callable[[str], Any]] = {}
        for key, (_, packed, store) in cached.items():
            if store not in readers:
                readers[store] = stack.enter_context(store.many())
            try:
                found[key] = readers[store](packed.call.result_key)
            except KeyError:
                continue  # removed meanwhile: it is computed
            except (ChangedOutputError, UnsignedResultError):
                continue  # reported by the worker that computes it
            except (ResultStoreError, OSError) as error:
                logger.warning("%s", error)
    return found
