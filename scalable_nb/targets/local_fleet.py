"""The local target: worker processes on this machine, shared by all components."""

from __future__ import annotations

from typing import Final

from distributed import LocalCluster, Nanny
from distributed.core import Status
from distributed.security import Security

from scalable_nb.dask_adapter.cluster import apply_worker_spec_soon
from scalable_nb.manifest.start_plan import Plan
from scalable_nb.paths import RunPaths, private_folder
from scalable_nb.targets.fleet import Fleet, WorkerGroup, WorkerKind

_ENDED: Final = (Status.closed, Status.failed)


class LocalFleet(Fleet):
    """Nannies in the host's own process, each with a worker process."""

    def how_ended(self, entry: WorkerGroup) -> str | None:
        """A nanny restarts its worker process whatever it died of, except during its first start.

        Then it closes, and the cluster goes on without it (distributed 2026.8.0).
        """
        nanny = self.cluster.workers.get(entry.name)
        return "died while it started" if nanny is not None and nanny.status in _ENDED else None

    async def _apply(self) -> None:
        # A nanny is there when its worker is; nobody waits for that.
        apply_worker_spec_soon(self.cluster)


async def start_local(
    plan: Plan,
    *,
    security: Security,
    http_prefix: str,
    paths: RunPaths,
    nanny_class: type[Nanny],
) -> LocalFleet:
    """Start the scheduler of a local target, without workers yet.

    Each worker process is started by a nanny of the given class. ``processes: false`` means one
    worker process with as many threads; never a worker inside the host, which runs no user code.
    """
    cluster: LocalCluster = await LocalCluster(
        name="scalable",
        n_workers=0,
        threads_per_worker=plan.threads_per_worker,
        worker_class=nanny_class,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        security=security,
        protocol="tls://",
        # The dashboard comes while the workers start: see `dask_adapter.access.open_dashboard`.
        scheduler_kwargs={"http_prefix": http_prefix, "dashboard": False},
        silence_logs=False,
        asynchronous=True,
        memory_limit=plan.worker_memory_bytes or 0,
        local_directory=str(paths.workspace),
        log_folder=str(private_folder(paths.logs)),
        http_prefix=http_prefix,
        resources={"slots": plan.threads_per_worker},
    )
    kind = WorkerKind(
        "",
        cluster.new_spec,
        threads=plan.threads_per_worker,
        cores=plan.threads_per_worker,
        memory_bytes=plan.worker_memory_bytes,
    )
    return LocalFleet(cluster, [kind])
