"""Sessions whose jobs come to an end: right results, and records that say what happened."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counting import calls, mark
from real_slurm import RealSlurm
from waiting import until

from scalable_nb import ScalableSession, TaskPolicy, errors

Start = Callable[..., ScalableSession]

#: A loss that costs anything is the end of the task.
NOTHING_TO_SPEND = TaskPolicy(worker_losses=0)

MANIFEST = """
version: 1
project: {name: fates}
targets:
  slurm: {provider: slurm, max_workers: WORKERS, threads_per_worker: 1, walltime: "00:10:00"}
components:
  whole: {cpus: 4, memory: 400M}
"""


def _write_manifest(folder: Path, workers: int) -> None:
    (folder / "scalable.yaml").write_text(MANIFEST.replace("WORKERS", str(workers)))


def _until_lost(folder: str, x: int) -> int:
    """Waits at its first call for somebody to end it, and returns at the second."""
    mark(Path(folder), x)
    if calls(Path(folder), x) == 1:
        time.sleep(600)
    return x


def _jobs_by_node(slurm: RealSlurm) -> dict[str, str]:
    return dict(line.split() for line in slurm.squeue("%N %i"))


def _rows(session: ScalableSession, count: int) -> list[dict[str, Any]]:
    assert session.paths is not None
    path = session.paths.failures

    def rows() -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    until(lambda: path.exists() and len(rows()) >= count)
    return rows()


def test_four_jobs_meet_four_fates(start: Start, folder: Path, any_slurm: RealSlurm) -> None:
    """Cancelled, requeued, preempted, node failed: each task runs again, uncharged, and each
    record says which it was, of which job, where, and what the job's log said last."""
    slurm = any_slurm
    _write_manifest(folder, 4)
    session = start("slurm")
    futures = session.client.map(
        _until_lost, [str(folder)] * 4, range(4), policy=NOTHING_TO_SPEND, pure=False
    )
    until(lambda: all(calls(folder, x) == 1 for x in range(4)), timeout_s=60)
    jobs = _jobs_by_node(slurm)
    assert set(jobs) == {"n1", "n2", "n3", "n4"}

    slurm.instance.ask("scancel", jobs["n1"])
    slurm.scontrol("requeue", jobs["n2"])
    slurm.sbatch("sleep 1", folder / "urgent.log", "--partition=urgent", "-w", "n3", "--exclusive")
    slurm.scontrol("update", "NodeName=n4", "State=DOWN", "Reason=test")

    rows = {row["job_id"]: row for row in _rows(session, 4)}
    assert {node: rows[job]["job_state"] for node, job in jobs.items()} == {
        "n1": "CANCELLED",
        "n2": "REQUEUED",
        "n3": "PREEMPTED",
        "n4": "NODE_FAIL",
    }
    for node, job in jobs.items():
        row = rows[job]
        assert (row["host"], row["is_final"], row["attempt"]) == (node, False, 1)
        assert f"worker lost: Slurm job {job} on {node} " in row["message"]
        assert any(f"JOB {job} ON {node} CANCELLED" in line for line in row["details"]["log_tail"])
    assert "was PREEMPTED after " in rows[jobs["n3"]]["message"]
    slurm.resume()
    assert futures.results() == [0, 1, 2, 3]
    assert [calls(folder, x) for x in range(4)] == [2, 2, 2, 2]
    assert len(_rows(session, 4)) == 4
    session.close()  # before its Slurm is emptied: it would submit its jobs again


def test_a_job_at_its_time_limit_beside_one_whose_worker_crashes(
    start: Start, folder: Path, slurm_plain: RealSlurm
) -> None:
    """A walltime end is told as TIMEOUT and uses a worker loss. Where only the worker process
    dies, the record names its job, which is still RUNNING."""
    _write_manifest(folder, 2)
    session = start("slurm")
    future = session.client.submit(_until_lost, str(folder), 1, policy=NOTHING_TO_SPEND)
    until(lambda: calls(folder, 1) == 1, timeout_s=60)
    (worker,) = [worker for worker in session.status().workers if worker["state"] == "busy"]
    jobs = {job["name"]: job["job_id"] for job in session.status().jobs}
    over = jobs.pop(worker["name"])
    (other,) = jobs.values()
    slurm_plain.scontrol("update", f"JobId={over}", "EndTime=now+1seconds")

    def crash() -> None:
        import os

        os._exit(3)

    crashed = session.client.submit(crash, policy=NOTHING_TO_SPEND)
    with pytest.raises(errors.WorkerLostError, match="exited with code 3"):
        crashed.result(timeout=60)
    with pytest.raises(errors.WorkerLostError, match=f"Slurm job {over} on n. ended with TIMEOUT"):
        future.result(timeout=100)
    rows = {row["job_id"]: row for row in _rows(session, 2)}
    assert (rows[other]["job_state"], rows[other]["exit_code"]) == ("RUNNING", 3)
    row = rows[over]
    assert (row["job_state"], row["exit_code"], row["is_final"]) == ("TIMEOUT", -9, True)
    session.close()  # before its Slurm is emptied: it would submit its jobs again


def test_a_job_killed_for_its_memory(start: Start, folder: Path, strict_slurm: RealSlurm) -> None:
    """What a task's own processes use counts for Slurm: out of memory, with the amount."""
    _write_manifest(folder, 1)
    session = start("slurm")

    def eat() -> None:
        touch = "for i in range(0, 10**9, 4096): x[i] = 1"
        code = f"import time; x = bytearray(10**9)\n{touch}\ntime.sleep(600)"
        subprocess.run([sys.executable, "-c", code], check=True)

    future = session.client.submit(eat, policy=NOTHING_TO_SPEND)
    with pytest.raises(errors.OutOfMemoryError, match=r"of its limit of .* Give it more"):
        future.result(timeout=60)
    (row,) = _rows(session, 1)
    assert (row["category"], row["job_state"]) == ("resource", "FAILED")
    assert row["memory_bytes"] > row["memory_limit_bytes"] > 300_000_000
    session.close()  # before its Slurm is emptied: it would submit its jobs again
