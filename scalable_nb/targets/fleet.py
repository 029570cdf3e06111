"""The workers of a started target: what there are, and how more or fewer are had.

How many there should be is decided in `scalable_nb.host.workers.scaling`; here it is done.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any, Final

from distributed.deploy.spec import SpecCluster

from scalable_nb.dask_adapter.cluster import apply_worker_spec

#: A worker process that its nanny restarts is back sooner.
LOST_GRACE_S: Final = 20.0


@dataclass(frozen=True)
class WorkerKind:
    """One kind of worker.

    Attributes
    ----------
    name : str
        The component; empty where all components share the workers.
    spec : dict
        What a `SpecCluster` makes one entry of: ``cls``, ``options``, ``group``.
    workers : int
        Worker processes in one entry.
    threads : int
        Of one worker.
    cores : int
        Of one entry.
    memory_bytes : int or None
        Of one worker.
    walltime_s : float or None
        Longest life of an entry, seconds; None: no limit.
    python : str
        The interpreter of its environment; empty if it is that of the host.
    """

    name: str
    spec: Mapping[str, Any]
    workers: int = 1
    threads: int = 1
    cores: int = 1
    memory_bytes: int | None = None
    walltime_s: float | None = None
    python: str = ""


@dataclass
class WorkerGroup:
    """A job, or a nanny on this machine: what has one or several workers in it.

    Attributes
    ----------
    name : str
        Never used twice in a run.
    job_id : str or None
        As the batch system says it; stays when the job has ended.
    began_at : float or None
        When its first worker connected; seconds since the epoch.
    job_began_at : float or None
        When the batch system last started it; not the same as `began_at` where it was requeued.
    ends_at : float or None
        When the batch system will end it, where that says so.
    is_running : bool
        Whether it occupies its cores, as far as is known.
    lost_at : float or None
        Since when none of its workers is connected, after one was.
    leaves_because : str
        Why it takes no more tasks and ends when those it has are done: ``"walltime"`` or
        ``"scaling"``; empty where it stays.
    """

    name: str
    kind: WorkerKind
    asked_at: float = field(default_factory=time)
    job_id: str | None = None
    began_at: float | None = None
    job_began_at: float | None = None
    ends_at: float | None = None
    is_running: bool = False
    lost_at: float | None = None
    is_connected: bool = False
    leaves_because: str = ""

    def retire(self, reason: str) -> None:
        """Let it take no more tasks; `reason` as in `leaves_because`."""
        self.leaves_because = reason

    def call_off(self) -> None:
        """Let it stay after all."""
        self.leaves_because = ""

    def note_start(self, began_at: float) -> None:
        """Note when its job began; seconds since the epoch."""
        self.job_began_at = began_at

    @property
    def is_leaving(self) -> bool:
        """Whether it takes no more tasks and ends soon."""
        return bool(self.leaves_because)

    @property
    def number(self) -> int:
        """How many of its kind came before it."""
        return int(self.name.rpartition("-")[2])

    @property
    def remaining_s(self) -> float | None:
        """What is left of its walltime, in seconds; None where there is no limit, or no start.

        A nanny knows when it began, not how long the job's prologue had taken before, nor that
        somebody changed the limit; the batch system may round a walltime up.
        """
        ends_at = [] if self.ends_at is None else [self.ends_at]
        if self.kind.walltime_s is not None and self.job_began_at is not None:
            ends_at.append(self.job_began_at + self.kind.walltime_s)
        return min(ends_at) - time() if ends_at else None

    @property
    def worker_names(self) -> list[str]:
        """Names of its workers as the scheduler knows them."""
        return [f"{self.name}{suffix}" for suffix in self.kind.spec.get("group", ("",))]


class Fleet(ABC):
    """All entries of a target, of one or several kinds, in one Dask cluster.

    Parameters
    ----------
    cluster : distributed.SpecCluster
        Started, without workers.
    kinds : iterable of WorkerKind
        The first is what a task without component gets.
    """

    def __init__(self, cluster: SpecCluster, kinds: Iterable[WorkerKind]) -> None:
        self.cluster = cluster
        self.kinds = {kind.name: kind for kind in kinds}
        self.entries: dict[str, WorkerGroup] = {}
        self.past: dict[str, WorkerGroup] = {}
        self._numbers: dict[str, int] = {}

    @property
    def scheduler(self) -> Any:
        """The scheduler, which runs in this process."""
        return self.cluster.scheduler

    def add_kind(self, kind: WorkerKind) -> None:
        """Let the target have another kind of worker."""
        self.kinds[kind.name] = kind

    async def open(self, kind: WorkerKind, count: int) -> list[WorkerGroup]:
        """Ask for further entries; returns when they were asked for, not when they are there."""
        entries = [WorkerGroup(self._new_name(kind), kind) for _ in range(count)]
        for entry in entries:
            self.entries[entry.name] = entry
            self.cluster.worker_spec[entry.name] = dict(kind.spec)
        if entries:
            await self._apply()
        return entries

    async def drop(self, names: Collection[str]) -> None:
        """End entries and forget them."""
        for name in names:
            self.past[name] = self.entries.pop(name)
            self.cluster.worker_spec.pop(name, None)
        if names:
            await self._apply()

    def observe(self) -> None:
        """Bring the entries up to date with what the scheduler knows."""
        now, connected = time(), self.scheduler.aliases
        for entry in self.entries.values():
            entry.is_connected = any(name in connected for name in entry.worker_names)
            entry.is_running = entry.is_connected
            if entry.is_connected:
                entry.began_at = entry.began_at or now
                entry.lost_at = None
            elif entry.began_at is not None:
                entry.lost_at = entry.lost_at or now

    def of_kind(self, kind: WorkerKind) -> list[WorkerGroup]:
        """The entries of a kind that are meant to stay."""
        return [e for e in self.entries.values() if e.kind is kind and not e.is_leaving]

    def entry_of(self, worker_name: object) -> WorkerGroup | None:
        """The entry that a worker belongs or belonged to, by the worker's name."""
        name = str(worker_name)
        for entries in (self.entries, self.past):
            if name in entries:
                return entries[name]
            for entry in entries.values():
                if name in entry.worker_names:
                    return entry
        return None

    async def _apply(self) -> None:
        await apply_worker_spec(self.cluster)

    @abstractmethod
    def how_ended(self, entry: WorkerGroup) -> str | None:
        """How an entry ended, in a word; None where it may still have, or get, a worker."""

    def enlarged(self, kind: WorkerKind, memory_bytes: int) -> WorkerKind | None:
        """A kind like this one with more memory for each worker; None where there is none."""
        return None

    def log_excerpt(self, entry: WorkerGroup) -> str:
        """What an entry said before it ended; empty where nothing is known."""
        return ""

    async def look(self) -> None:  # noqa: B027 - a fleet may have nowhere to look
        """Learn what can be learned from outside Dask."""

    async def close(self) -> None:
        """End scheduler and workers."""
        closing: Any = self.cluster.close(timeout=10)
        await closing

    def _new_name(self, kind: WorkerKind) -> str:
        number = self._numbers.get(kind.name, 0)
        self._numbers[kind.name] = number + 1
        return f"{kind.name or 'worker'}-{number}"
