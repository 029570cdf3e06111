"""Record tasks that did not come through `submit` and `map` of this package.

Those of collections (arrays, dataframes, `dask.delayed`), of actors and of a plain client, such
as the one that a task gets from `get_client`. Dask runs them by its own rules, its native
retries included; here they only get rows in the ledger and the journal, with the values that
the scheduler has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from distributed.protocol import pickle
from distributed.scheduler import TaskState as DaskTaskState

from scalable_nb.dask_adapter.scheduler import LONG_RUNNING, TASK_ERRED, SchedulerAdapter
from scalable_nb.faults.categories import BY_CLASS, Category
from scalable_nb.faults.classify import classify
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.faults.fingerprint import fingerprint
from scalable_nb.host.notices import Notices
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.tasks.task import FailedAttempt, TaskBatch, TrackedTask
from scalable_nb.host.tasks.task_registry import TaskRegistry, TaskStates
from scalable_nb.telemetry.rows import CANCELLED_BY_USER, RELEASED, TaskState

#: A graph may have millions of tasks, and a row of the ledger stays for the whole run. Beyond
#: this many, only tasks that fail are entered.
MAX_ROWS: Final = 50_000

_NO_RETRIES: Final = PolicyTerms()


class NativeTasks:
    """Enters native tasks, and handles events that only they have.

    Parameters
    ----------
    registry : TaskRegistry
    recorder : RunRecorder
    adapter : SchedulerAdapter
    states : TaskStates
    notices : Notices
    max_rows : int
        How many are entered whatever their outcome.
    """

    def __init__(
        self,
        registry: TaskRegistry,
        recorder: RunRecorder,
        adapter: SchedulerAdapter,
        states: TaskStates,
        notices: Notices,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self._registry = registry
        self._recorder = recorder
        self._ledger = recorder.ledger
        self._adapter = adapter
        self._states = states
        self._notices = notices
        self._max_rows = max_rows
        self._batches: dict[str, TaskBatch] = {}  # one per prefix of keys
        self._count = 0
        self._handle_erred = adapter.replace_stream_handler(TASK_ERRED, self._on_attempt_erred)
        self._handle_long_running = adapter.replace_stream_handler(
            LONG_RUNNING, self._on_long_running
        )

    def enter(self, keys: Iterable[Any]) -> None:
        """Enter those tasks of a graph that are new and have something to run."""
        registry, tasks = self._registry, self._adapter.tasks
        for key in keys:
            if key in registry:
                continue
            ts = tasks[key]
            if ts.state != "released" or ts.run_spec is None:
                continue  # data that is there, or a task from beyond the limit
            if self._count >= self._max_rows:
                self._report_limit()
                return
            self._open(ts)

    def enter_failed(self, key: Any) -> TrackedTask:
        """Enter a task from beyond the limit because it failed."""
        return self._open(self._adapter.tasks[key])

    def _open(self, ts: DaskTaskState) -> TrackedTask:
        self._count += 1
        prefix = ts.prefix.name
        batch = self._batches.get(prefix)
        if batch is None:
            batch = self._batches[prefix] = TaskBatch("", function=prefix)
        terms = PolicyTerms(retries=ts.retries) if ts.retries else _NO_RETRIES
        return self._registry.enter(ts.key, batch, terms)

    def _report_limit(self) -> None:
        if self._max_rows:
            self._max_rows = 0  # once
            self._notices.notify(
                f"more than {self._count:,} tasks of Dask collections: further ones run like all "
                "others, but only those that fail are entered in the table and the journal"
            )

    def report_error(self, tracked: TrackedTask, values: dict[str, Any]) -> None:
        """Record the last attempt of a task that failed without a report of its attempt.

        It is a native task, or could not be unpickled. The values are those of the transition.
        """
        failure = attempt_from_dask(values)
        self._recorder.end_attempt(tracked, failure, retry_in_s=None, is_final=True)

    # --- events of native tasks --------------------------------------------------------

    def on_released(self, tracked: TrackedTask) -> None:
        """Record that the scheduler released a task: it runs again, or is no longer needed."""
        ts = self._adapter.tasks[tracked.key]
        state = TaskState(self._ledger.columns["state"][tracked.row])
        if ts.waiters or ts.who_wants:
            if state is TaskState.RUNNING and not tracked.is_reported:
                self._recorder.abandon_attempt(tracked)
        elif not state.is_final:
            # Its neighbour failed, or it was cancelled while it ran.
            if tracked.is_cancelled:
                self._recorder.finish(tracked, TaskState.CANCELLED, reason=CANCELLED_BY_USER)
            else:
                self._recorder.finish(tracked, TaskState.NEVER_RAN, reason=RELEASED)

    def _on_attempt_erred(self, key: Any, worker: str, run_id: int, **message: Any) -> None:
        """Record a failed attempt; if retries are left, the scheduler calls no plugin."""
        tracked = self._registry.get(key)
        if tracked is not None and tracked.is_native:
            ts = self._adapter.tasks[key]
            if ts.state == "processing" and ts.run_id == run_id and ts.retries > 0:
                failure = attempt_from_dask({**message, "worker": worker})
                self._recorder.end_attempt(tracked, failure, retry_in_s=0.0, is_final=False)
        self._handle_erred(key=key, worker=worker, run_id=run_id, **message)

    def _on_long_running(self, key: Any, worker: str, **message: Any) -> None:
        """Record that a task left its worker's thread pool, which frees its thread."""
        self._handle_long_running(key=key, worker=worker, **message)
        tracked = self._registry.get(key)
        if tracked is not None and tracked.worker == worker:
            self._states.release_thread(tracked)


def attempt_from_dask(message: dict[str, Any]) -> FailedAttempt:
    """Return the failed attempt that the values of a transition to ``erred`` describe."""
    text = message.get("exception_text")
    error = message.get("exception")
    if not text and isinstance(error, bytes):  # the scheduler's own, such as KilledWorker
        own = pickle.loads(error)
        failure_class, text, category = type(own).__name__, str(own), classify(own)
        module = type(own).__module__
    else:
        text = text or ""
        failure_class = text.partition("(")[0] or "Exception"
        category = BY_CLASS.get(f"builtins.{failure_class}", Category.UNKNOWN)
        module = ""
    spans = [span for span in message.get("startstops") or () if span["action"] == "compute"]
    return FailedAttempt(
        failure_class=failure_class,
        message=text,
        category=str(category),
        fingerprint=fingerprint(failure_class, text, ()),
        error_module=module,
        traceback=message.get("traceback_text") or "",
        started_at=spans[-1]["start"] if spans else None,
        duration_s=spans[-1]["stop"] - spans[-1]["start"] if spans else None,
        worker=message.get("worker") or "",
    )
