"""Sessions whose jobs come to an end: right results, and records that say what happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counting import calls
from distributed import Nanny
from lost_calls import lost_then_refused
from real_slurm import RealSlurm
from waiting import until

from scalable_nb import RetryPolicy, ScalableSession, TaskPolicy, errors
from scalable_nb.paths import find_run

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


def _losses(folder: Path, count: int) -> list[dict[str, Any]]:
    """The attempts that were lost, at least so many."""
    path = find_run(folder / ".scalable" / "runs").failures

    def rows() -> list[dict[str, Any]]:
        lines = path.read_text().splitlines() if path.exists() else []
        return [row for row in map(json.loads, lines) if row["failure_class"] != "ConnectionError"]

    until(lambda: len(rows()) >= count, timeout_s=90)
    return rows()


def test_four_jobs_have_four_outcomes(start: Start, folder: Path, any_slurm: RealSlurm) -> None:
    """Cancelled, requeued, node failed, preempted: each record says which it was, of which job,
    where, and what the job's log said last. Each task runs again, and no budget pays for it: its
    one retry is there for an error of its own. All jobs are looked up together."""
    slurm = any_slurm
    _write_manifest(folder, 4)
    client = start("slurm").client
    policy = TaskPolicy(RetryPolicy(1, base_s=0.1), worker_losses=0)
    futures = client.map(lost_then_refused, [str(folder)] * 4, range(4), policy=policy, pure=False)
    until(lambda: all(calls(folder, x) == 1 for x in range(4)), timeout_s=60)
    jobs = [(folder / f"job-{x}").read_text() for x in range(4)]
    nodes = dict(line.split() for line in slurm.squeue("%i %N"))
    slurm.instance.run_client("scancel", jobs[0])
    slurm.scontrol("requeue", jobs[1])
    slurm.scontrol("update", f"NodeName={nodes[jobs[2]]}", "State=DOWN", "Reason=test")
    urgent = ("--partition=urgent", "--exclusive", "-w", nodes[jobs[3]])
    slurm.sbatch("sleep 1", folder / "urgent.log", *urgent)

    rows = {row["job_id"]: row for row in _losses(folder, 4)}
    states = [rows[job]["job_state"] for job in jobs]
    assert states == ["CANCELLED", "REQUEUED", "NODE_FAIL", "PREEMPTED"]
    for job, row in rows.items():
        assert (row["host"], row["is_final"], row["attempt"]) == (nodes[job], False, 1)
        assert f"worker lost: Slurm job {job} on {nodes[job]} " in row["message"]
        assert any(f"JOB {job} ON " in line for line in row["details"]["log_tail"])
    assert "was PREEMPTED after " in rows[jobs[3]]["message"]
    slurm.resume()
    assert futures.results() == [0, 1, 2, 3]
    assert [calls(folder, x) for x in range(4)] == [3] * 4
    assert len(_losses(folder, 4)) == 4
    assert all(gap > 0.3 for gap in slurm.calls("sacct", *jobs).gaps_s)


def test_a_worker_that_crashes_and_a_job_killed_for_its_memory(
    start: Start, folder: Path, strict_slurm: RealSlurm
) -> None:
    """Where only the worker process dies its job is still RUNNING. What a task's own processes use
    counts for Slurm: out of memory, with the amount."""
    _write_manifest(folder, 1)
    session = start("slurm")
    session.client.wait_for_workers(1)

    def status(dask_worker: Nanny) -> str:
        return str(dask_worker.status.name)

    # A job whose worker dies before its nanny is through with the start ends with it.
    until(lambda: session.client.run(status, nanny=True).popitem()[1] == "running")
    with pytest.raises(errors.WorkerLostError, match="exited with code 3"):
        session.client.submit(os._exit, 3, policy=NOTHING_TO_SPEND).result(timeout=60)

    def eat() -> None:
        touch = "for i in range(0, 10**9, 4096): x[i] = 1"
        code = f"import time; x = bytearray(10**9)\n{touch}\ntime.sleep(600)"
        subprocess.run([sys.executable, "-c", code], check=True)

    future = session.client.submit(eat, policy=NOTHING_TO_SPEND)
    with pytest.raises(errors.OutOfMemoryError, match=r"of its limit of .* Give it more"):
        future.result(timeout=60)
    crashed, row = _losses(folder, 2)
    assert (crashed["job_state"], crashed["exit_code"]) == ("RUNNING", 3)
    assert row["job_id"] == crashed["job_id"]
    assert (row["category"], row["job_state"]) == ("resource", "FAILED")
    assert row["memory_bytes"] > row["memory_limit_bytes"] > 300_000_000
