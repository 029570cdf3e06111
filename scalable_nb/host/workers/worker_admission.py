"""Refuses workers whose environment has another version of scalable_nb."""

from __future__ import annotations

import logging

from distributed.scheduler import WorkerState

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.host.workers.replacement import WorkerReplacement
from scalable_nb.host.workers.retirement import GracefulRetirement
from scalable_nb.protocol.version import ANNOUNCEMENT, ProtocolVersion
from scalable_nb.targets.fleet import Fleet, WorkerKind

logger = logging.getLogger(__name__)


class WorkerAdmission:
    """Compares the version that a worker announces with that of the host.

    Parameters
    ----------
    fleet : Fleet
    adapter : SchedulerAdapter
    retirement : GracefulRetirement
        Keeps tasks from a worker that was refused.
    replacement : WorkerReplacement
        Requests no more workers of a kind that was refused.
    """

    def __init__(
        self,
        fleet: Fleet,
        adapter: SchedulerAdapter,
        retirement: GracefulRetirement,
        replacement: WorkerReplacement,
    ) -> None:
        self._fleet = fleet
        self._adapter = adapter
        self._retirement = retirement
        self._replacement = replacement

    def check(self, worker: WorkerState) -> None:
        """Close a new worker of another version, before it gets tasks."""
        version = ProtocolVersion.from_wire((worker.extra or {}).get(ANNOUNCEMENT))
        if version.is_compatible:
            return
        logger.warning("%s is closed: it has %s", worker.name, version)
        self._retirement.begin(worker.address)
        self._adapter.close_worker(worker.address)
        entry = self._fleet.entry_of(worker.name)
        if entry is not None:
            self._replacement.refuse(entry.kind, _refusal(entry.kind, version))


def _refusal(kind: WorkerKind, version: ProtocolVersion) -> str:
    own = ProtocolVersion.own()
    which = f" of component {kind.name!r}" if kind.name else ""
    where = f"`python: {kind.python}` of the target" if kind.python else "their environment"
    return (
        f"the workers{which} have {version}, and the host of this session has {own}: they are "
        f"closed, and no more are requested. Install scalable_nb {own.package} in {where}, then "
        "`%scalable scale N` tries again."
    )
