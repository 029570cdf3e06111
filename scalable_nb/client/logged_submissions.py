"""Calls of the call log as submissions, and their stored results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from scalable_nb.cache.keys import own_result_key
from scalable_nb.cache.store import ResultStore
from scalable_nb.client.call_log import CallLog, RecordedTask
from scalable_nb.client.submission import PackedCall, SchedulingOptions, Submission
from scalable_nb.protocol.call import Call
from scalable_nb.protocol.messages import BatchMessage


def batch_members(log: CallLog) -> dict[str, list[Any]]:
    """Name -> keys, single submissions gathered by what they call."""
    members: dict[str, list[Any]] = {name: list(keys) for name, keys in log.members.items()}
    for task in log.tasks.values():
        if not task.batch.name:
            label = task.batch.task or task.batch.function_name
            members.setdefault(f"submit-{label}", []).append(task.key)
    return members


def find_stored(
    log: CallLog,
    tasks: Iterable[RecordedTask],
    results: Path,
    is_of_run: Callable[[RecordedTask], bool] = lambda task: True,
) -> dict[Any, tuple[str, PackedCall]]:
    """Results of recorded calls: key -> (folder, call with the key of the result).

    Parameters
    ----------
    log : CallLog
    tasks : iterable of RecordedTask
    results : Path
        Of the run, where its host wrote what was still wanted at its end.
    is_of_run : callable, optional
        Whether a cached result is no older one, which the task was to replace.
    """
    places: dict[Any, list[tuple[str, str]]] = {}  # (folder, key of the result), best first
    wanted: dict[str, set[str]] = {}
    for task in tasks:
        places[task.key] = [(str(results), own_result_key(task.key))]
        store = task.batch.wire.get("store")
        if store and task.result_key and is_of_run(task):
            places[task.key].insert(0, (store, task.result_key))
        for folder, result_key in places[task.key]:
            wanted.setdefault(folder, set()).add(result_key)
    there = {folder: ResultStore(Path(folder)).contained(keys) for folder, keys in wanted.items()}
    found = {}
    for key, each in places.items():
        for folder, result_key in each:
            if result_key in there[folder]:
                task = log.tasks[key]
                call = log.load_call(task, result_key) or Call(b"", b"", result_key)
                found[key] = folder, PackedCall(call, (), task.preview)
                break
    return found


def as_submission(task: RecordedTask, **changes: Any) -> Submission:
    """What the calls of a recorded batch have in common, to be submitted again."""
    batch = task.batch
    wire: Mapping[str, Any] = {**batch.wire, **changes}
    return Submission(
        batch=BatchMessage(
            batch_id=batch.batch_id,
            name=batch.name,
            function=batch.function_name,
            task=batch.task,
            component=wire.get("component") or batch.component,
            tag=batch.tag,
        ),
        wire=wire,
        scheduling=SchedulingOptions(**batch.placing),
        is_async=batch.is_async,
        identity=batch.identity,
    )
