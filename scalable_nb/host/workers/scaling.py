"""Keeps the workers that are wanted, kind by kind: grows, shrinks, heals."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from time import time
from typing import TYPE_CHECKING, Final

from scalable_nb.batch_system.walltime import leaves_at_s
from scalable_nb.errors import StartError
from scalable_nb.host.workers.demand import Durations, runnable_by_component
from scalable_nb.host.workers.larger_workers import LargerWorkers
from scalable_nb.host.workers.replacement import ReplacementLimits, WorkerReplacement
from scalable_nb.host.workers.retirement import GracefulRetirement
from scalable_nb.protocol.messages import (
    AdaptRequest,
    JobBegan,
    LeaveReply,
    ScaleRequest,
    WorkerCounts,
    WorkerExited,
    WorkerMessage,
)
from scalable_nb.protocol.operations import Operation
from scalable_nb.protocol.wire import answering
from scalable_nb.targets.desired_workers import DesiredWorkers, Limits
from scalable_nb.targets.fleet import Fleet, WorkerGroup, WorkerKind

if TYPE_CHECKING:
    from scalable_nb.host.final_flush import FlushReport
    from scalable_nb.host.tasks.task import TaskBatch
    from scalable_nb.host.tasks.tracker import TaskTracker
    from scalable_nb.host.workers.job_monitor import JobMonitor

logger = logging.getLogger(__name__)

_INTERVAL_S: Final = 0.5

#: A worker with the only copy of a result stays as long as its walltime allows.
_LAST_CALL_S: Final = 5.0


class Scaling:
    """Compares what is wanted with what there is, twice a second.

    Parameters
    ----------
    tracker : TaskTracker
    fleet : Fleet
    desired : dict of str to DesiredWorkers
        By kind.
    rules : ReplacementLimits
        Of replacing.
    """

    def __init__(
        self,
        tracker: TaskTracker,
        fleet: Fleet,
        desired: dict[str, DesiredWorkers],
        rules: ReplacementLimits,
    ) -> None:
        self.fleet = fleet
        self.desired = desired
        self.replacement = WorkerReplacement(tracker, fleet, rules)
        self.retirement = GracefulRetirement(tracker)
        self._durations = Durations(tracker)
        LargerWorkers(tracker, fleet, self._add_kind)
        #: Follows the jobs of a batch system.
        self.watch: JobMonitor | None = None
        #: Writes what is still wanted and only in the memory of workers; says what was written.
        self.keep_results: Callable[[], Awaitable[FlushReport | None]] | None = None
        tracker.on_batch = self._expect
        self._tracker = tracker
        self._ending: dict[str, asyncio.Task[bool]] = {}
        self._lock = asyncio.Lock()
        tracker.scheduler.handlers |= {
            Operation.SCALE: answering(ScaleRequest, self.scale),
            Operation.ADAPT: answering(AdaptRequest, self.adapt),
            Operation.JOB_BEGAN: answering(JobBegan, self.job_began),
            Operation.WORKER_LEAVES: answering(WorkerExited, self.worker_leaves),
            Operation.WORKER_HANDS_OVER: answering(WorkerMessage, self.worker_hands_over),
        }

    def _add_kind(self, kind: WorkerKind, desired: DesiredWorkers) -> None:
        self.desired[kind.name] = desired

    async def begin(self) -> None:
        """Ask for one worker of each kind that is wanted; the others follow.

        Raises
        ------
        StartError
            When one could not even be asked for.
        """
        first = [self.fleet.kinds[name] for name, desired in self.desired.items() if desired.count]
        for kind in first:
            for entry in await self._open(kind, 1):
                if self.fleet.how_ended(entry) is not None:
                    raise StartError(
                        f"the first job of component {kind.name!r} could not be submitted.\n"
                        f"{self.fleet.last_words(entry)}\n"
                        "`%scalable plan` shows what is submitted; mend the target in "
                        "scalable.yaml and start again."
                    )

    async def run(self) -> None:
        """Compare and mend, until cancelled."""
        while True:
            try:
                await self._compare()
            except Exception:
                # A command of the batch system may be there again later; whatever else it was,
                # a session must not go on without anybody who replaces what is lost.
                logger.exception("the workers could not be looked after")
            await asyncio.sleep(_INTERVAL_S)

    # --- what people ask for ------------------------------------------------------------

    async def scale(self, request: ScaleRequest) -> WorkerCounts:
        """Want so many workers of a component, or of all together; returns how many of each."""
        names = self._names(request.component)
        left = request.count
        for number, name in enumerate(names):
            share = -(-left // (len(names) - number))
            left -= share
            self.desired[name] = DesiredWorkers(share)
            self.replacement.begin_anew(self.fleet.kinds[name])
        return await self._wanted(names)

    async def adapt(self, request: AdaptRequest) -> WorkerCounts:
        """Let the work decide, within limits that hold for each component."""
        names = self._names(request.component)
        for name in names:
            limits = Limits(request.minimum, request.maximum)
            count = limits.fit(self.desired[name].count, 1)
            self.desired[name] = DesiredWorkers(count, limits)
            self.replacement.begin_anew(self.fleet.kinds[name])
        return await self._wanted(names)

    def _names(self, component: str | None) -> list[str]:
        return [component] if component is not None else list(self.desired)

    async def _wanted(self, names: list[str]) -> WorkerCounts:
        await self._compare()
        return WorkerCounts({name: self.desired[name].count for name in names})

    # --- what is done about it ------------------------------------------------------------

    async def _compare(self) -> None:
        async with self._lock:
            await self.fleet.look()
            self.fleet.observe()
            if self.watch is not None:
                await self.watch.observe()
            self.replacement.count()
            await self.fleet.drop([entry.name for entry in self.replacement.find_ended()])
            for kind, stand_in in self.replacement.find_unavailable():
                await self._stand_in(kind, stand_in)
            self._adapt()
            self._let_go_in_time()
            for kind in list(self.fleet.kinds.values()):
                await self._match(kind)
            await self._see_off()

    def _adapt(self) -> None:
        adaptive = [name for name, desired in self.desired.items() if desired.limits is not None]
        if not adaptive:
            return
        tasks = dict.fromkeys(self.fleet.kinds, 0)
        placement = self._tracker.placement
        anybodys = next(iter(self.fleet.kinds))
        for component, count in runnable_by_component(self._tracker).items():
            kind = placement.kind_of(component)
            tasks[kind if kind in tasks else anybodys] += count
        for component, kind in placement.detours():
            tasks[placement.kind_of(component) or anybodys] -= 1
            tasks[kind] += 1
        for name in adaptive:
            self.desired[name].adapt(tasks[name], self.fleet.kinds[name].threads, time())

    def _let_go_in_time(self) -> None:
        """Workers whose walltime is nearly over take no more tasks; others take their place."""
        for entry in self.fleet.entries.values():
            kind, remaining_s = entry.kind, entry.remaining_s
            if entry.is_leaving or remaining_s is None or kind.walltime_s is None:
                continue
            is_replaceable = self.replacement.may_open(kind) or len(self.fleet.of_kind(kind)) > 1
            needed_s = self._durations.needed_s(kind.name) if is_replaceable else 0.0
            if remaining_s < leaves_at_s(kind.walltime_s, needed_s, entry.number):
                entry.leaves_because = "walltime"
                logger.info("%s has %.0f s left and takes no more tasks", entry.name, remaining_s)

    def _expect(self, batch: TaskBatch, limit_s: float | None) -> None:
        """Tasks arrive: a worker with less time left than their limit is not to begin them."""
        if limit_s is not None and self._durations.expect(batch.component, limit_s):
            self._let_go_in_time()
            for entry in self.fleet.entries.values():
                if entry.leaves_because == "walltime" and entry.name not in self._ending:
                    for address in self._addresses(entry):
                        self.retirement.begin(address)

    async def _match(self, kind: WorkerKind) -> None:
        entries = self.fleet.of_kind(kind)
        wanted = (
            0 if self.replacement.is_spent else -(-self.desired[kind.name].count // kind.workers)
        )
        if wanted > len(entries) and self.replacement.may_open(kind):
            await self._open(kind, wanted - len(entries))
        elif wanted < len(entries):
            await self._dismiss(sorted(entries, key=self._load)[: len(entries) - wanted])

    async def _open(self, kind: WorkerKind, count: int) -> list[WorkerGroup]:
        entries = await self.fleet.open(kind, count)
        for entry in entries:
            if entry.job_id is not None:
                self._tracker.recorder.job_submitted(entry.job_id, entry.name, kind.name)
        return entries

    def _load(self, entry: WorkerGroup) -> tuple[bool, int, float]:
        """Who goes first: the one that has not come yet, else the one with the least to do."""
        workers = self._tracker.scheduler.workers
        tasks = sum(len(workers[address].processing) for address in self._addresses(entry))
        return entry.is_connected, tasks, -entry.asked_at

    def _addresses(self, entry: WorkerGroup) -> list[str]:
        known = self._tracker.scheduler.aliases
        return [known[name] for name in entry.worker_names if name in known]

    async def _dismiss(self, entries: Iterable[WorkerGroup]) -> None:
        pending = []
        for entry in entries:
            entry.leaves_because = "scaling"
            if not entry.is_connected:
                pending.append(entry.name)
        await self.fleet.drop(pending)

    async def _see_off(self) -> None:
        """Let those that are to go finish, and end them when they have."""
        gone = []
        for entry in [e for e in self.fleet.entries.values() if e.is_leaving]:
            addresses = self._addresses(entry)
            ending = self._ending.get(entry.name)
            if ending is None:
                for address in addresses:
                    self.retirement.begin(address)
                if all(map(self.retirement.is_idle, addresses)):
                    self._ending[entry.name] = asyncio.create_task(self.retirement.end(addresses))
            elif ending.done():
                del self._ending[entry.name]
                if ending.result():
                    gone.append(entry.name)
                elif self._goes_anyway(entry):
                    await self._save_results(entry)
                    gone.append(entry.name)
                elif not entry.is_leaving:
                    for address in addresses:
                        self.retirement.call_off(address)
        await self.fleet.drop(gone)

    def _goes_anyway(self, entry: WorkerGroup) -> bool:
        """Whether an idle worker ends although it has results that no other one could take."""
        is_out_of_time = entry.remaining_s is not None and entry.remaining_s < _LAST_CALL_S
        is_adaptive = self.desired[entry.kind.name].limits is not None
        if entry.leaves_because == "walltime" and not is_out_of_time:
            return False  # the worker that comes in its place may take them
        if is_adaptive and not is_out_of_time and not self.replacement.is_spent:
            # Nobody asked for this one to go.
            entry.leaves_because = ""
            self.desired[entry.kind.name].count += 1
            return False
        return True

    async def _save_results(self, entry: WorkerGroup) -> None:
        saved = await self.keep_results() if self.keep_results is not None else None
        self._tracker.notify(
            f"{entry.name} was the last worker"
            + (f": {saved}, where `resubmit` finds them in another session. " if saved else ". ")
            + "In this one they are computed again when they are asked for."
        )

    async def _stand_in(self, kind: WorkerKind, stand_in: WorkerKind) -> None:
        self._tracker.placement.redirect(kind.name, stand_in.name)
        self.desired[stand_in.name].count += self.desired[kind.name].count
        self.desired[kind.name] = DesiredWorkers(0)
        await self._dismiss(self.fleet.of_kind(kind))

    # --- what jobs tell -------------------------------------------------------------------

    def job_began(self, message: JobBegan) -> None:
        """A nanny says how long ago its job began."""
        entry = self.fleet.entry_of(message.name)
        if entry is not None:
            entry.job_began_at = time() - message.age_s

    def worker_leaves(self, message: WorkerExited) -> LeaveReply:
        """The batch system ends a worker's job; says whether its tasks may finish."""
        if self._tracker.stop_requested.is_set():
            return LeaveReply(may_finish=False)
        # What is still executing when the job ends is known from now on, whatever follows.
        self._tracker.losses.report(message)
        self.retirement.begin(message.worker)
        return LeaveReply(may_finish=True)

    async def worker_hands_over(self, message: WorkerMessage) -> None:
        """A worker whose job is ended by the batch system has nothing left to do but to go."""
        await self.retirement.end([message.worker])
