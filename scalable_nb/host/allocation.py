"""The batch job that a host is: known by its id, and left before its walltime is over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import Any

import psutil

from scalable_nb.batch_system.job_queue import Queue
from scalable_nb.batch_system.walltime import ends_early_s, walltime_s
from scalable_nb.manifest.job_options import BATCH_SYSTEMS, configured, host_keywords
from scalable_nb.manifest.schema import Target

#: Where a job finds its own id.


@dataclass(frozen=True)
class HostAllocation:
    """The job of this process.

    Attributes
    ----------
    job_id : str
        Empty where the batch system does not tell a job its id.
    queue : Queue
        What is known of the jobs of the run, this one among them.
    walltime_s : float or None
        As it was asked for; None: no limit.
    began_at : float
        Seconds since the epoch.
    """

    job_id: str
    queue: Queue
    walltime_s: float | None
    began_at: float

    @classmethod
    def of(
        cls, target: Target, queue: Queue, environ: Mapping[str, str] = os.environ
    ) -> HostAllocation:
        """The job of a host that was started as one."""
        asked = host_keywords(target).get("walltime") or configured(target, "walltime")
        return cls(
            environ.get(BATCH_SYSTEMS[target.provider].id_variable, ""),
            queue,
            walltime_s(target.provider, asked),
            psutil.Process().create_time(),
        )

    @property
    def ends_at(self) -> float | None:
        """When the batch system will end it: as that says now, else as it was asked for."""
        facts = self.queue.facts(self.job_id)
        if facts is not None and facts.ends_at is not None:
            return facts.ends_at
        return None if self.walltime_s is None else self.began_at + self.walltime_s

    @property
    def is_nearly_over(self) -> bool:
        """Whether there is just time enough to end in order."""
        ends_at = self.ends_at
        if ends_at is None:
            return False
        return ends_at - time() < ends_early_s(self.walltime_s)

    def row(self) -> dict[str, Any]:
        """For kernels."""
        facts = self.queue.facts(self.job_id)
        return {
            "system": self.queue.system,
            "job_id": self.job_id,
            "host": facts.node if facts is not None else None,
            "ends_at": self.ends_at,
        }

    def __str__(self) -> str:
        return f"{self.queue.system} job {self.job_id}".rstrip()
