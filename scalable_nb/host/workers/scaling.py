"""Keeps the workers that are wanted, kind by kind: grows, shrinks, replaces."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import time
from typing import Final

from scalable_nb.batch_system.walltime import leaves_at_s
from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.errors import StartError, UnknownNameError
from scalable_nb.host.notices import Notices
from scalable_nb.host.tasks.placement import TaskPlacement
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.tasks.task import TaskBatch
from scalable_nb.host.workers.demand import DesiredByKind, DesiredWorkers, Durations, Limits
from scalable_nb.host.workers.replacement import WorkerReplacement
from scalable_nb.host.workers.retirement import GracefulRetirement
from scalable_nb.protocol.messages import AdaptRequest, JobBegan, ScaleRequest, WorkerCounts
from scalable_nb.targets.fleet import Fleet, WorkerGroup, WorkerKind

logger = logging.getLogger(__name__)

_INTERVAL_S: Final = 0.5

#: A worker with the only copy of a result stays as long as its walltime allows.
_LAST_CALL_S: Final = 5.0


class Scaling:
    """Compares what is wanted with what there is, twice a second.

    Parameters
    ----------
    fleet : Fleet
    desired : DesiredByKind
    adapter : SchedulerAdapter
    placement : TaskPlacement
    replacement : WorkerReplacement
    retirement : GracefulRetirement
    durations : Durations
    recorder : RunRecorder
    notices : Notices
    runnable_by_component : callable
        Counts the tasks that could run now.
    observe_jobs : callable or None
        Follows the jobs of a batch system.
    flush_results : callable
        Writes what is still wanted and only in the memory of workers; returns what was written.
    """

    def __init__(
        self,
        fleet: Fleet,
        desired: DesiredByKind,
        adapter: SchedulerAdapter,
        placement: TaskPlacement,
        replacement: WorkerReplacement,
        retirement: GracefulRetirement,
        durations: Durations,
        recorder: RunRecorder,
        notices: Notices,
        *,
        runnable_by_component: Callable[[], Mapping[str, int]],
        observe_jobs: Callable[[], Awaitable[None]] | None,
        flush_results: Callable[[], Awaitable[object | None]],
    ) -> None:
        self._fleet = fleet
        self._desired = desired
        self._adapter = adapter
        self._placement = placement
        self._replacement = replacement
        self._retirement = retirement
        self._durations = durations
        self._recorder = recorder
        self._notices = notices
        self._runnable_by_component = runnable_by_component
        self._observe_jobs = observe_jobs
        self._flush_results = flush_results
        self._ending: dict[str, asyncio.Task[bool]] = {}
        self._lock = asyncio.Lock()

    async def begin(self) -> None:
        """Ask for one worker of each kind that is wanted; the others follow.

        Raises
        ------
        StartError
            When one could not even be asked for.
        """
        first = [
            self._fleet.kinds[name] for name, desired in self._desired.items() if desired.count
        ]
        for kind in first:
            for entry in await self._open(kind, 1):
                if self._fleet.how_ended(entry) is not None:
                    raise StartError(
                        f"the first job of component {kind.name!r} could not be submitted.\n"
                        f"{self._fleet.log_excerpt(entry)}\n"
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
            self._desired.set(name, DesiredWorkers(share))
            self._replacement.reset(self._fleet.kinds[name])
        return await self._wanted(names)

    async def adapt(self, request: AdaptRequest) -> WorkerCounts:
        """Let the work decide, within limits that hold for each component."""
        names = self._names(request.component)
        for name in names:
            limits = Limits(request.minimum, request.maximum)
            count = limits.fit(self._desired[name].count, 1)
            self._desired.set(name, DesiredWorkers(count, limits))
            self._replacement.reset(self._fleet.kinds[name])
        return await self._wanted(names)

    def _names(self, component: str | None) -> list[str]:
        if component is None:
            return list(self._desired.kinds)
        if component not in self._desired.kinds:
            raise UnknownNameError("component", component, self._desired.kinds)
        return [component]

    async def _wanted(self, names: list[str]) -> WorkerCounts:
        await self._compare()
        return WorkerCounts({name: self._desired[name].count for name in names})

    # --- what is done about it ------------------------------------------------------------

    async def _compare(self) -> None:
        async with self._lock:
            await self._fleet.look()
            self._fleet.observe()
            if self._observe_jobs is not None:
                await self._observe_jobs()
            self._replacement.count()
            await self._fleet.drop([entry.name for entry in self._replacement.find_ended()])
            for kind, fallback in self._replacement.find_unavailable():
                await self._fall_back(kind, fallback)
            self._adapt()
            self._let_go_in_time()
            for kind in list(self._fleet.kinds.values()):
                await self._match(kind)
            await self._see_off()

    def _adapt(self) -> None:
        adaptive = [name for name, desired in self._desired.items() if desired.limits is not None]
        if not adaptive:
            return
        tasks = dict.fromkeys(self._fleet.kinds, 0)
        default_kind = next(iter(self._fleet.kinds))
        for component, count in self._runnable_by_component().items():
            kind = self._placement.kind_of(component)
            tasks[kind if kind in tasks else default_kind] += count
        for component, kind in self._placement.rerouted():
            tasks[self._placement.kind_of(component) or default_kind] -= 1
            tasks[kind] += 1
        for name in adaptive:
            self._desired[name].adapt(tasks[name], self._fleet.kinds[name].threads, time())

    def _let_go_in_time(self) -> None:
        """Workers whose walltime is nearly over take no more tasks; others take their place."""
        for entry in self._fleet.entries.values():
            kind, remaining_s = entry.kind, entry.remaining_s
            if entry.is_leaving or remaining_s is None or kind.walltime_s is None:
                continue
            is_replaceable = self._replacement.may_open(kind) or len(self._fleet.of_kind(kind)) > 1
            needed_s = self._durations.needed_s(kind.name) if is_replaceable else 0.0
            if remaining_s < leaves_at_s(kind.walltime_s, needed_s, entry.number):
                entry.retire("walltime")
                logger.info("%s has %.0f s left and takes no more tasks", entry.name, remaining_s)

    def expect(self, batch: TaskBatch, limit_s: float | None) -> None:
        """Tasks arrive: a worker with less time left than their limit is not to begin them."""
        if limit_s is not None and self._durations.expect(batch.component, limit_s):
            self._let_go_in_time()
            for entry in self._fleet.entries.values():
                if entry.leaves_because == "walltime" and entry.name not in self._ending:
                    for address in self._addresses(entry):
                        self._retirement.begin(address)

    async def _match(self, kind: WorkerKind) -> None:
        entries = self._fleet.of_kind(kind)
        wanted = (
            0 if self._replacement.is_spent else -(-self._desired[kind.name].count // kind.workers)
        )
        if wanted > len(entries) and self._replacement.may_open(kind):
            await self._open(kind, wanted - len(entries))
        elif wanted < len(entries):
            await self._dismiss(sorted(entries, key=self._load)[: len(entries) - wanted])

    async def _open(self, kind: WorkerKind, count: int) -> list[WorkerGroup]:
        entries = await self._fleet.open(kind, count)
        for entry in entries:
            if entry.job_id is not None:
                self._recorder.job_submitted(entry.job_id, entry.name, kind.name)
        return entries

    def _load(self, entry: WorkerGroup) -> tuple[bool, int, float]:
        """Who goes first: the one that has not come yet, else the one with the least to do."""
        workers = self._adapter.workers
        tasks = sum(len(workers[address].processing) for address in self._addresses(entry))
        return entry.is_connected, tasks, -entry.asked_at

    def _addresses(self, entry: WorkerGroup) -> list[str]:
        known = self._adapter.aliases
        return [known[name] for name in entry.worker_names if name in known]

    async def _dismiss(self, entries: Iterable[WorkerGroup]) -> None:
        pending = []
        for entry in entries:
            entry.retire("scaling")
            if not entry.is_connected:
                pending.append(entry.name)
        await self._fleet.drop(pending)

    async def _see_off(self) -> None:
        """Let those that are to go finish, and end them when they have."""
        gone = []
        for entry in [e for e in self._fleet.entries.values() if e.is_leaving]:
            addresses = self._addresses(entry)
            ending = self._ending.get(entry.name)
            if ending is None:
                for address in addresses:
                    self._retirement.begin(address)
                if all(map(self._retirement.is_idle, addresses)):
                    self._ending[entry.name] = asyncio.create_task(self._retirement.end(addresses))
            elif ending.done():
                del self._ending[entry.name]
                if ending.result():
                    gone.append(entry.name)
                elif self._goes_anyway(entry):
                    await self._save_results(entry)
                    gone.append(entry.name)
                elif not entry.is_leaving:
                    for address in addresses:
                        self._retirement.call_off(address)
        await self._fleet.drop(gone)

    def _goes_anyway(self, entry: WorkerGroup) -> bool:
        """Whether an idle worker ends although it has results that no other one could take."""
        is_out_of_time = entry.remaining_s is not None and entry.remaining_s < _LAST_CALL_S
        is_adaptive = self._desired[entry.kind.name].limits is not None
        if entry.leaves_because == "walltime" and not is_out_of_time:
            return False  # the worker that comes in its place may take them
        if is_adaptive and not is_out_of_time and not self._replacement.is_spent:
            # Nobody asked for this one to go.
            entry.call_off()
            self._desired[entry.kind.name].count += 1
            return False
        return True

    async def _save_results(self, entry: WorkerGroup) -> None:
        saved = await self._flush_results()
        self._notices.notify(
            f"{entry.name} was the last worker"
            + (f": {saved}, where `resubmit` finds them in another session. " if saved else ". ")
            + "In this one they are computed again when they are asked for."
        )

    async def _fall_back(self, kind: WorkerKind, fallback: WorkerKind) -> None:
        self._placement.redirect(kind.name, fallback.name)
        self._desired[fallback.name].count += self._desired[kind.name].count
        self._desired.set(kind.name, DesiredWorkers(0))
        await self._dismiss(self._fleet.of_kind(kind))

    # --- messages of jobs -------------------------------------------------------------------

    def job_began(self, message: JobBegan) -> None:
        """A nanny says how long ago its job began."""
        entry = self._fleet.entry_of(message.name)
        if entry is not None:
            entry.note_start(time() - message.age_s)
