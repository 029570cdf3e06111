"""Dask's clusters of several kinds of workers, and their configuration.

The links lead to distributed 2026.8.0.
"""

from __future__ import annotations

from typing import Any, Final

from distributed.core import Status
from distributed.deploy.spec import ProcessInterface, SpecCluster

#: Dask's configuration in host and workers. The timeout for tasks without workers would fail tasks
#: that are parked between two attempts. The one for lost workers would close a worker that was
#: lost and restarted by its nanny. A client that fetches a result from a worker that has just died
#: tries to connect for the whole timeout. Workers have no HTTP pages: those require no password.
DASK_CONFIG: Final[dict[str, Any]] = {
    "distributed.scheduler.no-workers-timeout": None,
    "distributed.deploy.lost-worker-timeout": "1000 days",
    "distributed.comm.timeouts.connect": "5s",
    "distributed.worker.http.routes": [],
}


async def apply_worker_spec(cluster: SpecCluster) -> None:
    """Start and close workers until they are those of ``cluster.worker_spec``."""
    # `SpecCluster.scale` makes workers of one kind only, and chooses which ones it closes.
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/deploy/spec.py#L343
    await cluster._correct_state()


def apply_worker_spec_soon(cluster: SpecCluster) -> None:
    """Start `apply_worker_spec` without waiting for the workers."""
    loop: Any = cluster.loop
    loop.add_callback(cluster._correct_state)


def mark_running(process: ProcessInterface) -> None:
    """Mark a job as started, even if that failed, so that the cluster continues."""
    process.status = Status.running


def mark_closed(process: ProcessInterface) -> None:
    """Mark a job as closed, so that nothing waits for it."""
    # `ProcessInterface.close` does it, but dask-jobqueue (0.9.0) does not call that one.
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/deploy/spec.py#L100
    process.status = Status.closed
    process._event_finished.set()
