"""Dask's configuration where our scheduler and our workers run."""

from __future__ import annotations

from typing import Any, Final

#: A task held between two attempts must not be taken for one that will never find a worker; and a
#: worker that its nanny is just restarting must not be closed because it was lost once, some time
#: ago. Whoever fetches a result from a worker that has just died tries to connect for the whole
#: timeout. The pages of workers have no password, so there are none.
DASK_CONFIG: Final[dict[str, Any]] = {
    "distributed.scheduler.no-workers-timeout": None,
    "distributed.deploy.lost-worker-timeout": "1000 days",
    "distributed.comm.timeouts.connect": "5s",
    "distributed.worker.http.routes": [],
}
