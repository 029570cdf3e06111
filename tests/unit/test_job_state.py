"""What a job is and what became of it, decided from facts."""

from __future__ import annotations

from datetime import datetime

import pytest

from scalable_nb.batch_system.job_logs import likely_cause
from scalable_nb.batch_system.job_state import (
    JobFacts,
    JobPhase,
    find_outcome,
    job_phase,
    jobs_text,
    outcome_text,
    with_forgotten,
    with_start,
)

CAME_AT = 105.0


def run(state: str, started_at: float = 100.0, ended_at: float | None = 110.0) -> JobFacts:
    """A run of job 75 as the accounting tells it."""
    return JobFacts("75", state, started_at=started_at, ended_at=ended_at, source="sacct")


def log(state: str, **values: object) -> JobFacts:
    """What the job's output says."""
    return JobFacts("75", state, node="n1", source="log", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "connected", "before", "busy", "worked", "phase"),
    [
        ("", False, False, False, False, JobPhase.PENDING),
        ("PENDING", False, False, False, False, JobPhase.PENDING),
        ("CONFIGURING", False, False, False, False, JobPhase.STARTING),
        ("RUNNING", False, False, False, False, JobPhase.STARTING),
        ("RUNNING", True, True, False, False, JobPhase.CONNECTED),
        ("PENDING", True, True, True, True, JobPhase.BUSY),  # Slurm's word is older
        ("RUNNING", True, True, False, True, JobPhase.IDLE),
        ("RUNNING", False, True, False, True, JobPhase.LOST),
        ("", False, True, False, True, JobPhase.LOST),
        ("PENDING", False, True, False, True, JobPhase.PENDING),  # requeued
        ("TIMEOUT", False, True, False, True, JobPhase.ENDED),
        ("FAILED", False, False, False, False, JobPhase.ENDED),
    ],
)
def test_phases(
    state: str, connected: bool, before: bool, busy: bool, worked: bool, phase: JobPhase
) -> None:
    """Batch system and scheduler together say which of seven things a job is."""
    assert phase == job_phase(
        state,
        is_connected=connected,
        was_connected=before,
        is_busy=busy,
        has_worked=worked,
    )


def test_jobs_in_one_line() -> None:
    """How many are in which phase, what the pending ones wait for and until when."""
    idle = {"phase": "idle", "reason": None, "estimated_start_at": None}
    waiting = {"phase": "pending", "reason": "Resources", "estimated_start_at": 1795692287.0}
    at = datetime.fromtimestamp(1795692287).strftime("%Y-%m-%d %H:%M")
    assert jobs_text([idle, waiting, idle]) == (
        f"2 idle, 1 pending, waiting for Resources, first start expected {at}"
    )
    assert jobs_text([]) == ""


def test_a_job_that_the_batch_system_forgot_is_over() -> None:
    """It is not in the queue any more, and nobody saw its end; one that was seen keeps its own."""
    before = {
        "1": JobFacts("1", "RUNNING", node="n1", ends_at=9.0),
        "2": JobFacts("2", "TIMEOUT"),
        "3": JobFacts("3", "PENDING"),
    }
    after = with_forgotten(before, {"3": JobFacts("3", "RUNNING"), "4": JobFacts("4", "PENDING")})
    states = {job_id: facts.state for job_id, facts in after.items()}
    assert states == {"1": "UNKNOWN", "2": "TIMEOUT", "3": "RUNNING", "4": "PENDING"}
    assert after["1"].has_ended
    assert (after["1"].node, after["1"].ends_at) == ("n1", None)


def test_the_run_of_the_worker_counts_not_the_last_one() -> None:
    """A job preempted, started again and cancelled was preempted, to the first run's worker."""
    records = [run("PREEMPTED"), run("CANCELLED", 120, 130)]
    outcome = find_outcome(CAME_AT, records, None, None)
    assert outcome is not None
    assert outcome.state == "PREEMPTED"
    later = find_outcome(125.0, records, None, None)
    assert later is not None
    assert later.state == "CANCELLED"


def test_nothing_is_said_while_the_job_runs() -> None:
    """A job that runs, or of which nobody has heard, has no outcome."""
    for now in (None, JobFacts("75", "RUNNING", started_at=100.0), JobFacts("75", "COMPLETING")):
        assert find_outcome(CAME_AT, [], now, JobFacts("75", "", source="log")) is None
    assert find_outcome(CAME_AT, [run("RUNNING", ended_at=None)], None, None) is None


