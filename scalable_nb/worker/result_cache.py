"""A task's stored result: looked up before the call, written before the task counts as done."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import Worker

from scalable_nb.cache.function import CacheableFunction
from scalable_nb.cache.keys import CallKeys, own_result_key
from scalable_nb.cache.lookup import look_up, store_result
from scalable_nb.cache.output_files import find_written_path, written_path_message
from scalable_nb.cache.store import ResultStore, StoredResult, UnsignedResultError
from scalable_nb.protocol.annotations import CacheFacts, TaskAnnotation

logger = logging.getLogger(__name__)


class TaskResultCache:
    """The place of one task's result.

    Trouble with the store never fails the task; it is reported in `facts`.

    Parameters
    ----------
    annotation : TaskAnnotation
        Names the store, if results are stored.
    key : str
        Of the result; empty if this one is not stored.

    Attributes
    ----------
    value : object
        The stored result, after a hit.
    facts : CacheFacts or None
        What happened; None if nothing did.
    """

    def __init__(self, annotation: TaskAnnotation, key: str) -> None:
        is_stored = bool(annotation.store and key)
        self._store = _store(annotation.store, annotation.compress) if is_stored else None
        self._key = key
        self._annotation = annotation
        self.value: Any = None
        self.facts: CacheFacts | None = None

    def is_hit(self) -> bool:
        """Look for the result.

        Raises
        ------
        UnsignedResultError
            If it is not signed, and the function must not be called twice.
        """
        if self._store is None or self._annotation.recompute:
            return False
        found = look_up(self._store, self._key)
        if found.is_hit:
            self.value = found.value
            self._report(event="hit")
        elif found.is_unsigned and not self._annotation.terms.idempotent:
            raise UnsignedResultError(f"the task is not idempotent, and {found.problem}")
        elif found.problem:
            self._report(problem=found.problem)
        return found.is_hit

    def withhold(self) -> None:
        """Store no result: the function runs with other code than the key was made from."""
        self._store = None

    def store_result(
        self,
        value: Any,
        meta: Mapping[str, Any],
        *,
        written_since: float | None = None,
        allow: Collection[str] = (),
    ) -> None:
        """Write the result, and next to it what `meta` says of it (see `description`).

        Parameters
        ----------
        value : object
        meta : mapping
        written_since : float or None
            For a cached call: report a path in the result that names a file written after this
            time, and track files. Seconds since the epoch.
        allow : collection of str
            Paths that are not reported.
        """
        if self._store is None:
            return
        stored = store_result(
            self._store,
            self._key,
            value,
            meta,
            limit_bytes=self._annotation.limit_bytes,
            tracks_files=written_since is not None,
        )
        if not isinstance(stored, StoredResult):
            self._report(problem=stored)
            return
        self._report(event="kept", bytes=stored.nbytes)
        path = "" if written_since is None else find_written_path(value, written_since, allow)
        if path:
            self._report(problem=written_path_message(path))

    def _report(self, **facts: Any) -> None:
        self.facts = replace(self.facts or CacheFacts(self._key), **facts)


def description(
    about: bytes, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is stored of a call next to its result, to compare later calls with."""
    if not about:
        return {}
    known: dict[str, Any] = json.loads(about)
    ignore: Collection[str] = ()
    opaque: Collection[type] = ()
    cacheable = getattr(function, "__self__", None)
    if isinstance(cacheable, CacheableFunction):
        spec, function = cacheable.cache_spec, cacheable.__wrapped__
        ignore, opaque = spec.ignore, spec.opaque
    identity = bytes.fromhex(known["identity"])
    keys = CallKeys(function, ignore=ignore, opaque=opaque, identity=identity)
    return {**known, "arguments": keys.argument_digests(args, kwargs)}


def allowed_names(function: Callable[..., Any]) -> Collection[str]:
    """Return the names that the ``allow=`` of a cacheable function lists."""
    cacheable = getattr(function, "__self__", None)
    return cacheable.cache_spec.allow if isinstance(cacheable, CacheableFunction) else ()


@functools.lru_cache(maxsize=8)
def _store(folder: str, compress: bool) -> ResultStore:
    return ResultStore(Path(folder), compress=compress)


def write_results(folder: str, limits_bytes: Mapping[Any, int | None], dask_worker: Worker) -> None:
    """Write results that this worker holds, each up to a size; runs on the worker."""
    store = ResultStore(Path(folder))
    for key, limit_bytes in limits_bytes.items():
        if key in dask_worker.data:
            value, meta = dask_worker.data[key], {"task_id": str(key)}
            stored = store_result(store, own_result_key(key), value, meta, limit_bytes=limit_bytes)
            if not isinstance(stored, StoredResult):
                logger.warning("%s: %s", key, stored)
