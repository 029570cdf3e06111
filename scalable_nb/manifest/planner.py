"""The dry run: what a session would ask for. Nothing is started, asked or written."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

import dask.system
from dask.utils import format_bytes, parse_bytes

from scalable_nb.errors import ManifestError
from scalable_nb.manifest import job_options, session_commands
from scalable_nb.manifest.load import LoadedManifest
from scalable_nb.manifest.schema import Component, Target
from scalable_nb.manifest.start_plan import ComponentPlan, Plan, count
from scalable_nb.paths import MANIFEST_NAME

__all__ = ["ComponentPlan", "Plan", "make_plan"]

_CONTAINER_KEYS: Final = ("image", "runtime", "mounts")
_JOB_KEYS: Final = (
    "env",
    "preload_script",
    "workers",
    "max_workers",
    "walltime",
    "queue",
    "job_extra_directives",
    "job_script_prologue",
)

_HOST_PROCESS: Final = shlex.join(session_commands.host_process("<run-folder>"))


def make_plan(loaded: LoadedManifest) -> Plan:
    """What a session of this manifest's target would ask for.

    Raises
    ------
    ManifestError
        When dask-jobqueue cannot write a job's script with the options given.
    """
    if loaded.target.provider == "local":
        return _plan_local(loaded)
    return _plan_jobs(loaded)


def _plan_local(loaded: LoadedManifest) -> Plan:
    """All components share the same workers, so the largest one sets their memory."""
    import distributed.system  # takes a third of a second, and only this plan needs it

    target = loaded.target
    cpus, machine_bytes = dask.system.CPU_COUNT, distributed.system.MEMORY_LIMIT
    processes = target.processes is not False
    slots = _max_workers(loaded) or min(4, cpus)
    threads = target.threads_per_worker or 1
    sizes = [size for c in loaded.manifest.components.values() if (size := c.memory_bytes)]
    slot_bytes = max(sizes) if sizes else machine_bytes // slots
    notices = list(_notices(loaded))
    if slots * slot_bytes > machine_bytes:
        notices.append(
            f"{count(slots, 'worker')} with {format_bytes(slot_bytes)} each can use more than "
            f"the {format_bytes(machine_bytes)} of this machine"
        )
    if slots * threads > cpus:
        notices.append(
            f"{count(slots * threads, 'task')} at a time share the {count(cpus, 'core')} "
            "of this machine"
        )
    # Without processes one worker stands in for all of them.
    workers = slots if processes else 1
    threads = threads if processes else slots * threads
    worker_bytes = min(slot_bytes * slots // workers, machine_bytes)
    if not processes:
        notices.append(
            f"processes: false is one worker process with {count(threads, 'thread')}: a task "
            "that crashes it or exceeds its timeout makes the others start again"
        )
    return _plan(
        loaded,
        workers=workers,
        threads_per_worker=threads,
        processes=processes,
        worker_memory_bytes=worker_bytes,
        cores=workers * threads,
        memory_bytes=min(workers * worker_bytes, machine_bytes),
        components=[
            ComponentPlan(name, component.cpus or threads, component.memory_bytes, component.image)
            for name, component in loaded.manifest.components.items()
        ],
        notices=notices,
        commands=[_HOST_PROCESS],
    )


def _plan_jobs(loaded: LoadedManifest) -> Plan:
    """One job per worker (``processes: n``: per n workers), sized by its component."""
    target = loaded.target
    notices = list(_notices(loaded))
    if _max_workers(loaded) is None and not _declares_workers(loaded):
        notices.append(
            f"max_workers is not given: one worker; set targets.{loaded.target_name}.max_workers"
        )
    shares = worker_shares(
        _max_workers(loaded),
        {name: component.workers for name, component in loaded.manifest.components.items()},
    )
    components, processes, commands = [], 1, _job_commands(loaded)
    for name, component in loaded.manifest.components.items():
        keywords = _job_keywords(loaded, name, component)
        job = _job_text(loaded, keywords)
        processes = int(keywords["processes"])
        notices += [warning for warning in job.warnings if warning not in notices]
        commands += [each for each in (job.submit, job.cancel) if each not in commands]
        walltime, from_dask = _walltime(target, keywords)
        if from_dask:
            notice = (
                f"walltime is not given: jobs end after {walltime} (Dask's configuration); "
                f"set targets.{loaded.target_name}.walltime"
            )
            notices += [notice] if notice not in notices else []
        components.append(
            ComponentPlan(
                name,
                int(keywords["cores"]),
                int(parse_bytes(keywords["memory"])),
                component.image,
                job.script,
                shares[name],
                walltime,
            )
        )
    host_job = _host_job(loaded) if target.host == "job" else None
    jobs = {c.name: -(-(c.workers or 0) // processes) for c in components}
    cores = max(component.cores for component in components)
    return _plan(
        loaded,
        workers=sum(shares.values()),
        threads_per_worker=target.threads_per_worker or max(1, cores // processes),
        processes=True,
        worker_memory_bytes=max(c.memory_bytes or 0 for c in components) // processes,
        cores=sum(jobs[c.name] * c.cores for c in components),
        memory_bytes=sum(jobs[c.name] * (c.memory_bytes or 0) for c in components),
        walltime=components[0].walltime,
        components=components,
        script=_joined_scripts([host_job] if host_job else [], components),
        host_job=host_job,
        notices=notices,
        commands=commands,
    )


def _job_commands(loaded: LoadedManifest) -> list[str]:
    """Return the commands of a target with jobs, apart from submitting and cancelling them."""
    is_job = loaded.target.host == "job"
    commands = [] if is_job else [_HOST_PROCESS]
    if loaded.target.provider != "slurm":
        return commands
    name = job_options.job_name(loaded.target, "<run>")
    queries = (session_commands.squeue(name), session_commands.sacct(["<job-ids>"]))
    return [*commands, *map(shlex.join, (*queries, session_commands.SCONTROL))]


def _host_job(loaded: LoadedManifest) -> ComponentPlan:
    try:
        keywords = job_options.host_keywords(loaded.target)
    except ValueError as error:
        where = f"targets.{loaded.target_name}.host_job"
        raise ManifestError(f"{_source(loaded)}: {where}: {error}") from None
    script = _job_text(loaded, keywords).script
    walltime, _ = _walltime(loaded.target, keywords)
    memory_bytes = int(parse_bytes(keywords["memory"]))
    return ComponentPlan(
        "host", int(keywords["cores"]), memory_bytes, script=script, walltime=walltime
    )


def worker_shares(total: int | None, given: Mapping[str, int | None]) -> dict[str, int]:
    """How many workers of each component a start asks for.

    Components that do not say it share evenly what of the total the others leave; each gets
    one at least, or its tasks would wait for ever.

    Examples
    --------
    >>> worker_shares(10, {"small": None, "big": 2, "huge": None})
    {'small': 4, 'big': 2, 'huge': 4}
    """
    unset = [name for name, count in given.items() if count is None]
    left = (total or 0) - sum(count for count in given.values() if count is not None)
    shares = {name: count for name, count in given.items() if count is not None}
    for number, name in enumerate(unset):
        extra = number < left % len(unset)
        shares[name] = max(1, left // len(unset) + extra)
    return {name: shares[name] for name in given}


def _declares_workers(loaded: LoadedManifest) -> bool:
    return all(c.workers is not None for c in loaded.manifest.components.values())


def _walltime(target: Target, keywords: dict[str, Any]) -> tuple[str | None, bool]:
    """A job's walltime, and whether it is only Dask's configuration that says so."""
    if keywords.get("walltime") is not None:
        return str(keywords["walltime"]), False
    walltime = job_options.configured(target, "walltime")
    return (None, False) if walltime is None else (str(walltime), True)


def _plan(
    loaded: LoadedManifest,
    *,
    components: list[ComponentPlan],
    notices: list[str],
    commands: list[str],
    walltime: str | None = None,
    script: str | None = None,
    **numbers: Any,
) -> Plan:
    return Plan(
        project=loaded.manifest.project.name,
        target=loaded.target_name,
        provider=loaded.target.provider,
        walltime=walltime,
        components=tuple(components),
        script=script,
        lock=loaded.sha256,
        manifest=None if loaded.source is None else str(loaded.source),
        notices=tuple(notices),
        commands=tuple(commands),
        origins=loaded.origins,
        **numbers,
    )


def _max_workers(loaded: LoadedManifest) -> int | None:
    adaptive = loaded.target.adaptive
    limit = adaptive.maximum if adaptive is not None else None
    return limit or loaded.target.max_workers


def _notices(loaded: LoadedManifest) -> Iterator[str]:
    """What holds for every provider."""
    if loaded.discovered:
        yield (
            f"there is no {MANIFEST_NAME}: {loaded.discovered}; `%scalable init` writes one to edit"
        )
    elif loaded.defaulted:
        yield f"there is no {MANIFEST_NAME}: built-in defaults; `%scalable init` writes one to edit"
    is_local = loaded.target.provider == "local"
    for name, component in loaded.manifest.components.items():
        is_bare = is_local or job_options.runtime(loaded.target, component) is None
        for keys, reason in (
            (_CONTAINER_KEYS if is_bare else (), "workers run without a container"),
            (_JOB_KEYS if is_local else (), "components share the local workers"),
        ):
            given = [key for key in keys if getattr(component, key)]
            if given:
                verb = "is" if len(given) == 1 else "are"
                yield f"component {name!r}: {', '.join(given)} {verb} not used, {reason}"


def _job_keywords(loaded: LoadedManifest, name: str, component: Component) -> dict[str, Any]:
    try:
        return job_options.job_keywords(loaded.target, component, name)
    except ValueError as error:
        raise ManifestError(f"{_source(loaded)}: components.{name}: {error}") from None


def _job_text(loaded: LoadedManifest, keywords: dict[str, Any]) -> job_options.JobText:
    try:
        return job_options.job_text(loaded.target.provider, keywords)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ManifestError(
            f"{_source(loaded)}: targets.{loaded.target_name}: dask-jobqueue refuses these "
            f"options: {type(error).__name__}: {error}"
        ) from error


def _joined_scripts(host: list[ComponentPlan], components: list[ComponentPlan]) -> str:
    titles = ["host", *(f"component {c.name}" for c in components)][not host :]
    scripts = [c.script for c in [*host, *components]]
    if len(scripts) == 1:
        return scripts[0] or ""
    pairs = zip(titles, scripts, strict=True)
    return "\n".join(f"# --- {title} ---\n{script}" for title, script in pairs)


def _source(loaded: LoadedManifest) -> str:
    return "the embedded default" if loaded.source is None else loaded.source.name
