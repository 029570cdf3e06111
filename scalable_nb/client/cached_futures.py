"""Futures of calls whose results are stored already: answered here, without the host.

Their results are read when somebody asks for them. A result that cannot be read, and one that
another task needs, is handed over to the host, which has it loaded or computed by a worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scalable_nb.cache.store import ResultStore, ResultStoreError
from scalable_nb.client.submission import PackedCall, Submission
from scalable_nb.dask_adapter.future_state import AnsweredState

if TYPE_CHECKING:
    from scalable_nb.client.client import ScalableClient

logger = logging.getLogger(__name__)


class CachedCall(NamedTuple):
    """A call whose result is stored."""

    submission: Submission
    packed: PackedCall
    store: ResultStore


class CachedFutures:
    """The calls of one client that stored results answer.

    Parameters
    ----------
    client : ScalableClient

    Attributes
    ----------
    reports_sent : int
        How often the host was told of answered calls.
    """

    def __init__(self, client: ScalableClient) -> None:
        self._client = client
        self._by_key: dict[Any, CachedCall] = {}
        self.reports_sent = 0

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def __len__(self) -> int:
        return len(self._by_key)

    def give(
        self, submission: Submission, packed: Mapping[Any, PackedCall]
    ) -> dict[Any, PackedCall]:
        """Answer what can be answered, whose futures are finished then; gives the other calls."""
        folder = submission.wire.get("store", "")
        if not folder or submission.wire.get("recompute"):
            return dict(packed)
        store = ResultStore(Path(folder))
        stored = store.contained({each.call.result_key for each in packed.values()} - {""})
        if not stored:
            return dict(packed)
        answered: dict[Any, PackedCall] = {}
        rest: dict[Any, PackedCall] = {}
        states = self._client.futures
        for key, each in packed.items():
            if each.call.result_key not in stored:
                rest[key] = each
                continue
            answered[key] = each
            self._by_key[key] = CachedCall(submission, each, store)
            if key in states:
                states[key].finish()
            else:
                states[key] = AnsweredState(key)
        self._report(submission, answered)
        return rest

    def restore(self, key: Any, submission: Submission, packed: PackedCall) -> None:
        """Answer a future that another kernel of this run had; the host knows of it."""
        store = ResultStore(Path(submission.wire["store"]))
        self._by_key[key] = CachedCall(submission, packed, store)
        self._client.futures[key].finish()

    async def read(self, keys: Iterable[Any]) -> dict[Any, Any]:
        """The results of those keys that are answered here.

        What turns out to be unreadable is computed: those futures are pending again.
        """
        cached = {key: self._by_key[key] for key in keys if key in self._by_key}
        if not cached:
            return {}
        found = await asyncio.to_thread(_read, cached)
        if len(found) < len(cached):
            self.hand_over(cached.keys() - found.keys())
        return found

    def hand_over(self, keys: Collection[Any]) -> None:
        """Let the host know these tasks; those that are not answered here it knows already."""
        by_submission: dict[str, tuple[Submission, dict[Any, PackedCall]]] = {}
        for key in keys:
            cached = self._by_key.pop(key, None)
            state = self._client.futures.get(key)
            if cached is None or state is None:
                continue
            state.retry()
            submission = cached.submission
            by_submission.setdefault(submission.batch.batch_id, (submission, {}))[1][key] = (
                cached.packed
            )
        for submission, packed in by_submission.values():
            self._client.send_packed(submission, packed, is_known=True)

    def forget(self, key: Any) -> bool:
        """Nobody wants a result any more; says whether it was answered here."""
        return self._by_key.pop(key, None) is not None

    def _report(self, submission: Submission, answered: Mapping[Any, PackedCall]) -> None:
        batch = submission.batch
        self.reports_sent += 1
        self._client._send_to_scheduler(
            {
                "op": "scalable-answered",
                "result_keys": [each.call.result_key for each in answered.values()],
                **batch.with_previews({k: each.preview for k, each in answered.items()}).to_wire(),
            }
        )


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
                continue  # somebody removed it: it is computed
            except (ResultStoreError, OSError) as error:
                logger.warning("%s", error)
    return found
