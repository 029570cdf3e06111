"""How much time a worker must still have for what it may be given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tracked_scheduler import SchedulerAlone

from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.host.workers.demand import Durations


@pytest.fixture
def alone() -> Iterator[SchedulerAlone]:
    """A scheduler with one worker."""
    alone = SchedulerAlone()
    alone.add_worker()
    yield alone
    alone.close()


def _durations(alone: SchedulerAlone) -> Durations:
    return Durations(alone.parts.registry, alone.recorder.ledger)


def _run(alone: SchedulerAlone, keys: list[str]) -> None:
    alone.submit(keys, PolicyTerms(), [], "seconds")
    while running := list(alone.processing()):
        for key, worker, run_id in running:
            alone.finish(key, worker, run_id)


def test_what_tasks_took_says_what_others_will_take(alone: SchedulerAlone) -> None:
    """The 95th percentile counts for every kind of worker, once enough tasks have ended."""
    _run(alone, [f"few-{n}" for n in range(19)])
    assert _durations(alone).needed_s("any") == 0
    _run(alone, ["one more"])
    assert _durations(alone).needed_s("any") == pytest.approx(1.0, abs=0.1)


def test_a_time_limit_counts_from_the_moment_its_tasks_arrive(alone: SchedulerAlone) -> None:
    """It stands before what others took, at once, and goes when its tasks are done."""
    _run(alone, [f"many-{n}" for n in range(20)])
    durations = _durations(alone)
    assert durations.needed_s("any") == pytest.approx(1.0, abs=0.1)
    assert durations.expect("", 300.0)
    assert durations.needed_s("any") == 300.0
    assert not durations.expect("any", 200.0)
    alone.submit(["slow"], PolicyTerms(timeout_s=400.0), [], "limited")
    assert _durations(alone).expect("", 400.0)  # not by finding these tasks itself
    assert _durations(alone).needed_s("any") == 400.0
