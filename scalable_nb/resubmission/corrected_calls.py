"""Recorded calls whose code changed: find them, or call corrected functions instead."""

from __future__ import annotations

import pickle
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from dask.utils import funcname
from distributed import Future

from scalable_nb.cache.function import CacheableFunction
from scalable_nb.cache.hashing.function_identity import identity_of
from scalable_nb.cache.hashing.value_writers import NotEncodableError
from scalable_nb.client.call_log import CallLog, RecordedBatch, RecordedTask
from scalable_nb.client.call_options import CallOptions
from scalable_nb.client.client import ScalableClient
from scalable_nb.client.submission import Prepared, SchedulingOptions
from scalable_nb.errors import SubmitError
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.faults.policy import TaskPolicy
from scalable_nb.protocol.annotations import STORAGE_ENTRIES
from scalable_nb.resubmission.overrides import Overrides


def submit_corrected(
    client: ScalableClient,
    call_log: CallLog,
    tasks: Iterable[RecordedTask],
    overrides: Overrides,
    inputs: Mapping[Any, Future[Any]],
) -> dict[Any, Future[Any]]:
    """Call ``overrides.func`` with the arguments of recorded tasks.

    Parameters
    ----------
    client : ScalableClient
        Where the new tasks run.
    call_log : CallLog
    tasks : iterable of RecordedTask
    overrides : Overrides
    inputs : mapping
        Key in the call log -> future whose result is taken.

    Returns
    -------
    dict
        Key in the call log -> the new future.
    """
    assert overrides.func is not None
    by_batch: dict[str, list[RecordedTask]] = {}
    for task in tasks:
        by_batch.setdefault(task.batch.batch_id, []).append(task)
    new: dict[Any, Future[Any]] = {}
    for group in by_batch.values():
        batch = group[0].batch
        options = _options(client, batch, overrides)
        # A task of this very submission may take the result of another one.
        known = {**inputs, **new}
        calls = {}
        for number, task in enumerate(group):
            call = call_log.load_call(task, "")
            if call is None:
                raise SubmitError(f"the recorded arguments of {task.key} are gone or damaged")
            args, kwargs = call.load_arguments([known[key] for key in task.input_keys])
            key = f"{funcname(overrides.func)}-{uuid.uuid4().hex}-{number}"
            calls[key] = Prepared(args, kwargs)
        scheduling = SchedulingOptions(**batch.placing)
        futures = client.submit_calls(overrides.func, options, calls, scheduling, name=batch.name)
        new.update(zip((task.key for task in group), futures, strict=True))
    return new


def _options(client: ScalableClient, batch: RecordedBatch, overrides: Overrides) -> CallOptions:
    """On the terms of the recorded call, but for what is to change."""
    assert overrides.func is not None
    manifest = client.context.manifest
    wire = overrides.wire(manifest)
    component = wire.pop("component", batch.component)
    terms = PolicyTerms.from_wire({**batch.wire, **wire})
    options = CallOptions.resolve(
        client.context,
        overrides.func,
        tag=component if component in manifest.components else None,
        task=batch.task if batch.task in manifest.tasks else None,
        policy=TaskPolicy(idempotent=terms.idempotent),
        is_named="keep_limit" in batch.wire,
    )
    unchanged: dict[str, Any] = {
        name: options.wire[name] for name in STORAGE_ENTRIES if name in options.wire
    }
    return replace(options, wire={**unchanged, **terms.to_wire()})


def changed_functions(tasks: Iterable[RecordedTask]) -> dict[str, str]:
    """What to say of functions that are not what was recorded any more.

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
                f"{name}() has changed since: the recorded code runs; func={name} runs the new one"
            )
    return notices


def _current_identity(task: RecordedTask) -> str:
    """Digest of what has the recorded function's name now; empty where nothing has."""
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
