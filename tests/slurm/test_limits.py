"""Jobs of several workers, and what ends them: time left, replacements, core hours."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counting import calls, mark
from real_slurm import RealSlurm
from waiting import until

from scalable_nb import ScalableSession, TaskPolicy

Start = Callable[..., ScalableSession]

MANIFEST = """
version: 1
project: {name: limits}
targets:
  slurm:
    provider: slurm
    max_workers: %(workers)d
    threads_per_worker: 1
    walltime: "00:10:00"
    %(limits)s
components:
  any: {cpus: %(cpus)d, memory: 600M}
"""


def _write_manifest(folder: Path, limits: str, *, workers: int = 2, cpus: int = 2) -> None:
    text = MANIFEST % {"limits": limits, "workers": workers, "cpus": cpus}
    (folder / "scalable.yaml").write_text(text)


def _names(session: ScalableSession) -> set[str]:
    return {worker["name"] for worker in session.status().workers}


def _notices(session: ScalableSession, words: str) -> list[str]:
    return [notice for notice in session.status().notices if words in notice]


def _remaining_s(job: str, dask_scheduler: Any) -> float:
    """How long the host thinks that a job may go on."""
    handler = dask_scheduler.handlers["scalable_job_began"]
    scaling = inspect.getclosurevars(handler).nonlocals["handle"].__self__
    remaining_s: float = scaling._fleet.entries[job].remaining_s or 0.0
    return remaining_s


def test_workers_of_one_job_come_and_go_together(
    start: Start, folder: Path, slurm: RealSlurm
) -> None:
    """With `processes: 2` a job has two workers. Tasks that would take longer than it has left
    get another job; one that is lost is replaced, as often as `max_worker_replacements` says."""
    _write_manifest(folder, "processes: 2\n    max_worker_replacements: 1")
    session = start("slurm")
    until(lambda: _names(session) == {"any-0-0", "any-0-1"}, timeout_s=60)
    assert slurm.squeue("%C %m") == ["2 573M"]
    sizes = [worker["memory_limit_bytes"] for worker in session.status().workers]
    assert sizes == pytest.approx([300e6] * 2, rel=0.01)
    (short,) = slurm.squeue("%i")

    def job_of(_: int) -> str:
        return os.environ["SLURM_JOB_ID"]

    assert set(session.client.map(job_of, range(4)).results()) == {short}
    until(lambda: session.client.run_on_scheduler(_remaining_s, "any-0") > 500)
    slurm.scontrol("update", f"JobId={short}", "EndTime=now+200seconds")
    until(lambda: session.client.run_on_scheduler(_remaining_s, "any-0") <= 200, timeout_s=60)
    assert set(session.client.map(job_of, range(4, 8)).results()) == {short}
    limited = session.client.map(job_of, range(8, 12), policy=TaskPolicy(timeout_s=300))
    (long,) = set(limited.results())
    assert long != short
    until(lambda: slurm.squeue("%i") == [long], timeout_s=60)
    assert session.failures() == []

    slurm.instance.run_client("scancel", "--full", "--signal=KILL", long)
    until(lambda: _names(session) == {"any-2-0", "any-2-1"}, timeout_s=60)
    (last,) = slurm.squeue("%i")
    assert _notices(session, "max_worker_replacements") == []
    slurm.instance.run_client("scancel", "--full", "--signal=KILL", last)
    until(lambda: _notices(session, "max_worker_replacements"), timeout_s=60)
    assert "2 workers were lost" in _notices(session, "max_worker_replacements")[0]
    assert slurm.squeue() == []


def test_core_hours_that_are_used_up_end_no_task(
    start: Start, folder: Path, slurm: RealSlurm
) -> None:
    """Beyond `max_core_hours` nothing begins; what runs is finished, and its result is kept for
    another session. It is said, and no job is left."""
    # About five seconds of one job with all cores of a node.
    _write_manifest(folder, "max_core_hours: 0.006", workers=1, cpus=4)
    session = start("slurm")

    def function(x: int) -> int:
        mark(folder, x)
        while not (folder / "gate").exists():
            time.sleep(0.05)
        return x

    futures = session.client.map(function, range(3))
    until(lambda: _notices(session, "budget of 0.006 core hours is used up"), timeout_s=60)
    assert sum(calls(folder, x) for x in range(3)) == 1
    (folder / "gate").touch()
    until(lambda: slurm.squeue() == [], timeout_s=60)
    until(lambda: not session.status().workers)
    assert sum(calls(folder, x) for x in range(3)) == 1
    assert session.failures() == []
    assert len(_notices(session, "1 results were still wanted and are kept")) == 1
    assert len(futures) == 3
