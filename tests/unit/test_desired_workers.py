"""How many workers there should be, and when one has too little time left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.batch_system.walltime import leaves_at_s, walltime_s
from scalable_nb.host.workers.demand import SHRINK_AFTER_S, DesiredWorkers, Limits
from scalable_nb.manifest.planner import worker_shares


@pytest.mark.parametrize(
    ("tasks", "threads", "workers"), [(0, 1, 1), (1, 4, 1), (5, 4, 2), (7, 1, 7), (100, 1, 8)]
)
def test_the_work_decides_within_the_limits(tasks: int, threads: int, workers: int) -> None:
    """As many workers as their threads are enough for, from the minimum to the maximum."""
    assert Limits(1, 8).fit(tasks, threads) == workers


def test_it_grows_at_once_and_shrinks_after_a_while() -> None:
    """A short pause between two batches costs no worker."""
    desired = DesiredWorkers(0, Limits(0, 10))
    desired.adapt(6, 1, now=0)
    assert desired.count == 6
    desired.adapt(2, 1, now=1)
    desired.adapt(2, 1, now=SHRINK_AFTER_S)
    assert desired.count == 6
    desired.adapt(6, 1, now=SHRINK_AFTER_S + 0.5)
    desired.adapt(2, 1, now=SHRINK_AFTER_S + 1)
    desired.adapt(2, 1, now=2 * SHRINK_AFTER_S + 1)
    assert desired.count == 2


def test_a_number_that_was_asked_for_stays() -> None:
    """Without limits no amount of work changes the number."""
    desired = DesiredWorkers(3)
    desired.adapt(1000, 1, now=0)
    assert desired.count == 3


@given(
    st.integers(0, 100),
    st.dictionaries(st.text(max_size=3), st.none() | st.integers(0, 20), min_size=1),
)
def test_nobody_is_left_without_a_share(total: int, given: dict[str, int | None]) -> None:
    """Who says a number gets it; the others get one at least, and equally many but for one."""
    shares = worker_shares(total, given)
    assert all(shares[name] == count for name, count in given.items() if count is not None)
    others = [shares[name] for name, count in given.items() if count is None]
    assert all(others)
    assert not others or max(others) - min(others) <= 1


@pytest.mark.parametrize(
    ("provider", "text", "seconds"),
    [
        ("slurm", "90", 5400),
        ("slurm", "90:30", 5430),
        ("slurm", "01:00:00", 3600),
        ("slurm", "2-12", 216000),
        ("slurm", "1-00:30:10", 88210),
        ("slurm", "UNLIMITED", None),
        ("lsf", "00:30", 1800),
        ("lsf", "30", 1800),
        ("pbs", "00:30:00", 1800),
        ("sge", "3600", 3600),
        ("oar", "00:30:00", 1800),
        ("slurm", None, None),
    ],
)
def test_a_walltime_is_read_as_its_batch_system_reads_it(
    provider: str, text: str | None, seconds: float | None
) -> None:
    """The same text means minutes here and hours there."""
    assert walltime_s(provider, text) == seconds


@given(st.floats(60, 1e6), st.floats(0, 1e7), st.integers(0, 1000))
def test_a_fresh_worker_gets_tasks_in_any_case(walltime: float, needed: float, number: int) -> None:
    """However long a task may take, half of a walltime is there to work in."""
    assert 0 < leaves_at_s(walltime, needed, number) <= walltime / 2


def test_workers_that_began_together_do_not_end_together() -> None:
    """Four neighbours leave at four different times."""
    assert len({leaves_at_s(3600, 60, number) for number in range(4)}) == 4
