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
        name = batch.function_name
        now = _current_identity(task)
        if now and now != batch.identity:
            notices[name] = (
                f"`{name}` has changed since, and runs as it was recorded; "
                f"`func={name}` (`--func {name}`) uses the new code"
            )
    return notices


def _current_identity(task: RecordedTask) -> str:
    """Return the digest of the current function of that name; empty if it does not exist."""
    function = _current_function(task)
    try:
        if isinstance(function, CacheableFunction):
            return function.call_keys().identity.hex()
        return identity_of(function).hex() if callable(function) else ""
    except (NotEncodableError, OSError):
        return ""


def _current_function(task: RecordedTask) -> Any:
    """The function of the notebook, or of a module that was imported, by the recorded name."""
    notebook = vars(sys.modules["__main__"])
    name = task.batch.function_name
    if name in notebook or not task.function:
        return notebook.get(name)
    try:
        recorded = pickle.loads(task.function)
    except Exception:  # noqa: BLE001 - what it needs may be gone, and then nothing has its name
        return None
    owner = getattr(recorded, "__self__", None)  # a cacheable one is recorded as its `compute`
    recorded = owner if isinstance(owner, CacheableFunction) else recorded
    module = sys.modules.get(str(getattr(recorded, "__module__", "")))
    return getattr(module, name, None)
