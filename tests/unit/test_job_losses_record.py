"""What the end of a job puts into the record of an attempt, and which budget pays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scalable_nb.batch_system.job_queue import Queue
from scalable_nb.batch_system.job_state import JobFacts
from scalable_nb.faults.decision import PolicyTerms, WorkerLossCause
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.tasks.task import FailedAttempt, TaskBatch
from scalable_nb.host.workers.job_losses import JobLosses
from scalable_nb.paths import RunPaths
from scalable_nb.protocol.exit_report import ExitReport
from scalable_nb.targets.fleet import WorkerGroup, WorkerKind
from scalable_nb.targets.jobqueue_fleet import JobFleet
from scalable_nb.telemetry.journal_reader import read_rows

WORKER = "tls://10.0.0.2:1"


class Accounting(Queue):
    """A batch system that knows one job."""

    reports_states = True

    def __init__(self, outcome: JobFacts | None) -> None:
        super().__init__("Slurm")
        self.outcome = outcome

    async def runs(self, job_ids: Any) -> dict[str, list[JobFacts]]:
        """The run that ended."""
        return {"75": [self.outcome]} if self.outcome else {}


def losses(queue: Queue) -> JobLosses:
    """With a worker of job 75 that has just connected."""
    entry = WorkerGroup("whole-0", WorkerKind("whole", {}, walltime_s=60.0), job_id="75")
    fleet: Any = SimpleNamespace(
        queue=queue,
        entry_of=lambda name: entry,
        job_id_of=lambda entry: entry.job_id,
        logs_of=lambda entry: list[Path](),
    )
    found = JobLosses(fleet)
    job_id_of = found.on_added(WORKER, "whole-0")
    assert job_id_of is not None
    assert job_id_of() == "75"
    return found


def amended(
    outcome: JobFacts | None, report: ExitReport | None = None, duration_s: float = 3.0
) -> tuple[FailedAttempt, WorkerLossCause]:
    """The record of an attempt of 3 s whose job met this fate."""

    async def settle() -> tuple[FailedAttempt, WorkerLossCause]:
        known = losses(Accounting(outcome))
        answered = asyncio.Event()
        if known.must_wait(WORKER, report, lambda worker: answered.set(), is_expected=False):
            await answered.wait()
        failure = FailedAttempt(
            failure_class="WorkerLostError",
            message="f(1): the worker was lost; nobody can say why",
            category="infrastructure",
            fingerprint="",
            duration_s=duration_s,
        )
        return known.amend("f(1)", WORKER, failure, WorkerLossCause.CRASH, report)

    return asyncio.run(settle())


def ended(state: str, **values: Any) -> JobFacts:
    """The end of job 75."""
    return JobFacts("75", state, started_at=1.0, ended_at=2e10, node="n1", source="sacct", **values)


@pytest.mark.parametrize(
    ("state", "loss"),
    [
        ("PREEMPTED", WorkerLossCause.PREEMPTION),
        ("REQUEUED", WorkerLossCause.REQUEUE),
        ("NODE_FAIL", WorkerLossCause.NODE_FAILURE),
        ("CANCELLED", WorkerLossCause.SCANCEL),
        ("TIMEOUT", WorkerLossCause.WALLTIME),
        ("OUT_OF_MEMORY", WorkerLossCause.OUT_OF_MEMORY),
        ("FAILED", WorkerLossCause.CRASH),
        ("COMPLETED", WorkerLossCause.SCALE_DOWN),
        ("SOMETHING_NEW", WorkerLossCause.CRASH),
    ],
)
def test_the_state_of_the_job_decides_which_budget_pays(state: str, loss: WorkerLossCause) -> None:
    """Each final state of a job is a loss of its own; what nobody knows counts as a crash."""
    failure, decided = amended(ended(state))
    assert decided is loss
    assert (failure.job_id, failure.job_state, failure.host) == ("75", state, "n1")


def test_an_attempt_that_had_a_whole_walltime_is_told_apart() -> None:
    """It would need the same time again: the message says what to raise."""
    failure, loss = amended(ended("TIMEOUT", elapsed_s=60.0), duration_s=57.0)
    assert loss is WorkerLossCause.WHOLE_WALLTIME
    assert failure.message == (
        "f(1): worker lost: Slurm job 75 on n1 ended with TIMEOUT after 60 s, all of which this "
        "attempt had to itself: it needs a longer `walltime:`"
    )


def test_a_kill_for_memory_is_an_out_of_memory_whatever_the_state() -> None:
    """Class, category and amounts say it; the state stays Slurm's own word."""
    outcome = ended(
        "FAILED",
        signal=9,
        is_out_of_memory=True,
        max_rss_bytes=500 * 2**20,
        memory_limit_bytes=300 * 2**20,
    )
    failure, loss = amended(outcome)
    assert loss is WorkerLossCause.OUT_OF_MEMORY
    assert (failure.failure_class, failure.category) == ("OutOfMemoryError", "resource")
    assert (failure.job_state, failure.exit_code) == ("FAILED", -9)
    assert failure.message.endswith("using 500.00 MiB of its limit of 300.00 MiB")


