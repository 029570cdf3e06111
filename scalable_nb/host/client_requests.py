"""What kernels ask of the host: run again, hurry, give up, go on, tell, stop.

The functions are handlers on the scheduler; a client calls them with its `ask`.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Collection, Iterable
from time import time
from typing import TYPE_CHECKING, Any, Final

from dask._task_spec import Alias

from scalable_nb.dask_adapter.rerun_transitions import rerun
from scalable_nb.errors import TaskTimeoutError
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.protocol.call import Call
from scalable_nb.protocol.messages import ANNOTATION, CACHE_ANNOTATIONS
from scalable_nb.protocol.operations import COMPONENT_PREFIX
from scalable_nb.telemetry.ledger import Delta
from scalable_nb.telemetry.rows import TaskState
from scalable_nb.worker.attempt import run_async_attempt

if TYPE_CHECKING:
    from scalable_nb.host.tasks.tracker import TaskTracker

#: A reader gets a new delta at most this often.
DELTA_INTERVAL_S: Final = 0.25

#: How long a client's own messages may take that it had sent before it asked.
HEARD_WITHIN_S: Final = 5.0


class ClientRequests:
    """The handlers for kernels.

    Parameters
    ----------
    tracker : TaskTracker
        Its scheduler gets the handlers.
    """

    def __init__(self, tracker: TaskTracker) -> None:
        self._tracker = tracker
        self._scheduler = tracker.scheduler
        self._scheduler.stream_handlers["scalable-reopen"] = self.reopen
        self._scheduler.handlers.update(
            scalable_resubmit=self.resubmit,
            scalable_retry_now=self.retry_now,
            scalable_give_up=self.give_up,
            scalable_resume=tracker.breakers.resume,
            scalable_resume_batches=self.resume_batches,
            scalable_cancel=self.cancel,
            scalable_cancel_tasks=self.cancel_tasks,
            scalable_call=self.call,
            scalable_ledger=self.ledger_delta,
            scalable_flush=self.flush,
            scalable_status=self.status,
            scalable_stop=tracker.stop,
        )

    # --- run again -----------------------------------------------------------------

    def reopen(self, client: str, keys: Iterable[Any], terms: dict[str, Any]) -> None:
        """A client submitted calls again whose failed futures it still holds."""
        self.run_again({key: terms for key in keys if self.is_failed(key)})

    def resubmit(
        self, keys: Iterable[Any], changes: dict[str, Any], named: Collection[Any], dry_run: bool
    ) -> dict[str, list[Any]]:
        """Run failed tasks again under their own keys, with changed terms.

        Tasks that are not idempotent are left out unless they are ``named``. Answers the keys
        ``chosen`` and ``left_out``; ``dry_run`` does no more than that.
        """
        records = self._tracker.records
        failed = [key for key in keys if self.is_failed(key)]
        chosen = [key for key in failed if records[key].terms.idempotent or key in named]
        if not dry_run:
            self.run_again({key: {**records[key].terms.to_wire(), **changes} for key in chosen})
        return {"chosen": chosen, "left_out": [key for key in failed if key not in set(chosen)]}

    def is_failed(self, key: Any) -> bool:
        """Whether a task failed for good."""
        ts = self._scheduler.tasks.get(key)
        return key in self._tracker.records and ts is not None and ts.state == "erred"

    def run_again(self, wires: dict[Any, dict[str, Any] | None]) -> None:
        """Run failed tasks and their failed inputs again; None keeps a task's terms."""
        again = self._with_failed_inputs(wires)
        for key in again:
            tracked, ts = self._tracker.records[key], self._scheduler.tasks[key]
            terms, wire = tracked.terms, wires.get(key)
            if wire is not None and not tracked.is_native:
                terms = PolicyTerms.from_wire(wire)
                if wire.get("component"):
                    self._tracker.recorder.move(tracked, wire["component"])
                    self._tracker.placement.forget(key)
                annotations = ts.annotations or {}
                before = annotations.get(ANNOTATION, {})
                unchanged = {name: before[name] for name in CACHE_ANNOTATIONS if name in before}
                ts.annotations = {**annotations, ANNOTATION: {**unchanged, **wire}}
            self._tracker.recorder.reopen(tracked, terms)
            self._tracker.at_most_once.reset(key)
            ts.suspicious = 0
        if wires:
            rerun(self._scheduler, again)

    def _with_failed_inputs(self, keys: Iterable[Any]) -> list[Any]:
        # Dask retries the failed inputs of a task with it.
        found: dict[Any, None] = {}
        stack = list(keys)
        while stack:
            key = stack.pop()
            if key not in found and self.is_failed(key):
                found[key] = None
                stack += [dts.key for dts in self._scheduler.tasks[key].dependencies]
        return list(found)

    # --- between two attempts --------------------------------------------------------

    def retry_now(self, keys: Iterable[Any]) -> list[Any]:
        """End the waiting of tasks between two attempts; returns their keys."""
        waiting = [key for key in keys if self._is_waiting(key)]
        for key in waiting:
            self._tracker.parked.unpark(key)
        return waiting

    def give_up(self, keys: Iterable[Any]) -> list[Any]:
        """Let tasks between two attempts fail with their last error; returns their keys."""
        waiting = [key for key in keys if self._is_waiting(key)]
        for key in waiting:
            tracked = self._tracker.records[key]
            self._tracker.recorder.give_up(tracked)
            error = tracked.exception or TaskTimeoutError(f"{tracked.label} was given up")
            self._tracker.failures.fail(tracked, error)
        return waiting

    def _is_waiting(self, key: Any) -> bool:
        ts = self._scheduler.tasks.get(key)
        return self._tracker.parked.is_timed(key) and ts is not None and ts.state == "no-worker"

    # --- single tasks ----------------------------------------------------------------

    def cancel_tasks(self, keys: Iterable[Any]) -> list[Any]:
        """Cancel those of the tasks that are not done; returns their keys.

        Whoever wants them, also a kernel that is gone.
        """
        states = self._tracker.recorder.ledger.columns["state"]
        records = self._tracker.records
        doomed = [
            key
            for key in keys
            if key in records and not TaskState(states[records[key].row]).is_final
        ]
        self._tracker.leases.cancel(doomed, "a person cancelled it")
        return doomed

    def call(self, key: Any) -> dict[str, Any] | None:
        """What a task calls, as bytes that nobody here opens.

        None where it is forgotten, or is Dask's own and not a call of ours.
        """
        tracked, ts = self._tracker.records.get(key), self._scheduler.tasks.get(key)
        if tracked is None or tracked.is_native or ts is None or ts.run_spec is None:
            return None
        spec: Any = ts.run_spec
        (call,) = (part for part in spec.args if isinstance(part, Call))
        return {
            "label": tracked.label,
            "call": pickle.dumps(call),
            "inputs": [part.target for part in spec.args if isinstance(part, Alias)],
            "is_async": spec.func is run_async_attempt,
            "idempotent": tracked.terms.idempotent,
            "timeout_s": tracked.terms.timeout_s,
        }

    # --- whole batches ---------------------------------------------------------------

    def resume_batches(self, batches: Collection[str] | None) -> int:
        """Let the paused tasks of these batches go on, of all where None; returns how many."""
        return len(self._tracker.breakers.resume(self._unfinished(batches, only_paused=True)))

    def cancel(self, batches: Collection[str] | None, only_paused: bool) -> int:
        """Cancel what is not done of these batches, of all where None; returns how many.

        Whoever wants the tasks, also a kernel that is gone. What is done stays.
        """
        keys = self._unfinished(batches, only_paused=only_paused)
        self._tracker.leases.cancel(keys, "a person cancelled it")
        return len(keys)

    def _unfinished(self, batches: Collection[str] | None, *, only_paused: bool) -> list[Any]:
        tracker = self._tracker
        states = tracker.recorder.ledger.columns["state"]
        return [
            key
            for key, tracked in tracker.records.items()
            if (batches is None or tracked.batch.name in batches)
            and not TaskState(states[tracked.row]).is_final
            and (key in tracker.breakers or not only_paused)
        ]

    # --- tell ------------------------------------------------------------------------

    async def ledger_delta(
        self,
        ledger_id: str,
        since: int,
        wait_s: float,
        client: str = "",
        answered: int = 0,
    ) -> Delta | None:
        """What changed since a sequence number; waits for a change, None when there is none.

        What a client ``answered`` itself before it asks is in it: that came another way, and
        may be later.
        """
        ledger = self._tracker.recorder.ledger
        patience = time() + HEARD_WITHIN_S
        while self._tracker.answered[client] < answered and time() < patience:
            await asyncio.sleep(0.01)
        if ledger_id != ledger.ledger_id:
            since = 0
        deadline = time() + wait_s
        while not ledger.has_changed(since):
            if time() >= deadline:
                return None
            await asyncio.sleep(DELTA_INTERVAL_S)
        return ledger.delta(since)

    async def flush(self) -> None:
        """Bring the journal on disk up to date."""
        self._tracker.recorder.flush()

    def status(self) -> dict[str, Any]:
        """Workers, counts and notices, as plain values."""
        recorder = self._tracker.recorder
        return {
            "counts": recorder.ledger.count(),
            "notices": list(self._tracker.notices),
            "pauses": self._tracker.breakers.pauses(),
            "jobs": self._tracker.jobs(),
            "host_job": self._tracker.host_job(),
            "workers": [
                {
                    "name": recorder.worker_name(ws.address),
                    "address": ws.address,
                    "component": _component(ws.resources),
                    "state": "busy" if ws.processing else "idle",
                    "threads": ws.nthreads,
                    "memory_bytes": ws.metrics.get("memory", 0),
                    "memory_limit_bytes": ws.memory_limit,
                    "host": ws.host,
                }
                for ws in self._scheduler.workers.values()
            ],
        }


def _component(resources: Iterable[str]) -> str:
    """Whose worker it is, where a component has workers of its own."""
    found = [name for name in resources if name.startswith(COMPONENT_PREFIX)]
    return found[0].removeprefix(COMPONENT_PREFIX) if found else ""
