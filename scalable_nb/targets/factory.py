"""Starting a target, whatever its provider."""

from __future__ import annotations

from distributed.security import Security

from scalable_nb.manifest.load import LoadedManifest
from scalable_nb.manifest.start_plan import Plan
from scalable_nb.paths import RunPaths
from scalable_nb.targets.fleet import Fleet


async def start_fleet(
    loaded: LoadedManifest, plan: Plan, *, security: Security, http_prefix: str, paths: RunPaths
) -> tuple[Fleet, list[str]]:
    """Start the scheduler of a target, without workers yet.

    Returns
    -------
    fleet : Fleet
    notices : list of str
        What a person should know of what was chosen.
    """
    if loaded.target.provider == "local":
        from scalable_nb.targets.local_fleet import start_local

        fleet = await start_local(plan, security=security, http_prefix=http_prefix, paths=paths)
        return fleet, []
    from scalable_nb.targets.jobqueue_fleet import start_jobs

    return await start_jobs(loaded, security=security, http_prefix=http_prefix, paths=paths)