def test_slurms_own_word_for_out_of_memory_is_an_out_of_memory_error() -> None:
    """With cgroups Slurm says OUT_OF_MEMORY; its log, read beside it, need not know an amount."""
    outcome = ended(
        "OUT_OF_MEMORY", is_out_of_memory=True, elapsed_s=9.0, max_rss_bytes=300 * 2**20
    )
    failure, loss = amended(outcome)
    assert loss is WorkerLossCause.OUT_OF_MEMORY
    assert (failure.failure_class, failure.category) == ("OutOfMemoryError", "resource")
    assert (failure.job_state, failure.memory_bytes) == ("OUT_OF_MEMORY", 300 * 2**20)
    assert failure.message == (
        "f(1): worker lost: Slurm job 75 on n1 ended with OUT_OF_MEMORY after 9 s"
    )


def test_a_nanny_that_speaks_is_in_a_job_that_runs() -> None:
    """Then nobody is asked, and its word stands."""
    report = ExitReport("exit", {}, exit_code=3)
    failure, loss = amended(None, report)
    assert loss is WorkerLossCause.CRASH
    assert (failure.job_id, failure.job_state) == ("75", "RUNNING")
    assert failure.message.endswith("nobody can say why")


@pytest.mark.timeout(60)
def test_when_nobody_can_say_it_is_unknown() -> None:
    """After some questions without an answer the record says so."""
    failure, loss = amended(None)
    assert loss is WorkerLossCause.CRASH
    assert failure.message == "f(1): worker lost: what became of Slurm job 75 is unknown"
    assert failure.job_state is None


def test_a_job_id_that_comes_after_its_worker_is_recorded(tmp_path: Path) -> None:
    """A worker may connect while the other jobs are being submitted: its rows have the id, too."""
    paths = RunPaths(tmp_path / "run-1")
    paths.folder.mkdir()
    recorder = RunRecorder(paths, "slurm")
    cluster: Any = SimpleNamespace(workers={}, scheduler=SimpleNamespace(aliases={}))
    fleet = JobFleet(cluster, [WorkerKind("whole", {})], Queue("Slurm"), tmp_path)
    entry = fleet.entries["whole-0"] = WorkerGroup("whole-0", WorkerKind("whole", {}))
    job_id_of = JobLosses(fleet).on_added(WORKER, "whole-0")
    recorder.worker_came(WORKER, "whole-0", "10.0.0.2", 1, job_id_of)
    entry.job_id = "75"
    tracked = recorder.open("f-1", TaskBatch("id", function="f"), PolicyTerms())
    recorder.assign(tracked, WORKER)
    recorder.begin_attempt(tracked)
    failure = FailedAttempt("ValueError", "it broke", "permanent", "0" * 16)
    recorder.end_attempt(tracked, failure, retry_in_s=None, is_final=True)
    recorder.close()
    assert [row["job_id"] for row in read_rows(paths.failures).rows] == ["75"]
    code = recorder.ledger.columns["job"][tracked.row]
    assert recorder.ledger.strings[int(code)] == "75"
