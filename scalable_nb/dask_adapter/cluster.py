"""Dask's clusters of several kinds of workers, and their configuration.

The links lead to distributed 2026.8.0.
"""

from __future__ import annotations

from typing import Any, Final

from distributed.core import Status
from distributed.deploy.spec import ProcessInterface, SpecCluster

#: Dask's configuration in host and workers. A task held between two attempts must not be taken
#: for one that will never find a worker; and a worker that its nanny is just restarting must not
#: be closed because it was lost once, some time ago. A client that fetches a result from a worker
#: that has just died tries to connect for the whole timeout. The HTTP pages of workers have no
#: password, so there are none.
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
    """As `apply_worker_spec`, without waiting for the workers to start."""
    loop: Any = cluster.loop
    loop.add_callback(cluster._correct_state)


def mark_running(process: ProcessInterface) -> None:
    """Mark a job as started, whatever came of that, so that the cluster goes on."""
    process.status = Status.running


def mark_closed(process: ProcessInterface) -> None:
    """Mark a job as closed, so that nothing waits for it."""
    # `ProcessInterface.close` does it, but dask-jobqueue (0.9.0) does not call that one.
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/deploy/spec.py#L100
    process.status = Status.closed
    process._event_finished.set()
