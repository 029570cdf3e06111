"""Jobs of a session on a real Slurm: kinds, numbers, losses, and what is left at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from counting import calls, mark
from leftovers import processes_below
from real_slurm import RealSlurm
from waiting import until

from scalable_nb import ScalableSession, TaskPolicy, errors
from scalable_nb.paths import find_run
from scalable_nb.settings import load_settings

Start = Callable[..., ScalableSession]

_KINDS = """
version: 1
project: {name: kinds}
targets:
  slurm: {provider: slurm, max_workers: 2, threads_per_worker: 1, walltime: "00:10:00", OPTIONS}
components:
  small: {cpus: 1, memory: 300M, env: {KIND: small}}
  big: {cpus: 2, memory: 600M, env: {KIND: big}, tags: [heavy]}
tasks:
  simulate: {component: big}
"""


def _manifest(folder: Path, text: str, options: str = "max_worker_replacements: 50") -> None:
    (folder / "scalable.yaml").write_text(textwrap.dedent(text).replace("OPTIONS", options))


def _kind(_: object) -> tuple[str, str, str]:
    return os.environ["KIND"], os.environ["SLURM_CPUS_ON_NODE"], os.environ["SLURM_JOB_ID"]


def _worker_names(session: ScalableSession) -> set[str]:
    return {worker["name"] for worker in session.status().workers}


def _is_running(slurm: RealSlurm, count: int) -> bool:
    return slurm.squeue("%T") == ["RUNNING"] * count


def test_components_are_kinds_of_jobs_whose_numbers_change_while_everything_runs(
    start: Start, folder: Path, slurm: RealSlurm
) -> None:
    """Each component has jobs of its size; tasks go to their own, and one without to any.
    `scale` changes one component or all; a worker that executes finishes its task first."""
    _manifest(folder, _KINDS)
    session = start("slurm")
    client = session.client
    big = client.map(_kind, range(6), task="simulate", pure=False)
    heavy = client.map(_kind, range(6), tag="heavy", pure=False)
    small = client.map(_kind, range(6), tag="small", pure=False)
    free = client.map(_kind, range(6), pure=False)
    assert {row[:2] for row in big.results() + heavy.results()} == {("big", "2")}
    assert {row[:2] for row in small.results()} == {("small", "1")}
    assert {row[0] for row in free.results()} <= {"big", "small"}
    assert _worker_names(session) == {"small-0", "big-0"}
    assert sorted(slurm.squeue("%C %m")) == ["1 287M", "2 573M"]

    def slow(x: int) -> int:
        mark(folder, x)
        time.sleep(3)
        return x

    del big, heavy, small, free
    busy = client.submit(slow, 1, tag="big")
    until(lambda: calls(folder, 1) == 1)
    assert session.scale(0, component="big") == {"big": 0}
    assert session.scale(2, component="small") == {"small": 2}
    until(lambda: _worker_names(session) >= {"small-0", "small-1"})
    assert busy.result(timeout=30) == 1
    until(lambda: _worker_names(session) == {"small-0", "small-1"})
    until(lambda: _is_running(slurm, 2))
    assert (calls(folder, 1), session.failures()) == (1, [])
    waiting = client.submit(_kind, 2, tag="big")
    assert session.scale(4) == {"small": 2, "big": 2}
    assert waiting.result(timeout=60)[0] == "big"
    with pytest.raises(errors.UnknownNameError, match="Did you mean 'small'"):
        session.scale(1, component="smal")


def test_the_work_decides_how_many_jobs_there_are(
    start: Start, folder: Path, slurm: RealSlurm
) -> None:
    """Adaptive: no job without work, jobs of the component that has work, and none afterwards."""
    _manifest(folder, _KINDS, "adaptive: {minimum: 0, maximum: 2}")
    session = start("slurm")
    assert slurm.squeue() == []
    futures = session.client.map(lambda x: time.sleep(1) or _kind(x), range(4), tag="big")
    until(lambda: len(slurm.squeue()) == 2)
    assert {row[0] for row in futures.results()} == {"big"}
    del futures
    until(lambda: slurm.squeue() == [], timeout_s=60)
    assert session.failures() == []


def test_scripts_that_die_at_once_do_not_burn_the_queue(
    start: Start, folder: Path, slurm: RealSlurm
) -> None:
    """After three such jobs in a row no more are submitted, and the log's words say why."""
    broken = _KINDS.replace("tags: [heavy]", "job_script_prologue: [source /no/such/env, exit 3]")
    _manifest(folder, broken)
    session = start("slurm")
    assert session.client.submit(_kind, 1, tag="small").result(timeout=60)[0] == "small"
    until(lambda: any("in a row" in notice for notice in session.status().notices))
    (notice,) = [notice for notice in session.status().notices if "in a row" in notice]
    assert "component 'big'" in notice
    assert "/no/such/env" in notice
    assert "%scalable scale N --component big" in notice
    assert session.paths is not None
    rows = [json.loads(line) for line in session.paths.workers.read_text().splitlines()]
    submitted = [row for row in rows if row["event_type"] == "job-submitted"]
    assert sum(row["component"] == "big" for row in submitted) == 3