@pytest.mark.parametrize(
    "now",
    [
        JobFacts("75", "PENDING", source="scontrol"),
        JobFacts("75", "RUNNING", started_at=120.0, source="scontrol"),
        JobFacts("75", "CANCELLED", started_at=120.0, source="scontrol"),
    ],
)
def test_without_accounting_a_job_that_began_again_was_requeued(now: JobFacts) -> None:
    """The controller has forgotten the first run; the log may know why it ended."""
    outcome = find_outcome(CAME_AT, [], now, None)
    assert outcome is not None
    assert outcome.state == "REQUEUED"
    better = find_outcome(CAME_AT, [], now, log("NODE_FAIL"))
    assert better is not None
    assert (better.state, better.node) == ("NODE_FAIL", "n1")


def test_the_log_knows_better_than_a_cancellation_that_came_later() -> None:
    """Whoever cancels a job that is ending anyway overwrites its state, not its log."""
    for said, expected in (("TIMEOUT", "TIMEOUT"), ("CANCELLED", "CANCELLED")):
        outcome = find_outcome(CAME_AT, [run("CANCELLED")], None, log(said))
        assert outcome is not None
        assert outcome.state == expected
    kept = find_outcome(CAME_AT, [run("TIMEOUT")], None, log("CANCELLED"))
    assert kept is not None
    assert kept.state == "TIMEOUT"


def test_a_kill_for_memory_is_joined_with_the_state() -> None:
    """Slurm's state stays as it is; what the log knows of the memory is added."""
    said = log("CANCELLED", is_out_of_memory=True, max_rss_bytes=500, memory_limit_bytes=300)
    outcome = find_outcome(CAME_AT, [run("FAILED")], None, said)
    assert outcome is not None
    assert (outcome.state, outcome.is_out_of_memory) == ("FAILED", True)
    assert (outcome.max_rss_bytes, outcome.memory_limit_bytes) == (500, 300)


def test_what_was_known_before_fills_what_the_log_leaves_out() -> None:
    """The log alone gives no start; a later run's start is not taken for it."""
    outcome = log("PREEMPTED", ended_at=108.0)
    before = JobFacts("75", "RUNNING", started_at=100.0, node="n1")
    assert with_start(outcome, before, CAME_AT).elapsed_s == 8.0
    later = JobFacts("75", "RUNNING", started_at=120.0, node="n2")
    assert with_start(outcome, later, CAME_AT).elapsed_s is None


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (
            JobFacts("75", "PREEMPTED", node="n1", elapsed_s=3.0),
            "Slurm job 75 on n1 was PREEMPTED after 3 s",
        ),
        (
            JobFacts("75", "TIMEOUT", node="n1", elapsed_s=24.0),
            "Slurm job 75 on n1 ended with TIMEOUT after 24 s",
        ),
        (
            JobFacts("75", "FAILED", elapsed_s=0.0, exit_code=3),
            "Slurm job 75 has FAILED after 0 s with exit code 3",
        ),
        (JobFacts("75", "CANCELLED"), "Slurm job 75 was CANCELLED"),
    ],
)
def test_outcome_text(outcome: JobFacts, words: str) -> None:
    """Job, node, what happened and after how long, as far as it is known."""
    assert outcome_text("Slurm", outcome) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ModuleNotFoundError: No module named 'distributed'", "no package 'distributed'"),
        (
            "/env/bin/python: Error while finding module specification for "
            "'scalable_nb.worker.command' "
            "(ModuleNotFoundError: No module named 'scalable_nb.worker')",
            "another version of scalable_nb, without 'scalable_nb.worker': install the version",
        ),
        ("No module named scalable_nb", "no package 'scalable_nb'"),
        ("/opt/py/bin/python: No such file or directory", "'/opt/py/bin/python' is not there"),
        ("slurm_script: line 4: conda: command not found", "'conda' is not there"),
        ("OSError: Timed out trying to connect to tls://10.0.0.1:8786", "`interface:`"),
        ("ValueError: 'ib0' is not a valid network interface.", "no network interface 'ib0'"),
        ("FileNotFoundError: [Errno 2] '/home/x/tls/cert.pem'", "TLS files"),
        ("", "has not printed anything"),
    ],
)
def test_the_likely_cause_of_a_silent_job(line: str, words: str) -> None:
    """The job's own output tells why no worker came."""
    cause = likely_cause([line])
    assert cause is not None
    assert words in cause


def test_no_cause_is_made_up() -> None:
    """Output that fits no rule has no cause."""
    assert likely_cause(["Start Nanny at: tls://10.0.0.2:1"]) is None
