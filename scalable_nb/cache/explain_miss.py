"""Why a call is not answered by what is kept: compared with the kept call that is nearest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scalable_nb.cache.function import CacheableFunction
from scalable_nb.cache.keys import CallKeys
from scalable_nb.cache.store import ResultStore, ResultStoreError, StoredResult
from scalable_nb.settings import load_settings


def why(
    func: Callable[..., Any],
    *args: Any,
    store: ResultStore | None = None,
    version: str | int | None = None,
    **kwargs: Any,
) -> str:
    """Say in words whether the result of a call is kept, and if not, what is different.

    Parameters
    ----------
    func : callable
        A `cacheable` function, or one of a task with ``cache: true``.
    *args, **kwargs
        Of the call.
    store : ResultStore, optional
        Where to look; otherwise where the function keeps its results.
    version : str or int, optional
        Of the manifest's task; a `cacheable` function knows its own.
    """
    if isinstance(func, CacheableFunction):
        keys = func.call_keys()
        store = store or func.store()
        given = func.convert(args, kwargs)
    else:
        keys = CallKeys(func, version=version)
        store = store or ResultStore(load_settings().cache_dir)
        given = args, kwargs
    key = keys.key(*given)
    call = keys.describe(*given)
    label = f"{call['function']}()"
    if store.contains(key):
        return f"the result of this call of {label} is kept: {store.path(key)}"
    others = [entry for entry in _entries(store) if entry.meta.get("function") == call["function"]]
    if not others:
        return f"no result of {label} is kept in {store.folder}"
    nearest = min(others, key=lambda entry: len(_differences(entry.meta, call)))
    differences = _differences(nearest.meta, call)
    return (
        f"no result of this call of {label} is kept; {len(others):,} of others are. Of the nearest "
        f"one differ: {', '.join(differences) or 'nothing that its file tells'}"
    )


def _differences(kept: Mapping[str, Any], call: Mapping[str, Any]) -> list[str]:
    found = []
    if kept.get("identity") != call["identity"]:
        found.append(_code_difference(kept.get("parts") or {}, call["parts"]))
    if kept.get("version") != call["version"]:
        found.append(
            f"the version ({kept.get('version')!r} was kept, {call['version']!r} is asked)"
        )
    arguments = kept.get("arguments") or {}
    return [*found, *(f"argument {name!r}" for name in _changed(arguments, call["arguments"]))]


def _code_difference(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    changed = [f"`{name}`" for name in _changed(then, now)]
    return f"the source of {' and '.join(changed) or 'the function'}"


def _changed(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]


def _entries(store: ResultStore) -> Sequence[StoredResult]:
    found = []
    for key in list(store.iter_keys()):
        try:
            found.append(store.meta(key))
        except (KeyError, ResultStoreError, OSError):
            continue  # gone, damaged or unreadable: nothing to compare with
    return found
