"""What every target promises, on a real Slurm: the suite of the local target, unchanged."""

from __future__ import annotations

import pytest
from real_slurm import RealSlurm
from test_backend_contract import *  # noqa: F403
from waiting import until

from scalable_nb import ScalableSession


@pytest.fixture
def target() -> str:
    """The target under test."""
    return "slurm"


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