def test_a_command_that_fails_is_told_in_full_at_the_start(folder: Path, slurm: RealSlurm) -> None:
    """The error has exit code, command and what Slurm said; nothing is left."""
    _manifest(folder, _KINDS, "queue: no-such-partition")
    session = ScalableSession.from_yaml(target="slurm")
    with pytest.raises(errors.StartError) as failed:
        session.start()
    for words in ("Exit code: 1", "sbatch /", "invalid partition", "%scalable plan"):
        assert words in str(failed.value)
    assert slurm.squeue() == []


def test_a_component_that_cannot_be_had_falls_back(
    start: Start, folder: Path, slurm: RealSlurm
) -> None:
    """In a full queue the tasks of a component run on its fallback, with a warning."""
    slurm.sbatch("sleep 600", folder / "full.log", "--nodelist=n1", "--cpus-per-task=4")
    wanting = _KINDS.replace(
        "tags: [heavy]", "fallback: small, job_extra_directives: ['--nodelist=n1']"
    )
    _manifest(folder, wanting, "pending_timeout_s: 4")
    session = start("slurm")
    future = session.client.submit(_kind, 1, task="simulate")
    assert future.result(timeout=90)[0] == "small"
    assert any("run on 'small' instead" in notice for notice in session.status().notices)
    assert session.client.submit(_kind, 2, task="simulate").result(timeout=60)[0] == "small"


def test_a_killed_host_leaves_no_job(start: Start, folder: Path, slurm: RealSlurm) -> None:
    """After SIGKILL of the host running jobs end by themselves; `start` cancels pending ones."""
    slurm.sbatch("sleep 600", folder / "full.log", "--nodelist=n1", "--cpus-per-task=4")
    stuck = _KINDS.replace("tags: [heavy]", "job_extra_directives: ['--nodelist=n1']")
    _manifest(folder, stuck)
    session = start("slurm")
    assert session.client.submit(_kind, 1, tag="small").result(timeout=60)[0] == "small"
    until(lambda: len(slurm.squeue()) == 3)
    os.kill(session.status().host_pid, signal.SIGKILL)
    session.close()
    until(lambda: len(slurm.squeue()) == 2, timeout_s=60)  # the filler and the pending one
    again = start("slurm")
    until(lambda: len(slurm.squeue()) == 3)
    again.close()
    until(lambda: len(slurm.squeue()) == 1)


