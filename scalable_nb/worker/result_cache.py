"""A task's kept result: looked for before the call, written before the task counts as done."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from distributed import Worker

from scalable_nb.cache.function import CacheableFunction
from scalable_nb.cache.keys import CallKeys, own_result_key
from scalable_nb.cache.lookup import look_up, store_result
from scalable_nb.cache.store import ResultStore, StoredResult

logger = logging.getLogger(__name__)


class TaskResultCache:
    """The place of one task's result.

    Trouble with the store never fails the task; it is told in `facts`.

    Parameters
    ----------
    folder : str
        Of the store; empty where results are not kept.
    key : str
        Of the result; empty where this one is not kept.
    recompute : bool
        Pass over what is kept, and replace it.
    limit_bytes : int or None
        Size up to which the result is kept; None: any.
    compress : bool
        Whether it is compressed.

    Attributes
    ----------
    value : object
        The kept result, after a hit.
    facts : dict
        What happened, in plain values: ``event`` ("hit" or "kept"), ``key``, ``bytes``,
        ``problem``. Empty where results are not kept.
    """

    def __init__(
        self,
        folder: str,
        key: str,
        *,
        recompute: bool = False,
        limit_bytes: int | None = None,
        compress: bool = False,
    ) -> None:
        self._store = _store(folder, compress) if folder and key else None
        self._key = key
        self._is_passed_over = recompute
        self._limit_bytes = limit_bytes
        self.value: Any = None
        self.facts: dict[str, Any] = {}

        self.about: dict[str, Any] = {}

    def is_hit(self) -> bool:
        """Look for the result."""
        if self._store is None or self._is_passed_over:
            return False
        found = look_up(self._store, self._key)
        if found.is_hit:
            self.value = found.value
            self._note(event="hit")
        elif found.problem:
            self._note(problem=found.problem)
        return found.is_hit

    def store_result(self, value: Any, meta: Mapping[str, Any]) -> None:
        """Write the result."""
        if self._store is None:
            return
        meta = {**self.about, **meta}
        stored = store_result(self._store, self._key, value, meta, limit_bytes=self._limit_bytes)
        if isinstance(stored, StoredResult):
            self._note(event="kept", bytes=stored.nbytes)
        else:
            self._note(problem=stored)

    def _note(self, **facts: Any) -> None:
        self.facts.update(facts, key=self._key)


def described(
    about: bytes, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """What to remember of a call beside its result, so that a later one can be compared."""
    if not about:
        return {}
    told: dict[str, Any] = orjson.loads(about)
    ignore: Collection[str] = ()
    cacheable = getattr(function, "__self__", None)
    if isinstance(cacheable, CacheableFunction):
        function, ignore = cacheable.__wrapped__, cacheable.cache_spec.ignore
    keys = CallKeys(function, ignore=ignore, identity=bytes.fromhex(told["identity"]))
    return {**told, "arguments": keys.argument_digests(args, kwargs)}


@functools.lru_cache(maxsize=8)
def _store(folder: str, compress: bool) -> ResultStore:
    return ResultStore(Path(folder), compress=compress)


def write_results(folder: str, keys: Iterable[Any], dask_worker: Worker) -> None:
    """Runs on a worker: write results that it holds."""
    store = ResultStore(Path(folder))
    for key in keys:
        if key in dask_worker.data:
            stored = store_result(
                store, own_result_key(key), dask_worker.data[key], {"task_id": str(key)}
            )
            if not isinstance(stored, StoredResult):
                logger.warning("%s: %s", key, stored)
