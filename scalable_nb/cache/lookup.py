"""Look up a stored result, or call the function and store what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from scalable_nb.cache.store import (
    ResultStore,
    ResultStoreError,
    StoredResult,
    UnsignedResultError,
)

T = TypeVar("T")


@dataclass(frozen=True)
class CallOutcome(Generic[T]):
    """The outcome of a call whose result is stored.

    Attributes
    ----------
    value : object
        The result.
    was_hit : bool
        Whether it was stored before, so that the function was not called.
    stored : StoredResult or None
        What was written, where something was.
    problem : str or None
        Why the result could not be looked up or stored, for the journal and the user.
    """

    value: T
    was_hit: bool
    stored: StoredResult | None = None
    problem: str | None = None


@dataclass(frozen=True)
class LookupResult(Generic[T]):
    """The outcome of looking up a key.

    Attributes
    ----------
    is_hit : bool
        Whether there was a result that can be read.
    value : object
        The result, where there was one.
    problem : str or None
        Why a result that is there cannot be used.
    is_unsigned : bool
        Whether that is because it is not signed.
    """

    is_hit: bool
    value: T | None = None
    problem: str | None = None
    is_unsigned: bool = False


def look_up(store: ResultStore, key: str) -> LookupResult[Any]:
    """Look up a stored result; return store errors instead of raising them."""
    try:
        return LookupResult(is_hit=True, value=store.get(key))
    except KeyError:
        return LookupResult(is_hit=False)
    except (ResultStoreError, OSError) as error:
        is_unsigned = isinstance(error, UnsignedResultError)
        return LookupResult(is_hit=False, problem=str(error), is_unsigned=is_unsigned)


def store_result(
    store: ResultStore,
    key: str,
    value: object,
    meta: Mapping[str, Any] | None = None,
    *,
    limit_bytes: int | None = None,
    tracks_files: bool = False,
) -> StoredResult | str:
    """Store a result; return the stored result, or the reason as text if that failed."""
    try:
        return store.put(key, value, meta=meta, limit_bytes=limit_bytes, tracks_files=tracks_files)
    except (ResultStoreError, OSError) as error:
        return str(error)


def cached_call(
    store: ResultStore,
    key: str,
    call: Callable[[], T],
    *,
    recompute: bool = False,
    meta: Callable[[], Mapping[str, Any]] | None = None,
) -> CallOutcome[T]:
    """Return the stored result of a key, or call and store the result.

    Errors of the store never fail the call: they are in ``problem``. If the call raises, the
    exception is raised and nothing is stored.

    Parameters
    ----------
    store : ResultStore
    key : str
        64 hex digits.
    call : callable
        Without arguments; called where there is no result that can be read.
    recompute : bool
        Call in any case, and store the new result in place of the old one.
    meta : callable, optional
        Returns the meta, see `ResultStore.put`; called only if a result is stored.
    """
    found: LookupResult[Any] = LookupResult(is_hit=False) if recompute else look_up(store, key)
    if found.is_hit:
        return CallOutcome(cast(T, found.value), was_hit=True)
    value = call()
    described = meta() if meta is not None else None
    stored = store_result(store, key, value, described, tracks_files=True)
    if isinstance(stored, StoredResult):
        return CallOutcome(value, was_hit=False, stored=stored, problem=found.problem)
    problems = filter(None, (found.problem, stored))
    return CallOutcome(value, was_hit=False, problem="; ".join(problems))
