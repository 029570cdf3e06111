"""Tasks that the scheduler takes back from a worker that lives.

When an input is lost with another worker, Dask takes back what was sent out to use it, and sends
it again later. It does not know whether the function had been called: the worker is told to
forget the task, finishes what it executes, and drops the outcome (distributed 2026.8.0). So the
worker is asked. Until its answer is there the task is held, and the answer is what its nanny
would say if it had died.

Both ends of the question are here. It is sent after the order to forget, on the same stream, so
that the task cannot begin after the answer.
"""

from __future__ import annotations

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.host.tasks.parked_tasks import ParkedTasks
from scalable_nb.host.tasks.task import TrackedTask
from scalable_nb.host.tasks.worker_losses import WorkerLosses
from scalable_nb.protocol.exit_report import ExitCause, ExitReport
from scalable_nb.protocol.messages import RevocationAnswer, RevocationQuery
from scalable_nb.protocol.operations import Operation
from scalable_nb.protocol.wire import stream_message


class Revocations:
    """The scheduler's end.

    Parameters
    ----------
    adapter : SchedulerAdapter
    parked : ParkedTasks
    losses : WorkerLosses
    """

    def __init__(
        self, adapter: SchedulerAdapter, parked: ParkedTasks, losses: WorkerLosses
    ) -> None:
        self._adapter = adapter
        self._parked = parked
        self._losses = losses
        # By worker and number of the run: the task, and why it was taken back.
        self._asked: dict[str, dict[int, tuple[TrackedTask, ExitCause]]] = {}

    def ask(self, tracked: TrackedTask) -> None:
        """A task of ours was taken back that runs again: hold it until its worker has told."""
        ts = self._adapter.tasks[tracked.key]
        run_id = ts.run_id
        assert run_id is not None  # it was on a worker
        self._parked.park(tracked, None)
        is_for_input = any(dts.state != "memory" for dts in ts.dependencies)
        cause = ExitCause.INPUT if is_for_input else ExitCause.REVOKED
        self._asked.setdefault(tracked.worker, {})[run_id] = tracked, cause
        # At its end the result of one that is not idempotent is on disk, and it need not fail.
        query = RevocationQuery(tracked.key, run_id, until_ended=not tracked.terms.idempotent)
        message = stream_message(Operation.QUERY_REVOKED, query)
        # In the next turn of the loop: after what this transition itself tells the worker. If the
        # worker is lost until then, so is the task.
        self._adapter.call_soon(self._adapter.send_to_worker, tracked.worker, message)

    def answer(self, worker: str, answer: RevocationAnswer) -> None:
        """A worker tells when it began an attempt and when that ended, if it did."""
        key, run_id, span = answer.key, answer.run_id, answer.span
        asked = self._asked.get(worker, {}).pop(run_id, None)
        ts = self._adapter.tasks.get(key)
        if asked is None or ts is None or ts.run_id != run_id:
            return  # cancelled meanwhile, and perhaps submitted again
        tracked, cause = asked
        report = ExitReport(cause, attempts={run_id: span} if span else {})
        self._losses.settle_revoked(tracked, worker, report)

    def of_lost(self, worker: str) -> list[TrackedTask]:
        """The worker is gone: what it was asked about its nanny tells."""
        return [tracked for tracked, _ in self._asked.pop(worker, {}).values()]
