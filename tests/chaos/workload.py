"""The tasks of the storm: what they do, what has to come out, and how often they ran."""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from distributed import Future, as_completed, get_worker

from scalable_nb import RetryPolicy, TaskPolicy
from scalable_nb.client.client import ScalableClient
from scalable_nb.telemetry.rows import key_text

#: Of every hundred tasks: so many fail a few times first, always fail, must not run twice.
FLAKY, HOPELESS, ONCE = 20, 1, 15
_GROUP = 25  # so many results go into one sum
_MAX_FAILURES = 3  # of a flaky task
_PATIENT = 1000  # losses of a worker that a task of the storm outlives
_WAITS = RetryPolicy(_MAX_FAILURES, base_s=0.05, max_s=0.5)


@dataclass(frozen=True)
class Job:
    """One task: it runs ``seconds`` long, and fails ``failures`` times first (-1: always)."""

    number: int
    seconds: float
    failures: int = 0
    is_once: bool = False

    @property
    def value(self) -> int:
        """What the task returns."""
        return self.number**2 + 1


@dataclass(frozen=True)
class Expectation:
    """What has to become of a task; ``value`` is None for one that has to fail."""

    value: int | None
    is_once: bool = False


def make_jobs(count: int, seconds: float, random: Random) -> list[Job]:
    """The same tasks for the same seed; ``seconds`` is how long one takes on average."""
    jobs = []
    for number in range(count):
        kind, duration_s = random.randrange(100), random.uniform(0, 2 * seconds)
        if kind < FLAKY:
            jobs.append(Job(number, duration_s, failures=random.randint(1, _MAX_FAILURES)))
        elif kind < FLAKY + HOPELESS:
            jobs.append(Job(number, duration_s, failures=-1))
        else:
            jobs.append(Job(number, duration_s, is_once=kind < FLAKY + HOPELESS + ONCE))
    return jobs


def execute(job: Job, folder: Path) -> int:
    """What a worker does for a task; counts itself on disk before anything else."""
    before = count_execution(folder, f"job-{job.number}")
    time.sleep(job.seconds)
    if job.failures < 0:
        raise ValueError(f"{job.number} always fails")
    if before < job.failures:
        raise ConnectionError(f"{job.number} fails at first")
    return job.value


def add_up(number: int, values: list[int], folder: Path) -> int:
    """A task that takes the results of others, and has them computed again when they are lost."""
    count_execution(folder, f"sum-{number}")
    return sum(values)


class Mark(NamedTuple):
    """What an execution leaves on disk: when and in which process it was, and Dask's number."""

    at: float
    pid: int
    run_id: int


_MARK: Final = struct.Struct("<dqq")


def count_execution(folder: Path, name: str) -> int:
    """Note one execution; returns how many there were before."""
    worker = get_worker()
    run_id = worker.state.tasks[worker.get_current_task()].run_id
    descriptor = os.open(folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, _MARK.pack(time.time(), os.getpid(), run_id))
        return os.lseek(descriptor, 0, os.SEEK_CUR) // _MARK.size - 1
    finally:
        os.close(descriptor)


def read_marks(path: Path) -> list[Mark]:
    """The executions that were noted in a file."""
    return [Mark(*values) for values in _MARK.iter_unpack(path.read_bytes())]


@dataclass(frozen=True)
class Submitted:
    """The futures of the storm, and what is known of each of their keys.

    The futures are dropped as their outcomes are collected, so that a lost worker costs no
    results that a person has already.
    """

    futures: list[Future[Any]]
    expected: dict[str, Expectation]  # by key as text
    names: dict[str, str]  # under which its executions are counted
    outcomes: dict[str, Any] = field(default_factory=dict)  # results and exceptions

    def collect(self) -> None:
        """Wait for all tasks, in the order in which they end."""
        ending = as_completed(self.futures)
        self.futures.clear()
        for future in ending:
            try:
                self.outcomes[key_text(future.key)] = future.result()
            except Exception as error:
                self.outcomes[key_text(future.key)] = error

    def executions(self, folder: Path) -> dict[str, list[Mark]]:
        """When and where each task ran, by key as text."""
        marks = {path.name: read_marks(path) for path in folder.iterdir()}
        return {key: marks.get(name, []) for key, name in self.names.items()}


def submit(client: ScalableClient, jobs: list[Job], folder: Path) -> Submitted:
    """Submit all tasks, and sums of those that give a result for sure."""
    again = TaskPolicy(worker_losses=_PATIENT)
    once = TaskPolicy(idempotent=False)
    futures: dict[int, Future[Any]] = {}
    for is_once, policy in ((False, again), (True, once)):
        chosen = [job for job in jobs if job.is_once is is_once]
        retries = None if is_once else _WAITS
        listed = client.map(execute, chosen, folder=folder, policy=policy, retries=retries)
        futures.update(zip((job.number for job in chosen), listed, strict=True))
    expected = {
        key_text(futures[job.number].key): Expectation(
            None if job.failures < 0 else job.value, is_once=job.is_once
        )
        for job in jobs
    }
    names = {key_text(future.key): f"job-{number}" for number, future in futures.items()}
    addable = [job for job in jobs if job.failures >= 0 and not job.is_once]
    for start in range(0, len(addable), _GROUP):
        group = addable[start : start + _GROUP]
        inputs = [futures[job.number] for job in group]
        total = client.submit(add_up, start, inputs, folder, policy=again)
        futures[-1 - start] = total
        expected[key_text(total.key)] = Expectation(sum(job.value for job in group))
        names[key_text(total.key)] = f"sum-{start}"
    return Submitted(list(futures.values()), expected, names)
