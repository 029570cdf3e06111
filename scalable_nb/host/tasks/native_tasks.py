"""Tasks that did not come through `submit` and `map` of ours.

Those of collections (arrays, dataframes, `dask.delayed`), of actors and of a plain client, such
as the one that a task gets from `get_client`. Dask runs them by its own rules, its native
retries included; here they only get their place in the ledger and the journal, with what the
scheduler knows of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from distributed import scheduler as dask_scheduler
from distributed.protocol import pickle

from scalable_nb.faults.categories import BY_CLASS, Category
from scalable_nb.faults.classify import classify
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.faults.fingerprint import fingerprint
from scalable_nb.host.tasks.task import FailedAttempt, TaskBatch, TrackedTask
from scalable_nb.telemetry.rows import TaskState

if TYPE_CHECKING:
    from scalable_nb.host.tasks.tracker import TaskTracker

#: A graph may have millions of tasks, and a row of the ledger stays for the whole run. Beyond
#: this many, only tasks that fail are entered.
MAX_ROWS: Final = 50_000

_NO_RETRIES: Final = PolicyTerms()


class NativeTasks:
    """Enters tasks that are not ours and follows where they differ.

    Parameters
    ----------
    tracker : TaskTracker
    max_rows : int
        How many are entered whatever becomes of them.
    """

    def __init__(self, tracker: TaskTracker, max_rows: int = MAX_ROWS) -> None:
        self._tracker = tracker
        self._max_rows = max_rows
        self._batches: dict[str, TaskBatch] = {}  # one per prefix of keys
        self._count = 0
        handlers = tracker.scheduler.stream_handlers
        self._handle_erred = handlers["task-erred"]
        self._handle_long_running = handlers["long-running"]
        handlers["task-erred"] = self._on_attempt_erred
        handlers["long-running"] = self._on_long_running

    def enter(self, keys: Iterable[Any]) -> None:
        """Enter those tasks of a graph that are new and have something to run."""
        records, tasks = self._tracker.records, self._tracker.scheduler.tasks
        for key in keys:
            if key in records:
                continue
            ts = tasks[key]
            if ts.state != "released" or ts.run_spec is None:
                continue  # data that is there, or a task from beyond the limit
            if self._count >= self._max_rows:
                self._tell_limit()
                return
            self._open(ts)

    def enter_failed(self, key: Any) -> TrackedTask:
        """Enter a task from beyond the limit because it failed."""
        return self._open(self._tracker.scheduler.tasks[key])

    def _open(self, ts: dask_scheduler.TaskState) -> TrackedTask:
        self._count += 1
        prefix = ts.prefix.name
        batch = self._batches.get(prefix)
        if batch is None:
            batch = self._batches[prefix] = TaskBatch("", function=prefix)
        terms = PolicyTerms(retries=ts.retries) if ts.retries else _NO_RETRIES
        tracked = self._tracker.records[ts.key] = self._tracker.recorder.open(ts.key, batch, terms)
        return tracked

    def _tell_limit(self) -> None:
        if self._max_rows:
            self._max_rows = 0  # once
            self._tracker.notify(
                f"more than {self._count:,} tasks of Dask collections: further ones run like all "
                "others, but only those that fail are entered in the table and the journal"
            )

    # --- where they differ -------------------------------------------------------------

    def on_released(self, tracked: TrackedTask, start: str) -> None:
        """The scheduler took a task back: it runs again, or nobody needs it any more."""
        ts = self._tracker.scheduler.tasks[tracked.key]
        recorder = self._tracker.recorder
        state = TaskState(recorder.ledger.columns["state"][tracked.row])
        if ts.waiters or ts.who_wants:
            if state is TaskState.RUNNING and not tracked.is_reported:
                recorder.abandon_attempt(tracked)
        elif not state.is_final:
            # Its neighbour failed, or it was cancelled while it ran.
            tracked.reason = "nothing needs its result any more"
            recorder.finish(tracked, TaskState.CANCELLED)

    def _on_attempt_erred(self, key: Any, worker: str, run_id: int, **message: Any) -> None:
        """A worker says that an attempt failed; with retries left no plugin hears of it."""
        tracked = self._tracker.records.get(key)
        if tracked is not None and tracked.is_native:
            ts = self._tracker.scheduler.tasks[key]
            if ts.state == "processing" and ts.run_id == run_id and ts.retries > 0:
                failure = attempt_from_dask({**message, "worker": worker})
                self._tracker.recorder.end_attempt(tracked, failure, retry_in_s=0.0, is_final=False)
        self._handle_erred(key=key, worker=worker, run_id=run_id, **message)

    def _on_long_running(self, key: Any, worker: str, **message: Any) -> None:
        """A task left its worker's thread pool: another one has its thread now."""
        self._handle_long_running(key=key, worker=worker, **message)
        tracked = self._tracker.records.get(key)
        if tracked is not None and tracked.worker == worker:
            self._tracker.release_thread(tracked)


def attempt_from_dask(message: dict[str, Any]) -> FailedAttempt:
    """A failed attempt as the scheduler knows it, from the values of a transition to ``erred``."""
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
