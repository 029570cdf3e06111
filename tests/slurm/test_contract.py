"""What every target promises, on a real Slurm: the suite of the local target, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from counting import calls
from distributed import Future
from lost_calls import lost_then_refused
from real_slurm import RealSlurm
from test_backend_contract import *  # noqa: F403
from waiting import until

from scalable_nb import RetryPolicy, ScalableSession, TaskPolicy

_ONE_JOB = """
version: 1
project: {name: limited}
targets:
  slurm: {provider: slurm, max_workers: 1, threads_per_worker: 1, walltime: "00:10:00"}
components:
  any: {cpus: 1, memory: 400M}
"""


@pytest.fixture
def target() -> str:
    """The target under test."""
    return "slurm"


@pytest.fixture(scope="module", autouse=True)
def at_its_limit(
    shared_session: ScalableSession,  # ends later: at its end it empties the Slurm of both
    slurm_plain_instance: RealSlurm,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[ScalableSession, Future[Any]]]:
    """A session beside the others, whose task is in a job that is at its time limit.

    Slurm looks at that every 30 s, in which the tests of this module run.
    """
    folder: Path = tmp_path_factory.mktemp("limited")
    (folder / "scalable.yaml").write_text(_ONE_JOB)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        slurm_plain_instance.use(patch)
        session = ScalableSession.from_yaml(target="slurm")
        client = session.start()
    policy = TaskPolicy(RetryPolicy(1, base_s=0.1), worker_losses=1)
    future = client.submit(lost_then_refused, str(folder), 1, policy=policy)
    until(lambda: calls(folder, 1) == 1, timeout_s=60)
    job_id = (folder / "job-1").read_text()
    slurm_plain_instance.scontrol("update", f"JobId={job_id}", "EndTime=now+1seconds")
    yield session, future
    session.close()


def test_a_job_at_its_time_limit_costs_no_retry(
    at_its_limit: tuple[ScalableSession, Future[Any]],
) -> None:
    """It is told as TIMEOUT, and costs a worker loss; the one retry is there for another error."""
    session, future = at_its_limit
    assert future.result(timeout=90) == 1
    lost, failed, ran = session.client.attempts(future)
    assert (lost["job_state"], lost["exit_code"], lost["is_final"]) == ("TIMEOUT", -9, False)
    assert f"worker lost: Slurm job {lost['job_id']} on n" in lost["message"]
    assert "ended with TIMEOUT after " in lost["message"]
    assert any("DUE TO TIME LIMIT" in line for line in lost["details"]["log_tail"])
    assert (failed["failure_class"], failed["will_retry"]) == ("ConnectionError", True)
    assert ran["outcome"] == "succeeded"


def test_slurm_is_asked_for_all_jobs_at_once_and_ever_more_rarely(
    shared_session: ScalableSession, slurm_plain_instance: RealSlurm
) -> None:
    """One `squeue` for all jobs of a session, 2 s after the last one, and later where nothing
    happens; none for a job alone."""

    def gaps_s() -> list[float]:
        return slurm_plain_instance.calls("squeue", str(shared_session.run_id)[-6:]).gaps_s

    assert len(shared_session.status().jobs) == 2
    until(lambda: max(gaps_s()) > 3.5, timeout_s=60)
    # One call may begin late on a busy machine, all of them together not.
    assert sum(gaps_s()) > 2 * len(gaps_s()) - 2
    assert slurm_plain_instance.calls("squeue", "--jobs", "-j").words == []
