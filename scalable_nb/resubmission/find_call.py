"""A failed call once more, here: found in its live session, or in what a run has recorded."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scalable_nb.errors import SubmitError
from scalable_nb.faults.categories import Category
from scalable_nb.protocol.call import Call
from scalable_nb.resubmission.failed_call import FailedCall, Reproduction
from scalable_nb.telemetry.journal_reader import read_task_rows
from scalable_nb.telemetry.rows import key_text

if TYPE_CHECKING:
    from distributed import Future

    from scalable_nb.client.call_log import CallLog
    from scalable_nb.paths import RunPaths
    from scalable_nb.session.session import ScalableSession

#: What a call that ended so would do to the process that makes it.
DANGEROUS: Final = frozenset({Category.INFRASTRUCTURE, Category.RESOURCE, Category.TIMEOUT})


def reproduce(future: Future[Any]) -> Reproduction:
    """Call a task's function with the same arguments here.

    Parameters
    ----------
    future : Future
        Of a task that failed, or waits for its next attempt.

    Raises
    ------
    SubmitError
        When the task is not idempotent, or its call is not at hand any more.
    """
    client: Any = future.client
    return call_of_session(client.session, key_text(future.key), future.key).run()


def call_of_session(session: ScalableSession, task_id: str, key: Any = None) -> FailedCall:
    """Fetch a failed call from the host.

    Parameters
    ----------
    session : ScalableSession
    task_id : str
        The task's key as text.
    key : object, optional
        The key itself, where that is not a text.

    Raises
    ------
    SubmitError
        As `reproduce`.
    """
    found = session.client.call_of(task_id if key is None else key)
    if found is None:
        raise SubmitError(
            f"the host has no call of {task_id!r}: nobody wants its result any more, or it did "
            "not come through `client.submit` or `client.map`. Submit it again, or call the "
            "function yourself"
        )
    _check_idempotent(found.label, found.idempotent)
    call: Call = pickle.loads(found.call)  # made by our own host, over TLS
    rows = [row for row in session.failures() if row.get("task_id") == task_id]
    return _failed_call(
        found.label,
        call,
        _results_of(session, found.inputs),
        rows,
        is_async=found.is_async,
        timeout_s=found.timeout_s,
    )


def call_of_run(run: RunPaths, task_id: str) -> FailedCall:
    """Read a failed call from what its run has recorded.

    Parameters
    ----------
    run : RunPaths
    task_id : str
        The task's key as text.

    Raises
    ------
    SubmitError
        As `reproduce`; also if a result that it takes was not stored.
    RunFolderError
        When others could have written the record: what is in it would be run.
    """
    from scalable_nb.client.call_log import read_call_log

    call_log = read_call_log(run.calls)
    call_log.require_signed()
    task = next((task for key, task in call_log.tasks.items() if key_text(key) == task_id), None)
    call = call_log.load_call(task, "") if task is not None else None
    if task is None or call is None:
        raise SubmitError(
            f"run {run.run_id} has no record of the call of {task_id!r}: it did not come through "
            "`client.submit` or `client.map`, or its arguments were not to be recorded. Call the "
            "function yourself"
        )
    label, terms = f"{task.batch.function_name}({task.preview})", task.batch.wire
    _check_idempotent(label, terms.get("idempotent", True))
    return _failed_call(
        label,
        call,
        [_stored_result(call_log, key, run.results) for key in task.input_keys],
        read_task_rows(run.failures, task_id),
        is_async=task.batch.is_async,
        timeout_s=terms.get("timeout_s"),
    )


def _check_idempotent(label: str, is_idempotent: bool) -> None:
    if not is_idempotent:
        raise SubmitError(
            f"{label} is not idempotent: calling it again could do its work twice, so it "
            "is not reproduced. Call the function yourself where you know better"
        )


def _failed_call(
    label: str, call: Call, inputs: Sequence[Any], rows: Sequence[Mapping[str, Any]], **terms: Any
) -> FailedCall:
    last = rows[-1] if rows else {}
    return FailedCall(
        label,
        call,
        inputs,
        memory_limit_bytes=last.get("memory_limit_bytes"),
        needs_child=last.get("category") in DANGEROUS,
        **terms,
    )


def _results_of(session: ScalableSession, keys: Sequence[Any]) -> list[Any]:
    held = session.client.futures
    missing = [key for key in keys if key not in held or held[key].status != "finished"]
    if missing:
        raise SubmitError(
            f"the call takes the result of {missing[0]!r}, which is not at hand; expected a "
            "future of it in this notebook that has succeeded"
        )
    from distributed import Future

    return list(session.client.gather([Future(key, session.client) for key in keys]))


def _stored_result(call_log: CallLog, key: Any, results: Path) -> Any:
    from scalable_nb.cache.lookup import look_up
    from scalable_nb.cache.store import ResultStore
    from scalable_nb.client.submission import find_stored

    tasks = [call_log.tasks[key]] if key in call_log.tasks else []
    for folder, packed in find_stored(call_log, tasks, results).values():
        found = look_up(ResultStore(Path(folder)), packed.call.result_key)
        if found.is_hit:
            return found.value
    raise SubmitError(
        f"the call takes the result of {key_text(key)!r}, which was not kept; "
        '`resubmit(run="last")` computes it again'
    )
