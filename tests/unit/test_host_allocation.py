"""When the job of a host ends, and that the host goes in time."""

from __future__ import annotations

from pathlib import Path
from time import time

import psutil
import pytest

from scalable_nb.batch_system.job_queue import Queue, open_queue
from scalable_nb.batch_system.job_state import JobFacts
from scalable_nb.host.allocation import HostAllocation
from scalable_nb.manifest.schema import PROVIDERS, HostJob, Target
from scalable_nb.session.status import SessionStatus


class _FixedQueue(Queue):
    """A batch system that has said when jobs end."""

    def __init__(self, ends_at: float) -> None:
        super().__init__("Slurm")
        self._ends_at = ends_at

    def facts(self, job_id: str) -> JobFacts | None:
        return JobFacts(job_id, "RUNNING", node="n7", ends_at=self._ends_at)


def test_a_host_knows_its_job() -> None:
    """By the variable of its batch system, with the walltime that was asked for it."""
    target = Target(provider="pbs", host="job", host_job=HostJob(walltime="02:00:00"))
    job = HostAllocation.of(target, Queue("PBS"), {"PBS_JOBID": "9.srv"})
    assert (str(job), job.walltime_s) == ("PBS job 9.srv", 7200.0)
    assert job.ends_at == pytest.approx(psutil.Process().create_time() + 7200)
    assert not job.is_nearly_over


@pytest.mark.parametrize(("ago_s", "is_over"), [(0, False), (6800, False), (6950, True)])
def test_it_goes_minutes_before_its_walltime_is_over(ago_s: float, is_over: bool) -> None:
    """Of two hours it leaves five minutes."""
    assert HostAllocation("9", Queue("PBS"), 7200.0, time() - ago_s).is_nearly_over is is_over


def test_the_batch_system_knows_better() -> None:
    """Who asks for more time or less while the job runs is heard."""
    sooner = HostAllocation("9", _FixedQueue(time() + 200), 7200.0, time())
    assert sooner.is_nearly_over
    later = HostAllocation("9", _FixedQueue(time() + 9000), 7200.0, time() - 7100)
    assert not later.is_nearly_over
    assert HostAllocation("9", Queue("SGE"), None, time()).ends_at is None
    assert not HostAllocation("9", Queue("SGE"), None, time()).is_nearly_over


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != "local"])
def test_where_nobody_says_why_a_job_waits_it_is_said_who_does(provider: str) -> None:
    """The command of the batch system itself; Slurm is asked anyway."""
    advice = open_queue(provider, "name").advice("4711")
    assert ("4711` says why it waits." in advice) is (provider != "slurm")


def test_a_status_says_where_the_host_is_and_until_when() -> None:
    """The end is told as a time and as what is left; a dashboard elsewhere with the way there."""
    job = HostAllocation("9", _FixedQueue(time() + 2 * 3600 + 30), 7200.0, time())
    status = SessionStatus(
        run_id="run-1", target="slurm", state="running", host_pid=1, workers=[], counts={},
        dashboard_link="http://127.0.0.1:4567/s-1/status", folder=Path("/runs/run-1"),
        started_at="2026-01-01T00:00:00Z", host="node-of-nobody", host_job=job.row(),
    )  # fmt: skip
    assert "host: Slurm job 9 on n7; its walltime, and the session, ends " in str(status)
    assert "(in 2:00:00)" in str(status)
    way = "`ssh -N -L 4567:127.0.0.1:4567 node-of-nobody`, then"
    assert f"{way} `session.dashboard_link`" in str(status)
    assert f"{way} http://127.0.0.1:4567/s-1/status" in status.text(status.dashboard_link)
    assert "s-1" not in str(status) + repr(status)