def test_a_killed_kernel_leaves_no_job_after_the_linger_time(
    folder: Path, slurm: RealSlurm
) -> None:
    """SIGKILL to the kernel: the work is done, then the jobs end."""
    code = """
        import os, time
        from pathlib import Path
        from scalable_nb import ScalableSession
        client = ScalableSession.from_yaml(target="slurm").start()
        folder = os.getcwd()
        futures = client.map(lambda x: (Path(folder) / f"done-{x}").touch(), range(6))
        futures[0].result()
        os.kill(os.getpid(), 9)
    """
    environment = {**os.environ, "SCALABLE_LINGER_S": "1"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    kernel = subprocess.run(command, env=environment, check=False, cwd=folder)
    assert kernel.returncode == -signal.SIGKILL
    until(lambda: len(list(folder.glob("done-*"))) == 6)
    until(find_run(load_settings().runs_dir).summary_json.exists, timeout_s=60)
    until(lambda: slurm.squeue() == [], timeout_s=60)


def test_workers_end_in_time_and_leave_no_task_behind(
    start: Start, folder: Path, slurm: RealSlurm
) -> None:
    """Before its walltime is over a worker stops taking tasks, and another one goes on."""
    _manifest(folder, _KINDS.replace('"00:10:00"', '"00:00:26"'))  # Slurm itself gives a minute
    session = start("slurm")

    def function(x: int) -> str:
        mark(folder, x)
        time.sleep(1)
        return os.environ["SLURM_JOB_ID"]

    # Because of the time limit it leaves at half of its walltime: time for another one to come.
    policy = TaskPolicy(timeout_s=10)
    futures = session.client.map(function, range(14), tag="small", policy=policy)
    jobs = set(futures.results())
    assert len(jobs) > 1
    assert [calls(folder, x) for x in range(14)] == [1] * 14
    assert session.failures() == []


def test_without_a_manifest_slurms_default_partition_is_used(
    start: Start, folder: Path, slurm: RealSlurm, caplog: pytest.LogCaptureFixture
) -> None:
    """`start --target slurm` works in an empty folder, and says what was chosen."""
    (folder / "scalable.yaml").unlink()
    session = start("slurm")
    ask = session.client.submit(lambda: os.environ["SLURM_JOB_PARTITION"])
    assert ask.result(timeout=60) == "batch"
    assert "Slurm's default partition 'batch': 4 workers with 1 core and 1000 MiB" in caplog.text
    assert len(slurm.squeue()) == 4


# --- one session for all that follow ---------------------------------------------------


def _with_two_jobs(session: ScalableSession, slurm: RealSlurm) -> tuple[ScalableSession, RealSlurm]:
    """The shared session as it was at first: two jobs, each with its worker."""
    until(lambda: _is_running(slurm, 2) and len(_worker_names(session)) == 2, timeout_s=90)
    return session, slurm


def test_jobs_listen_on_one_interface_only(
    shared_session: ScalableSession, slurm_plain_instance: RealSlurm
) -> None:
    """Whatever listens for a session does so on loopback, or encrypted on the chosen address."""
    session, _ = _with_two_jobs(shared_session, slurm_plain_instance)
    assert session.paths is not None
    folder = session.paths.folder.parents[2]
    chosen = session.client.scheduler.address.removeprefix("tls://").rpartition(":")[0]  # type: ignore[union-attr]
    everybody = [
        process
        for process in processes_below(folder)
        if any(name in " ".join(process.cmdline()) for name in ("host.process", "worker.command"))
    ]
    assert len(everybody) == 3  # the host and a nanny in each job
    everybody += [child for process in everybody for child in process.children(recursive=True)]
    addresses = {
        connection.laddr.ip
        for process in everybody
        for connection in process.net_connections()
        if connection.status == "LISTEN"
    }
    assert addresses == {"127.0.0.1", chosen}
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(session.dashboard_link.replace("127.0.0.1", chosen), timeout=5)


def test_tasks_are_finished_when_slurm_ends_their_jobs_which_are_replaced(
    shared_session: ScalableSession, slurm_plain_instance: RealSlurm, tmp_path: Path
) -> None:
    """SIGTERM with time to spare: what is executing ends there, what waits runs elsewhere. After
    `scancel` of all its jobs the session has as many workers as were asked for."""
    session, slurm = _with_two_jobs(shared_session, slurm_plain_instance)
    folder, failed_before = tmp_path, len(session.failures())

    def function(x: int) -> str:
        mark(folder, x)
        time.sleep(1.5)
        return os.environ["SLURM_JOB_ID"]

    futures = session.client.map(function, range(4))
    until(lambda: sum(calls(folder, x) for x in range(4)) == 2)
    ended = slurm.squeue("%i")[0]
    slurm.instance.run_client("scancel", ended)
    assert futures.results().count(ended) == 1
    assert len(session.failures()) == failed_before
    assert [calls(folder, x) for x in range(4)] == [1] * 4

    futures = session.client.map(function, range(4, 7))
    before = _worker_names(session)
    slurm.instance.run_client("scancel", *slurm.squeue("%i"))
    assert len(futures.results()) == 3
    until(lambda: len(_worker_names(session)) == 2)
    assert not before & _worker_names(session)
    assert len(slurm.squeue()) == 2


def test_a_requeued_job_is_not_replaced(
    shared_session: ScalableSession, slurm_plain_instance: RealSlurm
) -> None:
    """Slurm starts the same job again: it comes back as the same worker, and no other is added."""
    session, slurm = _with_two_jobs(shared_session, slurm_plain_instance)
    names, jobs = _worker_names(session), sorted(slurm.squeue("%i"))
    slurm.scontrol("requeue", jobs[0])
    until(lambda: len(_worker_names(session)) == 1)
    until(lambda: _worker_names(session) == names, timeout_s=90)
    assert sorted(slurm.squeue("%i")) == jobs


def test_an_attempt_after_an_out_of_memory_gets_more(
    shared_session: ScalableSession, slurm_plain_instance: RealSlurm
) -> None:
    """`escalate` starts a job with more memory for it, and there the task succeeds."""
    session, slurm = _with_two_jobs(shared_session, slurm_plain_instance)

    def hungry(_: int) -> str:
        block = bytearray(700_000_000)
        block[::4096] = b"x" * len(block[::4096])
        time.sleep(0.5)
        return os.environ["SLURM_JOB_ID"]

    policy = TaskPolicy(escalate={"memory": 3.0, "max": "2G"})
    future = session.client.submit(hungry, 1, policy=policy)
    job_id = future.result(timeout=60)
    assert "MinMemoryNode=2G" in slurm.scontrol("show", "job", job_id)  # 1.2 GB, rounded up
    (row, _) = session.client.attempts(future)
    assert (row["failure_class"], row["will_retry"]) == ("OutOfMemoryError", True)
    del future
    until(lambda: len(slurm.squeue()) == 2, timeout_s=60)
