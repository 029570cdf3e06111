"""The batch job that a host runs in: its id, and the end of its walltime."""

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

#: Environment variable with the id of the current job.


@dataclass(frozen=True)
class HostAllocation:
    """The batch job of this process.

    Attributes
    ----------
    job_id : str
        Empty if the batch system does not set it in the environment.
    queue : Queue
        The state of the jobs of the run, including this one.
    walltime_s : float or None
        As requested; None: no limit.
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
        """Return the job of a host that was started in one."""
        asked = host_keywords(target).get("walltime") or configured(target, "walltime")
        return cls(
            environ.get(BATCH_SYSTEMS[target.provider].id_variable, ""),
            queue,
            walltime_s(target.provider, asked),
            psutil.Process().create_time(),
        )

    @property
    def ends_at(self) -> float | None:
        """When the batch system will stop the job: as it reports, else as requested."""
        facts = self.queue.facts(self.job_id)
        if facts is not None and facts.ends_at is not None:
            return facts.ends_at
        return None if self.walltime_s is None else self.began_at + self.walltime_s

    @property
    def is_nearly_over(self) -> bool:
        """Whether the remaining time is just enough for an orderly shutdown."""
        ends_at = self.ends_at
        if ends_at is None:
            return False
        return ends_at - time() < ends_early_s(self.walltime_s)

    def row(self) -> dict[str, Any]:
        """Return the job as a row for kernels."""
        facts = self.queue.facts(self.job_id)
        return {
            "system": self.queue.system,
            "job_id": self.job_id,
            "host": facts.node if facts is not None else None,
            "ends_at": self.ends_at,
        }

    def __str__(self) -> str:
        return f"{self.queue.system} job {self.job_id}".rstrip()
