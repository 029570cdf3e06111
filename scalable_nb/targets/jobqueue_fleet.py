"""Targets whose workers are jobs of a batch system, through dask-jobqueue.

One Dask cluster holds jobs of several kinds, one kind per component; dask-jobqueue's own
clusters know one kind only.
"""

from __future__ import annotations

import logging
import shlex
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any, Final

import psutil
from dask.utils import parse_bytes
from distributed import Scheduler
from distributed.deploy.spec import SpecCluster
from distributed.security import Security
from distributed.utils import get_ip

from scalable_nb.batch_system.job_logs import log_folder, logs_of_job
from scalable_nb.batch_system.job_queue import Queue, open_queue, session_job
from scalable_nb.batch_system.walltime import walltime_s
from scalable_nb.dask_adapter.access import certificate_files
from scalable_nb.errors import UnknownNameError
from scalable_nb.manifest import job_options
from scalable_nb.manifest.load import LoadedManifest
from scalable_nb.paths import RunPaths
from scalable_nb.targets.fleet import LOST_GRACE_S, Fleet, WorkerGroup, WorkerKind
from scalable_nb.trusted_paths import read_last_lines

logger = logging.getLogger(__name__)

_LOG_LINES: Final = 12


class JobFleet(Fleet):
    """Batch jobs, each with one worker or several.

    Parameters
    ----------
    cluster, kinds
        See `Fleet`.
    queue : Queue
        What the batch system says of the jobs.
    log_folder : Path
        Where their output goes.
    """

    def __init__(
        self, cluster: SpecCluster, kinds: Iterable[WorkerKind], queue: Queue, log_folder: Path
    ) -> None:
        super().__init__(cluster, kinds)
        self.queue = queue
        self.log_folder = log_folder

    async def open(self, kind: WorkerKind, count: int) -> list[WorkerGroup]:
        """Submit jobs; one whose submission failed has ended."""
        entries = await super().open(kind, count)
        for entry in entries:
            entry.job_id = self.cluster.workers[entry.name].job_id
        return entries

    async def look(self) -> None:
        """Ask the batch system, as often as its queue thinks right."""
        if self.entries:
            await self.queue.look()

    def observe(self) -> None:
        """Bring the entries up to date with what scheduler and batch system know."""
        super().observe()
        for entry in self.entries.values():
            facts = self.queue.facts(entry.job_id) if entry.job_id is not None else None
            if facts is not None:
                entry.ends_at = facts.ends_at
                entry.is_running |= facts.state == "RUNNING"

    def how_ended(self, entry: WorkerGroup) -> str | None:
        """A job has ended where the batch system says so.

        Where it never mentions the job, one that lost its workers a while ago has ended.
        """
        if self._failure(entry) is not None:
            return "could not be submitted"
        if entry.is_connected or entry.job_id is None:
            return None
        if self.queue.facts(entry.job_id) is not None:
            return self.queue.how_ended(entry.job_id)
        if entry.lost_at is not None and time() - entry.lost_at > LOST_GRACE_S:
            return "lost its workers"
        return None

    def enlarged(self, kind: WorkerKind, memory_bytes: int) -> WorkerKind:
        """The same job with more memory."""
        name = f"{kind.name}-{memory_bytes // 1_000_000}M"
        options = dict(kind.spec["options"])
        options["memory"] = f"{memory_bytes * kind.workers}B"
        words = list(options["worker_extra_args"])
        words[words.index("--component") + 1] = name
        options["worker_extra_args"] = words
        spec = {**kind.spec, "options": options}
        return replace(kind, name=name, spec=spec, memory_bytes=memory_bytes)

    def log_excerpt(self, entry: WorkerGroup) -> str:
        """Why it could not be submitted, or the end of its log."""
        failure = self._failure(entry)
        if failure is not None:
            return failure
        lines: list[str] = []
        for log in self.logs_of(entry):
            lines += read_last_lines(log, _LOG_LINES)
        return "\n".join(lines)

    def job_id_of(self, entry: WorkerGroup) -> str | None:
        """The id of an entry's job; its workers may connect before others are submitted."""
        job: Any = self.cluster.workers.get(entry.name)
        return entry.job_id or (job.job_id if job is not None else None)

    def logs_of(self, entry: WorkerGroup) -> list[Path]:
        """The files with the output of a job, as far as they are there."""
        return logs_of_job(self.log_folder, entry.job_id) if entry.job_id else []

    def _failure(self, entry: WorkerGroup) -> str | None:
        job: Any = self.cluster.workers.get(entry.name)
        return None if job is None else job.failure


