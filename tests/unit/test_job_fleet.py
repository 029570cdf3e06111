"""What a fleet of jobs makes of what it is told, and which logs are a job's own."""

from __future__ import annotations

from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import Any

import pytest

from scalable_nb.batch_system.job_logs import logs_of_job
from scalable_nb.batch_system.job_queue import FIRST_SPACING_S, Queue, longer_s
from scalable_nb.batch_system.job_state import JobFacts
from scalable_nb.targets.fleet import WorkerGroup, WorkerKind
from scalable_nb.targets.jobqueue_fleet import JobFleet

KIND = WorkerKind("any", {}, walltime_s=3600)


class FixedQueue(Queue):
    """A batch system that has said this."""

    def __init__(self, *facts: JobFacts) -> None:
        super().__init__("Slurm")
        self._facts = {said.job_id: said for said in facts}

    def facts(self, job_id: str) -> JobFacts | None:
        return self._facts.get(job_id)


def fleet(*entries: WorkerGroup, facts: tuple[JobFacts, ...] = ()) -> JobFleet:
    """Jobs without any worker."""
    cluster: Any = SimpleNamespace(workers={}, scheduler=SimpleNamespace(aliases={}))
    jobs = JobFleet(cluster, [KIND], FixedQueue(*facts), Path())
    jobs.entries = {entry.name: entry for entry in entries}
    return jobs


def test_a_lost_job_that_nobody_mentions_is_given_up_after_a_while() -> None:
    """On another cluster of the federation, say; while the batch system knows it, that decides."""
    lately = WorkerGroup("any-0", KIND, job_id="1", lost_at=time() - 5)
    long_ago = WorkerGroup("any-1", KIND, job_id="2", lost_at=time() - 30)
    waiting = WorkerGroup("any-2", KIND, job_id="3")
    silent = fleet(lately, long_ago, waiting)
    ends = [silent.how_ended(entry) for entry in (lately, long_ago, waiting)]
    assert ends == [None, "lost its workers", None]
    assert fleet(facts=(JobFacts("2", "PENDING"),)).how_ended(long_ago) is None
    assert fleet(facts=(JobFacts("1", "TIMEOUT"),)).how_ended(lately) == "TIMEOUT"


def test_a_quiet_queue_is_asked_ever_more_rarely() -> None:
    """Every 2, 4, 8, 16 and then 30 s."""
    waits_s = [FIRST_SPACING_S]
    while len(waits_s) < 6:
        waits_s.append(longer_s(waits_s[-1]))
    assert waits_s == [2, 4, 8, 16, 30, 30]


def test_a_job_has_as_long_as_both_say_that_know_of_it() -> None:
    """Its nanny knows its start, the batch system its end, which may have been changed."""
    entry = WorkerGroup("any-0", KIND, job_id="1")
    assert entry.remaining_s is None
    fleet(entry, facts=(JobFacts("1", "RUNNING", ends_at=time() + 1800),)).observe()
    assert entry.is_running
    assert entry.remaining_s == pytest.approx(1800, abs=30)
    entry.note_start(time() - 3000)
    assert entry.remaining_s == pytest.approx(600, abs=30)
    fleet(entry, facts=(JobFacts("1", "PENDING"),)).observe()
    assert not entry.is_running
    assert entry.ends_at is None


@pytest.mark.parametrize(
    ("job_id", "own"),
    [
        ("1", ["scalable-1e39ce-1.err", "scalable-1e39ce-1.out"]),
        ("39", []),
        ("12", ["scalable-1e39ce-12.err", "scalable-1e39ce-12_0.err"]),
        ("7.server", ["dask-worker.e7", "dask-worker.o7"]),
    ],
)
def test_the_logs_of_a_job_are_told_from_those_of_others(
    tmp_path: Path, job_id: str, own: list[str]
) -> None:
    """By its id, which must not be taken for digits of the run's name or of another id."""
    for name in (
        "scalable-1e39ce-1.err", "scalable-1e39ce-1.out", "scalable-1e39ce-12.err",
        "scalable-1e39ce-12_0.err", "scalable-1e39ce-4.err", "dask-worker.e7", "dask-worker.o7",
        "dask-worker.o77",
    ):  # fmt: skip
        (tmp_path / name).touch()
    assert [path.name for path in logs_of_job(tmp_path, job_id)] == own
