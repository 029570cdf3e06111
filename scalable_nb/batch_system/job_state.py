"""What is known of a batch job, and what follows from it. States are in Slurm's capitals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

#: A job in one of these has, or may still get, its workers.
ALIVE: Final = frozenset(
    {
        "COMPLETING",
        "CONFIGURING",
        "PENDING",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESIZING",
        "RUNNING",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
    }
)

#: Waiting, again or for the first time.
_WAITING: Final = frozenset({"PENDING", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What one source says of one run of a job. Times are seconds since the epoch.

    Attributes
    ----------
    state : str
        E.g. ``"PENDING"``, ``"TIMEOUT"``; empty where the source does not say.
    reason : str or None
        Why it waits or ended, e.g. ``"Resources"``.
    estimated_start_at : float or None
        While it waits.
    exit_code, signal : int or None
        Of the job's script.
    node : str or None
        Where its workers are or were.
    max_rss_bytes : int or None
        The most memory it was seen with.
    memory_limit_bytes : int or None
        The limit for whose sake it was killed.
    is_out_of_memory : bool
        Whether it was killed for its memory, whatever the state says.
    log_tail : tuple of str
        The last lines of its output.
    source : str
        ``"squeue"``, ``"sacct"``, ``"scontrol"`` or ``"log"``.
    ends_at : float or None
        While it runs: when the batch system will end it.
    """

    job_id: str
    state: str
    reason: str | None = None
    estimated_start_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    node: str | None = None
    elapsed_s: float | None = None
    max_rss_bytes: int | None = None
    memory_limit_bytes: int | None = None
    is_out_of_memory: bool = False
    log_tail: tuple[str, ...] = ()
    source: str = ""
    ends_at: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it stands in the queue, again or for the first time."""
        return self.state in _WAITING

    @property
    def has_ended(self) -> bool:
        """Whether this run of the job is over."""
        return bool(self.state) and self.state not in ALIVE


# --- what a job is, to a person -------------------------------------------------------


class JobPhase(StrEnum):
    """What batch system and scheduler together say of a job."""

    PENDING = "pending"  # it waits in the queue
    STARTING = "starting"  # it runs, and no worker has connected yet
    CONNECTED = "connected"  # its worker is there and has had no task yet
    IDLE = "idle"
    BUSY = "busy"
    LOST = "lost"  # its worker was there and is gone; the job may still run
    ENDED = "ended"


def job_phase(
    state: str, *, is_connected: bool, was_connected: bool, is_busy: bool, has_worked: bool
) -> JobPhase:
    """The phase of a job.

    Parameters
    ----------
    state : str
        The batch system's word; empty where it has none yet.
    is_connected, was_connected : bool
        Whether a worker of this job is, or ever was, at the scheduler.
    is_busy, has_worked : bool
        Whether its workers execute something, or ever did.
    """
    if is_connected:  # the scheduler knows sooner than the batch system says
        if is_busy:
            return JobPhase.BUSY
        return JobPhase.IDLE if has_worked else JobPhase.CONNECTED
    if state and state not in ALIVE:
        return JobPhase.ENDED
    if state in _WAITING:
        return JobPhase.PENDING
    if was_connected:
        return JobPhase.LOST
    return JobPhase.STARTING if state else JobPhase.PENDING


def jobs_text(jobs: Sequence[Mapping[str, Any]]) -> str:
    """How many jobs are in which phase, and why those that wait do, in one line.

    Parameters
    ----------
    jobs : sequence of mapping
        Each with ``phase``, ``reason`` and ``estimated_start_at``.
    """
    parts = [f"{n} {phase}" for phase, n in Counter(job["phase"] for job in jobs).items()]
    waiting = [job for job in jobs if job["phase"] == JobPhase.PENDING]
    reasons = dict.fromkeys(job["reason"] for job in waiting if job["reason"])
    starts = [job["estimated_start_at"] for job in waiting if job["estimated_start_at"]]
    if reasons:
        parts.append(f"waiting for {', '.join(reasons)}")
    if starts:
        at = datetime.fromtimestamp(min(starts)).astimezone()
        parts.append(f"first start expected {at:%Y-%m-%d %H:%M}")
    return ", ".join(parts)


def with_forgotten(
    known: Mapping[str, JobFacts], found: Mapping[str, JobFacts]
) -> dict[str, JobFacts]:
    """What is known of jobs after the batch system has named all that it remembers.

    It forgets a job some minutes after its end (Slurm's ``MinJobAge``), at some centres sooner
    than it is asked again.

    Parameters
    ----------
    known : mapping of str to JobFacts
        What was known before, by job id.
    found : mapping of str to JobFacts
        What it says now.
    """
    return {
        job_id: facts
        if job_id in found or facts.has_ended
        else replace(facts, state="UNKNOWN", reason=None, ends_at=None)
        for job_id, facts in {**known, **found}.items()
    }


# --- what became of a job -------------------------------------------------------------


def find_outcome(
    came_at: float,
    records: Sequence[JobFacts],
    now: JobFacts | None,
    log: JobFacts | None,
) -> JobFacts | None:
    """How the run of a job ended that a worker belonged to; None while nobody says.

    A requeued job has several runs under one id, and cancelling it afterwards overwrites the
    state of the last one only.

    Parameters
    ----------
    came_at : float
        When the worker connected.
    records : sequence of JobFacts
        The accounting's, one for each run, in their order.
    now : JobFacts or None
        The controller's, which knows the last run only.
    log : JobFacts or None
        What the job's output says of this run's end.
    """
    fate = _of_record(came_at, records) or _of_controller(came_at, now)
    if log is None:
        return fate
    if fate is None or not log.state:
        # The log knows a kill for memory, which some states do not tell.
        return _joined(fate, log) if fate or log.state else None
    # It is written as the end begins, before anybody can cancel the job once more.
    is_vague = fate.state in ("CANCELLED", "REQUEUED", "FAILED")
    return _joined(replace(fate, state=log.state) if is_vague and _says_why(log) else fate, log)


def _says_why(log: JobFacts) -> bool:
    return log.state != "CANCELLED"


def _of_record(came_at: float, records: Sequence[JobFacts]) -> JobFacts | None:
    begun = [record for record in records if record.started_at is not None]
    own = [record for record in begun if _was_on(record, came_at)] or begun[-1:]
    return own[0] if own and own[0].has_ended else None


def _was_on(run: JobFacts, at: float) -> bool:
    # Start and end are known to the second.
    assert run.started_at is not None
    return run.started_at <= at and (run.ended_at is None or at < run.ended_at + 1)


def _of_controller(came_at: float, now: JobFacts | None) -> JobFacts | None:
    if now is None:
        return None
    has_begun_again = now.started_at is not None and now.started_at > came_at
    if now.state in _WAITING or has_begun_again:
        return JobFacts(now.job_id, "REQUEUED", source=now.source)
    return now if now.has_ended else None


def _joined(fate: JobFacts | None, log: JobFacts) -> JobFacts:
    if fate is None:
        return log
    return replace(
        fate,
        node=log.node or fate.node,
        ended_at=fate.ended_at or log.ended_at,
        max_rss_bytes=max(fate.max_rss_bytes or 0, log.max_rss_bytes or 0) or None,
        memory_limit_bytes=log.memory_limit_bytes or fate.memory_limit_bytes,
        is_out_of_memory=fate.is_out_of_memory or log.is_out_of_memory,
        log_tail=log.log_tail,
    )


def with_start(fate: JobFacts, before: JobFacts | None, came_at: float) -> JobFacts:
    """Add what was known of the run while it lived, where its fate does not say it.

    Parameters
    ----------
    fate : JobFacts
    before : JobFacts or None
        The batch system's last word of the job while it ran, perhaps of a later run.
    came_at : float
        When the worker connected.
    """
    if before is None or before.started_at is None or before.started_at > came_at:
        return fate
    ended_at, elapsed_s = fate.ended_at, fate.elapsed_s
    if elapsed_s is None and ended_at is not None:
        elapsed_s = max(0.0, ended_at - before.started_at)
    return replace(
        fate,
        node=fate.node or before.node,
        started_at=fate.started_at or before.started_at,
        elapsed_s=elapsed_s,
    )


_HAPPENED: Final = {
    "BOOT_FAIL": "ended with {state}",
    "COMPLETED": "has {state}",
    "DEADLINE": "ended at its {state}",
    "FAILED": "has {state}",
    "NODE_FAIL": "ended with {state}",
    "OUT_OF_MEMORY": "ended with {state}",
    "TIMEOUT": "ended with {state}",
}


def in_words(system: str, fate: JobFacts) -> str:
    """The fate of a job as one clause, e.g. ``Slurm job 75 on n1 was PREEMPTED after 3 s``."""
    words = [f"{system} job {fate.job_id}"]
    if fate.node:
        words.append(f"on {fate.node}")
    words.append(_HAPPENED.get(fate.state, "was {state}").format(state=fate.state))
    if fate.elapsed_s is not None:
        words.append(f"after {fate.elapsed_s:.0f} s")
    if fate.exit_code:
        words.append(f"with exit code {fate.exit_code}")
    return " ".join(words)
