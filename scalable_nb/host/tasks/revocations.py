"""Settle tasks that the scheduler revokes from a running worker.

If an input is lost with another worker, Dask revokes the tasks that need it and sends them again
later. It does not know whether a function had been called: the worker forgets the task, finishes
the call and drops the outcome (distributed 2026.8.0). So the host queries the worker, and parks
the task until the answer arrives. The answer is an exit report like that of
a nanny whose worker died.

The query is sent after the message to forget the task, on the same stream, so that the task
cannot start after the answer.
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
    """Queries workers about revoked tasks, and settles the tasks with the answers.

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
        # By worker and run id: the task, and why it was revoked.
        self._asked: dict[str, dict[int, tuple[TrackedTask, ExitCause]]] = {}

    def ask(self, tracked: TrackedTask) -> None:
        """Park a revoked task, and query its worker whether it had started."""
        ts = self._adapter.tasks[tracked.key]
        run_id = ts.run_id
        assert run_id is not None  # it was on a worker
        self._parked.park(tracked, None)
        is_for_input = any(dts.state != "memory" for dts in ts.dependencies)
        cause = ExitCause.INPUT if is_for_input else ExitCause.REVOKED
        self._asked.setdefault(tracked.worker, {})[run_id] = tracked, cause
        # Wait for the end of a non-idempotent call: its result is on disk then.
        query = RevocationQuery(tracked.key, run_id, until_ended=not tracked.terms.idempotent)
        message = stream_message(Operation.QUERY_REVOKED, query)
        # In the next turn of the loop: after the messages of this transition. If the worker is
        # lost until then, so is the task.
        self._adapter.call_soon(self._adapter.send_to_worker, tracked.worker, message)

    def answer(self, worker: str, answer: RevocationAnswer) -> None:
        """Settle a revoked task with the start and end of its attempt on the worker."""
        key, run_id, span = answer.key, answer.run_id, answer.span
        asked = self._asked.get(worker, {}).pop(run_id, None)
        ts = self._adapter.tasks.get(key)
        if asked is None or ts is None or ts.run_id != run_id:
            return  # cancelled meanwhile, and perhaps submitted again
        tracked, cause = asked
        report = ExitReport(cause, attempts={run_id: span} if span else {})
        self._losses.settle_revoked(tracked, worker, report)

    def of_lost(self, worker: str) -> list[TrackedTask]:
        """Return the tasks that a lost worker was queried about: its nanny reports on them."""
        return [tracked for tracked, _ in self._asked.pop(worker, {}).values()]
