"""Find recorded functions that have changed since."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable
from typing import Any

from scalable_nb.cache.function import CacheableFunction
from scalable_nb.cache.hashing.function_identity import identity_of
from scalable_nb.cache.hashing.value_writers import NotEncodableError
from scalable_nb.client.call_log import RecordedTask


def changed_functions(tasks: Iterable[RecordedTask]) -> dict[str, str]:
    """Return notices about functions that differ from the recorded ones.

    Parameters
    ----------
    tasks : iterable of RecordedTask
        That are to run as they were recorded.

    Returns
    -------
    dict
        Name of a function -> a sentence; nothing for a function that this process has not.
    """
    notices: dict[str, str] = {}
    seen: set[str] = set()
    for task in tasks:
        batch = task.batch
        if batch.batch_id in seen or not batch.identity:
            continue
        seen.add(batch.batch_id)
        if _has_changed(task):
            name = batch.function_name
            notices[name] = (
                f"`{name}` has changed since, and runs as it was recorded; "
                f"`func={name}` (`--func {name}`) uses the new code"
            )
    return notices


def _has_changed(task: RecordedTask) -> bool:
    """Return whether a task, as it was recorded, runs other code than a call would run now.

    Modules whose sources were recorded are part of the code. Other modules, such as one that did
    not exist then, are imported as they are now.
    """
    now = _identity(_current_function(task))
    if not now or now == task.batch.identity:
        return False
    modules, _ = task.modules
    return bool(modules) or _identity(_recorded_function(task)) != now


def _identity(function: Any) -> str:
    """Return the digest of a function; empty if it cannot be computed."""
    try:
        if isinstance(function, CacheableFunction):
            return function.call_keys().identity.hex()
        return identity_of(function).hex() if callable(function) else ""
    except (NotEncodableError, OSError):
        return ""


def _recorded_function(task: RecordedTask) -> Any:
    """Return the function as it was recorded; None if it cannot be loaded here."""
    try:
        recorded = pickle.loads(task.function) if task.function else None
    except Exception:  # noqa: BLE001 - what it needs may be gone, and then nothing has its name
        return None
    owner = getattr(recorded, "__self__", None)  # a cacheable one is recorded as its `compute`
    return owner if isinstance(owner, CacheableFunction) else recorded


def _current_function(task: RecordedTask) -> Any:
    """Return the function of that name in the notebook, or in the module of the recorded one."""
    name, notebook = task.batch.function_name, vars(sys.modules["__main__"])
    if name in notebook:
        return notebook[name]
    module = sys.modules.get(str(getattr(_recorded_function(task), "__module__", "")))
    return getattr(module, name, None) if module is not None else None
