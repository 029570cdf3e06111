"""What a session is doing, as plain values and in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalable_nb.faults.brake import Pause, pause_text
from scalable_nb.targets.jobstate import jobs_text


@dataclass(frozen=True)
class SessionStatus:
    """What a session is doing.

    Attributes
    ----------
    state : str
        ``"running"`` or ``"ended"``.
    workers : list of dict
        Each with ``name, component, state, threads, memory_bytes, memory_limit_bytes, host``.
    counts : dict
        Number of tasks in each state; they add up to the number of tasks.
    notices : list of str
        What a person should know, oldest first.
    jobs : list of dict
        Batch jobs, each with ``name, component, job_id, phase, job_state, reason,
        estimated_start_at, host``; none on a target without.
    pauses : list of Pause
        The batches that are paused, and why; see `scalable_nb.session.ScalableSession.resume`.
    core_hours : float
        Threads of all workers times the hours that they were there.
    """

    run_id: str
    target: str
    state: str
    host_pid: int
    workers: list[dict[str, Any]]
    counts: dict[str, int]
    dashboard_link: str
    folder: Path
    started_at: str
    notices: list[str] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    core_hours: float = 0.0

    def __str__(self) -> str:
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
            f"dashboard: {self.dashboard_link}\n"
            f"run folder: {self.folder}"
        )
