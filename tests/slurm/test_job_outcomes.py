"""What became of a job, as found out from a real Slurm, with accounting and without."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from real_slurm import EVERYWHERE, RealSlurm
from waiting import until

from scalable_nb.batch_system.job_outcomes import WAITS_S, JobOutcomes, LostJob
from scalable_nb.batch_system.job_queue import SlurmQueue
from scalable_nb.batch_system.job_state import JobFacts, outcome_text

NAME = "outcomes"

#: Waits without children, so that the signal that ends it ends all of it.
WAIT = "echo begun; exec sleep 600"

#: Touches half a gigabyte, which is more than the job has asked for.
EAT = """exec python3 -c "
import time
eaten = bytearray(500_000_000)
for i in range(0, len(eaten), 4096):
    eaten[i] = 1
time.sleep(600)
" """


class Running:
    """A job whose worker has just connected.

    Parameters
    ----------
    slurm : RealSlurm
    folder : Path
        For its log.
    script : str
    options : str
        Of ``sbatch``.
    """

    def __init__(self, slurm: RealSlurm, folder: Path, script: str, *options: str) -> None:
        options = (f"--job-name={NAME}", "--open-mode=append", "--mem=300M", *options)
        self.slurm = slurm
        self.log = folder / "job.log"
        self.job_id = slurm.sbatch(script, self.log, *options)
        # The end of a script that ends by itself may come before anybody has seen it run.
        slurm.until_state(self.job_id, "RUNNING", "FAILED", "COMPLETED")
        self.came_at = time.time()
        self.queue = SlurmQueue(NAME)
        asyncio.run(self.queue.look())
        self.before = self.queue.last_running(self.job_id)

    def outcome(self, waits_s: Sequence[float] = WAITS_S) -> JobFacts:
        """What became of it, as a host finds out."""

        async def query() -> JobFacts | None:
            answer: asyncio.Future[JobFacts | None] = asyncio.get_running_loop().create_future()
            lost = LostJob(
                self.job_id, self.came_at, lambda: [self.log], self.before, answer.set_result
            )
            JobOutcomes(self.queue, waits_s).query(lost)
            return await answer

        outcome = asyncio.run(query())
        assert outcome is not None
        return outcome


@pytest.fixture
def job(any_slurm: RealSlurm, tmp_path: Path) -> Running:
    """A job that runs on a node and waits."""
    job = Running(any_slurm, tmp_path, WAIT)
    until(lambda: job.log.exists() and "begun" in job.log.read_text())
    return job


def test_a_cancelled_job(job: Running) -> None:
    """After `scancel`: CANCELLED, by which signal, where and after how long."""
    job.slurm.instance.run_client("scancel", job.job_id)
    outcome = job.outcome()
    assert (outcome.state, outcome.signal, outcome.node) == ("CANCELLED", 15, "n1")
    assert outcome_text("Slurm", outcome).startswith(
        f"Slurm job {job.job_id} on n1 was CANCELLED after "
    )
    assert outcome.log_tail[0] == "begun"


def test_a_requeued_job(job: Running) -> None:
    """After a requeue: REQUEUED, also when it is cancelled before anybody asks."""
    job.slurm.scontrol("requeue", job.job_id)
    assert (job.outcome().state, job.outcome().node) == ("REQUEUED", "n1")
    job.slurm.instance.run_client("scancel", job.job_id)
    assert job.outcome().state == "REQUEUED"


def _preempted(slurm: RealSlurm, folder: Path) -> Running:
    job = Running(slurm, folder, WAIT, *EVERYWHERE)
    slurm.sbatch("sleep 1", folder / "urgent.log", "--partition=urgent", "--exclusive")
    slurm.until_state(job.job_id, "PENDING")
    return job


def test_a_preempted_job(slurm: RealSlurm, tmp_path: Path) -> None:
    """Evicted by a higher partition: PREEMPTED, and after how long."""
    outcome = _preempted(slurm, tmp_path).outcome()
    assert outcome.state == "PREEMPTED"
    assert outcome.elapsed_s is not None


def test_a_preempted_job_that_runs_again(slurm_plain: RealSlurm, tmp_path: Path) -> None:
    """It stays PREEMPTED, although the controller knows only of the second run."""
    job = _preempted(slurm_plain, tmp_path)
    assert job.outcome().state == "PREEMPTED"
    slurm_plain.until_state(job.job_id, "RUNNING")
    outcome = job.outcome()
    assert outcome.state == "PREEMPTED"
    assert outcome.elapsed_s is not None


def test_a_job_whose_node_failed(job: Running) -> None:
    """When its node goes down: NODE_FAIL."""
    job.slurm.scontrol("update", "NodeName=n1", "State=DOWN", "Reason=test")
    outcome = job.outcome()
    assert (outcome.state, outcome.node) == ("NODE_FAIL", "n1")
    assert outcome_text("Slurm", outcome).startswith(
        f"Slurm job {job.job_id} on n1 ended with NODE_FAIL"
    )


def test_a_job_that_failed(any_slurm: RealSlurm, tmp_path: Path) -> None:
    """A script that ends badly: FAILED, with its exit code and its last words."""
    job = Running(any_slurm, tmp_path, "echo no such module >&2; exit 3")
    outcome = job.outcome()
    assert (outcome.state, outcome.exit_code, outcome.signal) == ("FAILED", 3, None)
    assert outcome.log_tail == ("no such module",)


def test_a_job_that_used_too_much_memory(any_strict_slurm: RealSlurm, tmp_path: Path) -> None:
    """Killed for its memory: known as that, with what it used and its limit."""
    job = Running(any_strict_slurm, tmp_path, EAT)
    any_strict_slurm.until_state(job.job_id, "FAILED")
    outcome = job.outcome()
    assert outcome.is_out_of_memory
    assert (outcome.state, outcome.signal, outcome.memory_limit_bytes) == ("FAILED", 9, 300 * 2**20)
    assert outcome.max_rss_bytes is not None
    assert outcome.max_rss_bytes > 300 * 2**20


def test_a_running_job_has_no_outcome(slurm: RealSlurm, tmp_path: Path) -> None:
    """While a job still runs, nobody says that it has ended."""
    job = Running(slurm, tmp_path, WAIT)
    with pytest.raises(AssertionError):
        job.outcome(waits_s=(0.3, 0.7))
