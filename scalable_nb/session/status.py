"""The status of a session, as plain values and as text."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import time
from typing import Any, Final
from urllib.parse import urlsplit

from scalable_nb.batch_system.job_state import jobs_text
from scalable_nb.faults.circuit_breaker import Pause, pause_text

#: Stands for the dashboard's link where what is shown may be kept, e.g. in a saved notebook:
#: whoever knows the link, and can reach the port, sees the dashboard.
DASHBOARD_CALL: Final = "`session.dashboard_link`"


def browser_link(link: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the address at which the user's browser reaches a page on this machine's loopback.

    Parameters
    ----------
    link : str
        E.g. ``http://127.0.0.1:40123/3f1c/status``.
    environ : mapping, optional
        Behind JupyterHub, ``JUPYTERHUB_SERVICE_PREFIX`` leads through jupyter-server-proxy,
        because the browser is on another machine.

    Returns
    -------
    str
        Empty where there is no link.
    """
    prefix = (os.environ if environ is None else environ).get("JUPYTERHUB_SERVICE_PREFIX")
    parts = urlsplit(link)
    if not prefix or not parts.port:
        return link
    return f"{prefix.rstrip('/')}/proxy/{parts.port}{parts.path}"


@dataclass(frozen=True)
class SessionStatus:
    """The status of a session.

    Attributes
    ----------
    state : str
        ``"running"`` or ``"ended"``.
    workers : list of dict
        Each with ``name, component, state, threads, memory_bytes, memory_limit_bytes, host``.
    counts : dict
        Number of tasks in each state; they add up to the number of tasks.
    notices : list of str
        Notices to the user, oldest first.
    jobs : list of dict
        Batch jobs, each with ``name, component, job_id, phase, job_state, reason,
        estimated_start_at, host``; none on a target without.
    pauses : list of Pause
        The batches that are paused, and why; see `ScalableSession.resume`.
    core_hours : float
        Threads of all workers times the hours that they were there.
    host : str
        The machine of the host.
    host_job : dict
        The batch job of the host: ``system, job_id, host, ends_at``; empty if it is not in a job.
    """

    run_id: str
    target: str
    state: str
    host_pid: int
    workers: list[dict[str, Any]]
    counts: dict[str, int]
    dashboard_link: str = field(repr=False)  # secret
    folder: Path
    started_at: str
    notices: list[str] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    core_hours: float = 0.0
    host: str = ""
    host_job: dict[str, Any] = field(default_factory=dict)

    @property
    def dashboard_way(self) -> str:
        """What comes before the dashboard's link can be opened: it is on loopback of the host."""
        if not self.host or self.host == platform.node():
            return ""
        port = urlsplit(self.dashboard_link).port
        return f"`ssh -N -L {port}:127.0.0.1:{port} {self.host}`, then "

    @property
    def host_text(self) -> str:
        """Where the host is, and until when."""
        job = self.host_job
        if not job:
            since = datetime.fromisoformat(self.started_at)
            return f"process {self.host_pid}, since {since:%Y-%m-%d %H:%M:%S} UTC"
        words = f"{job['system']} job {job['job_id']}"
        words += f" on {job['host']}" if job["host"] else ""
        if job["ends_at"] is None:
            return words
        ends_at = datetime.fromtimestamp(job["ends_at"]).astimezone()
        left = timedelta(minutes=max(0, int(job["ends_at"] - time()) // 60))
        return f"{words}; its walltime, and the session, ends {ends_at:%Y-%m-%d %H:%M} (in {left})"

    def __str__(self) -> str:
        return self.text(DASHBOARD_CALL)

    def text(self, dashboard: str) -> str:
        """All of it in lines.

        Parameters
        ----------
        dashboard : str
            What stands for the dashboard: its link only where nobody else will read the text.
        """
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items() if count)
        busy = sum(worker["state"] == "busy" for worker in self.workers)
        jobs = f"jobs: {jobs_text(self.jobs)}\n" if self.jobs else ""
        paused = "".join(f"paused: {pause_text(pause)}\n" for pause in self.pauses)
        return (
            f"session {self.run_id} on target {self.target!r}: {self.state}\n"
            f"workers: {len(self.workers)} ({busy} busy)\n"
            f"{jobs}"
            f"tasks: {counts or 'none yet'}\n"
            f"{paused}"
            f"dashboard: {self.dashboard_way}{dashboard}\n"
            f"host: {self.host_text}\n"
            f"run folder: {self.folder}"
        )
