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
    outcome = _from_accounting(came_at, records) or _from_controller(came_at, now)
    if log is None:
        return outcome
    if outcome is None or not log.state:
        # The log knows a kill for memory, which some states do not tell.
        return _with_log(outcome, log) if outcome or log.state else None
    # It is written as the end begins, before anybody can cancel the job once more.
    is_vague = outcome.state in ("CANCELLED", "REQUEUED", "FAILED")
    return _with_log(
        replace(outcome, state=log.state) if is_vague and _has_cause(log) else outcome, log
    )


def _has_cause(log: JobFacts) -> bool:
    return log.state != "CANCELLED"


def _from_accounting(came_at: float, records: Sequence[JobFacts]) -> JobFacts | None:
    begun = [record for record in records if record.started_at is not None]
    own = [record for record in begun if _was_on(record, came_at)] or begun[-1:]
    return own[0] if own and own[0].has_ended else None


def _was_on(run: JobFacts, at: float) -> bool:
    # Start and end are known to the second.
    assert run.started_at is not None
    return run.started_at <= at and (run.ended_at is None or at < run.ended_at + 1)


def _from_controller(came_at: float, now: JobFacts | None) -> JobFacts | None:
    if now is None:
        return None
    has_begun_again = now.started_at is not None and now.started_at > came_at
    if now.state in _WAITING or has_begun_again:
        return JobFacts(now.job_id, "REQUEUED", source=now.source)
    return now if now.has_ended else None


def _with_log(outcome: JobFacts | None, log: JobFacts) -> JobFacts:
    if outcome is None:
        return log
    return replace(
        outcome,
        node=log.node or outcome.node,
        ended_at=outcome.ended_at or log.ended_at,
        max_rss_bytes=max(outcome.max_rss_bytes or 0, log.max_rss_bytes or 0) or None,
        memory_limit_bytes=log.memory_limit_bytes or outcome.memory_limit_bytes,
        is_out_of_memory=outcome.is_out_of_memory or log.is_out_of_memory,
        log_tail=log.log_tail,
    )


def with_start(outcome: JobFacts, before: JobFacts | None, came_at: float) -> JobFacts:
    """Add what was known of the run while it lived, where its outcome does not say it.

    Parameters
    ----------
    outcome : JobFacts
    before : JobFacts or None
        The batch system's last word of the job while it ran, perhaps of a later run.
    came_at : float
        When the worker connected.
    """
    if before is None or before.started_at is None or before.started_at > came_at:
        return outcome
    ended_at, elapsed_s = outcome.ended_at, outcome.elapsed_s
    if elapsed_s is None and ended_at is not None:
        elapsed_s = max(0.0, ended_at - before.started_at)
    return replace(
        outcome,
        node=outcome.node or before.node,
        started_at=outcome.started_at or before.started_at,
        elapsed_s=elapsed_s,
    )


_STATE_PHRASES: Final = {
    "BOOT_FAIL": "ended with {state}",
    "COMPLETED": "has {state}",
    "DEADLINE": "ended at its {state}",
    "FAILED": "has {state}",
    "NODE_FAIL": "ended with {state}",
    "OUT_OF_MEMORY": "ended with {state}",
    "TIMEOUT": "ended with {state}",
}


def outcome_text(system: str, outcome: JobFacts) -> str:
    """The outcome of a job as one clause, e.g. ``Slurm job 75 on n1 was PREEMPTED after 3 s``."""
    words = [f"{system} job {outcome.job_id}"]
    if outcome.node:
        words.append(f"on {outcome.node}")
    words.append(_STATE_PHRASES.get(outcome.state, "was {state}").format(state=outcome.state))
    if outcome.elapsed_s is not None:
        words.append(f"after {outcome.elapsed_s:.0f} s")
    if outcome.exit_code:
        words.append(f"with exit code {outcome.exit_code}")
    return " ".join(words)
