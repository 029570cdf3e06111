"""The local target: worker processes on this machine."""

from __future__ import annotations

from typing import Any, Final

from distributed import LocalCluster
from distributed.core import Status
from distributed.security import Security

from scalable_nb.host.nanny import ScalableNanny
from scalable_nb.manifest.plan import Plan
from scalable_nb.paths import RunPaths, private_folder

#: Configuration of the host's Dask. A task held between two attempts must not be taken for one
#: that will never find a worker; and a worker that its nanny is just restarting must not be
#: closed because it was lost once, some time ago. Whoever fetches a result from a worker that
#: has just died tries to connect for the whole timeout.
DASK_CONFIG: Final[dict[str, Any]] = {
    "distributed.scheduler.no-workers-timeout": None,
    "distributed.deploy.lost-worker-timeout": "1000 days",
    "distributed.comm.timeouts.connect": "5s",
    "distributed.worker.http.routes": [],
}


_ENDED: Final = (Status.closed, Status.failed)


async def start_local(
    plan: Plan, *, security: Security, http_prefix: str, paths: RunPaths
) -> LocalCluster:
    """Start the scheduler of a local target, without workers yet.

    ``processes: false`` means one worker process with as many threads; never a worker inside
    the host, which runs no user code.
    """
    cluster: LocalCluster = await LocalCluster(
        name="scalable",
        n_workers=0,
        threads_per_worker=plan.threads_per_worker,
        worker_class=ScalableNanny,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        security=security,
        protocol="tls://",
        # The dashboard comes while the workers start: see `host.http.open_dashboard`.
        scheduler_kwargs={"http_prefix": http_prefix, "dashboard": False},
        silence_logs=False,
        asynchronous=True,
        memory_limit=plan.worker_memory_bytes or 0,
        local_directory=str(paths.workspace),
        log_folder=str(private_folder(paths.logs)),
        http_prefix=http_prefix,
        resources={"slots": plan.threads_per_worker},
    )
    return cluster


def replace_dead(cluster: LocalCluster, plan: Plan) -> int:
    """Replace workers whose nanny gave up, and return how many there were.

    A nanny restarts its worker process whatever it died of, except during its first start:
    then it closes, and the cluster goes on without it (distributed 2026.8.0).
    """
    dead = [name for name, nanny in cluster.workers.items() if nanny.status in _ENDED]
    for name in dead:
        del cluster.workers[name]
        cluster.worker_spec.pop(name, None)
    if dead:
        cluster.scale(plan.workers)
    return len(dead)