async def start_jobs(
    loaded: LoadedManifest, *, security: Security, http_prefix: str, paths: RunPaths
) -> tuple[JobFleet, list[str]]:
    """Start the scheduler of a target with jobs, without jobs yet.

    Returns
    -------
    fleet : JobFleet
    notices : list of str
        What a person should know of what was chosen.

    Raises
    ------
    UnknownNameError
        When there is no network interface of the name given.
    """
    target = loaded.target
    interface = target.interface or job_options.configured(target, "interface")
    options = target.options.get("scheduler_options")
    options = dict(options or job_options.configured(target, "scheduler_options") or {})
    notices = []
    if "host" not in options:
        address, notice = listening_address(options.pop("interface", None) or interface)
        options["host"] = address
        notices.append(f"Scheduler and workers talk over {notice}.")
    if options.pop("dashboard_address", None) is not None:
        notices.append(
            "`dashboard_address` is not used: the pages are on loopback, under a secret prefix."
        )
    cluster = await SpecCluster(
        name="scalable",
        scheduler={
            "cls": Scheduler,
            "options": {
                "protocol": "tls://",
                **options,
                "security": security,
                "dashboard": False,
                "dashboard_address": "127.0.0.1:0",
                "http_prefix": http_prefix,
            },
        },
        security=security,
        silence_logs=False,
        asynchronous=True,
    )
    name = job_options.job_name(target, paths.run_id[-6:])
    folder = log_folder(loaded, paths)
    kinds = [
        _kind(loaded, component, paths, {"job_name": name, "log_directory": str(folder)})
        for component in loaded.manifest.components
    ]
    return JobFleet(cluster, kinds, open_queue(target.provider, name), folder), notices


def _kind(
    loaded: LoadedManifest, name: str, paths: RunPaths, session: dict[str, str]
) -> WorkerKind:
    target, component = loaded.target, loaded.manifest.components[name]
    keywords = job_options.job_keywords(target, component, name)
    processes = int(keywords["processes"])
    cores = int(keywords["cores"])
    walltime = keywords.get("walltime") or job_options.configured(target, "walltime")
    spec: dict[str, Any] = {
        "cls": session_job(target.provider),
        "options": {
            **keywords,
            **session,
            "protocol": "tls://",
            "security": _on_command_line(paths.tls),
            "script_folder": paths.folder,
        },
    }
    if processes > 1:
        spec["group"] = [f"-{number}" for number in range(processes)]
    return WorkerKind(
        name,
        spec,
        workers=processes,
        threads=target.threads_per_worker or max(1, cores // processes),
        cores=cores,
        memory_bytes=int(parse_bytes(keywords["memory"])) // processes,
        walltime_s=walltime_s(target.provider, walltime),
        python=keywords["python"].removesuffix(" -P"),
    )


def _on_command_line(tls: Path) -> Security:
    # dask-jobqueue writes the paths of the certificate files into the script as they are.
    cert, key = (shlex.quote(str(path)) for path in certificate_files(tls))
    return Security(
        require_encryption=True, tls_ca_file=cert, tls_worker_cert=cert, tls_worker_key=key
    )


def listening_address(interface: str | None) -> tuple[str, str]:
    """The one address that the scheduler listens on, and how it was chosen.

    Parameters
    ----------
    interface : str or None
        As named in the manifest or in Dask's configuration; None: the one with the route to
        other machines.

    Returns
    -------
    address : str
    notice : str
        For a person.

    Raises
    ------
    UnknownNameError
        When this machine has no such interface; names those that it has.
    """
    addresses = _ipv4()
    if interface is not None:
        if interface not in addresses:
            raise UnknownNameError(
                "network interface",
                interface,
                addresses,
                "Set `interface:` of the target in scalable.yaml.",
            )
        return addresses[interface], f"interface {interface} ({addresses[interface]}), as asked for"
    address = get_ip()
    name = next((name for name, own in addresses.items() if own == address), "unknown")
    others = ", ".join(other for other in sorted(addresses) if other != name)
    return address, (
        f"interface {name} ({address}), which has the route to other machines; `interface:` of "
        f"the target chooses another{f': {others}' if others else ''}"
    )


def _ipv4() -> dict[str, str]:
    """The interfaces that are up and have an IPv4 address."""
    stats = psutil.net_if_stats()
    return {
        name: entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET and stats[name].isup
    }
