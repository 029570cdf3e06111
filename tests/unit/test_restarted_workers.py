"""Tasks that are to run on one worker find its new process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tracked_scheduler import SchedulerAlone

from scalable_nb.faults.decision import PolicyTerms


@pytest.fixture
def host() -> Iterator[SchedulerAlone]:
    """A scheduler with the host's parts."""
    host = SchedulerAlone()
    yield host
    host.close()


def place_of(host: SchedulerAlone, key: str) -> str | None:
    """Return the address of the worker that a task was sent to."""
    ws = host.scheduler.tasks[key].processing_on
    return ws.address if ws is not None else None


def submit(host: SchedulerAlone, worker: str, *, allow_other_workers: bool = False) -> None:
    """Submit a task that is to run on one worker."""
    host.submit(
        ["a"], PolicyTerms(), [], "batch",
        workers=[worker], allow_other_workers=allow_other_workers,
    )  # fmt: skip


@pytest.mark.parametrize("by", ["name", "address"])
def test_task_follows_its_worker_through_a_restart(host: SchedulerAlone, by: str) -> None:
    """It waits until the worker of that name has restarted, and runs on no other."""
    address, other = host.add_worker(name="worker-0"), host.add_worker(name="worker-1")
    submit(host, "worker-0" if by == "name" else address)
    assert place_of(host, "a") == address
    host.remove_worker(address, is_expected=True)
    assert place_of(host, "a") is None
    again = host.add_worker(name="worker-0")
    assert other != again != address
    assert place_of(host, "a") == again


def test_task_that_is_submitted_during_a_restart_finds_its_worker(host: SchedulerAlone) -> None:
    """The scheduler does not know the name at that moment."""
    first = host.add_worker(name="worker-0")
    host.add_worker(name="worker-1")
    host.remove_worker(first, is_expected=True)
    submit(host, "worker-0")
    assert place_of(host, "a") is None
    assert place_of(host, "a") != host.add_worker(name="worker-2")
    again = host.add_worker(name="worker-0")
    assert place_of(host, "a") == again


def test_task_may_run_elsewhere_if_it_says_so(host: SchedulerAlone) -> None:
    """With ``allow_other_workers`` it does not wait for the restart."""
    address, other = host.add_worker(name="worker-0"), host.add_worker(name="worker-1")
    host.remove_worker(address, is_expected=True)
    submit(host, "worker-0", allow_other_workers=True)
    assert place_of(host, "a") == other
