"""`host: job`: the session's own process is a job of a real Slurm, on a machine of another name."""

from __future__ import annotations

import json
import os
import signal
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from counting import calls, mark
from kernels import last_run, start_kernel
from real_slurm import EVERYWHERE, RealSlurm
from waiting import until

from scalable_nb import ScalableSession, errors, resubmit

Start = Callable[..., ScalableSession]

#: Begins the script of the host's job again in a namespace with a host name of its own: no kernel
#: of this machine can take the host for a process that it may look at. Only root can do so.
_ELSEWHERE = (
    '[ $(hostname) = far ] || exec unshare --uts bash -c \'hostname far; exec bash "$0"\' "$0"'
)

MANIFEST = """
version: 1
project: {name: hosted}
targets:
  slurm:
    provider: slurm
    max_workers: 2
    threads_per_worker: 1
    walltime: "00:10:00"
    host: job
    host_job: {walltime: "00:20:00", memory: 500M, job_script_prologue: [PROLOGUE]}
components:
  any: {cpus: 1, memory: 400M}
"""


@pytest.fixture(autouse=True)
def manifest(folder: Path) -> Path:
    """A target whose host is a job on a machine of another name, where that can be had."""
    path = folder / "scalable.yaml"
    prologue = json.dumps(_ELSEWHERE) if os.geteuid() == 0 else ""
    path.write_text(textwrap.dedent(MANIFEST).replace("PROLOGUE", prologue))
    return path


def _job_of_host() -> str:
    return str(json.loads(last_run().host_job_json.read_bytes())["job_id"])


def _end_reason() -> str:
    return str(json.loads(last_run().summary_json.read_bytes())["end_reason"])


def _until_nothing_is_left(slurm: RealSlurm) -> None:
    until(lambda: slurm.squeue() == [], timeout_s=60)
    paths = last_run()
    assert not paths.session_json.exists()
    assert not paths.tls.exists()


def test_the_host_waits_in_the_queue_and_outlives_its_kernel(
    folder: Path, slurm: RealSlurm
) -> None:
    """The kernel says why the host is pending, Ctrl-C cancels it; without its kernel the run goes
    on to its end, and no job is left after the linger time."""
    full = slurm.sbatch("sleep 600", folder / "full.log", *EVERYWHERE)
    code = """
        import logging, os, signal, sys
        from pathlib import Path
        from counting import mark
        from scalable_nb import ScalableSession
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a kernel
        logging.basicConfig(filename="said.log")
        session = ScalableSession.from_yaml(target="slurm")
        try:
            session.start()
        except KeyboardInterrupt:
            Path("cancelled").touch()
        client = session.start()
        futures = client.map(lambda x: mark(Path(os.environ["HERE"]), x), range(4))
        futures[0].result()
        os.kill(os.getpid(), 9)
    """
    environment = {"SCALABLE_LINGER_S": "1", "HERE": str(folder)}
    kernel = start_kernel(folder, code, **environment)
    said = folder / "said.log"
    until(lambda: said.exists() and "is PENDING (Resources)" in said.read_text(), timeout_s=60)
    job, paths = _job_of_host(), last_run()
    assert f"Slurm job {job}" in said.read_text()
    assert str(paths.host_log) in said.read_text()
    assert len(slurm.squeue()) == 2
    kernel.send_signal(signal.SIGINT)
    until((folder / "cancelled").exists)
    assert slurm.state(job) == "CANCELLED"
    assert not paths.session_json.exists()
    slurm.instance.run_client("scancel", full)
    assert kernel.wait(timeout=60) == -signal.SIGKILL
    until(lambda: all(calls(folder, x) == 1 for x in range(4)), timeout_s=60)
    until(last_run().summary_json.exists, timeout_s=60)
    assert _end_reason().startswith("no client and no work for 1 s")
    _until_nothing_is_left(slurm)


def _check_what_another_kernel_sees(session: ScalableSession) -> None:
    other = ScalableSession.attach()
    assert other.run_id == session.run_id
    assert len(other.batches["sweep"]) == 4
    status = other.status()
    assert f"Slurm job {_job_of_host()} on n1; its walltime, and the session, ends " in str(status)
    if os.geteuid() == 0:
        assert status.host == "far"
        assert "ssh -N -L" in str(status)  # loopback there is not loopback here
    other.client.close()
    paths = last_run()
    private = [paths.tls, *paths.tls.iterdir(), paths.session_json, paths.host_log]
    assert not any(path.stat().st_mode & 0o077 for path in private)


def test_a_run_goes_on_through_three_hosts(start: Start, folder: Path, slurm: RealSlurm) -> None:
    """One host is cancelled, the walltime of the next ends, the third is stopped: no job is left
    after any of them, each goes on where the last one was, and nothing is computed twice."""
    here = str(folder)

    def function(x: int) -> int:
        (Path(here) / f"job-{x}").write_text(os.environ["SLURM_JOB_ID"])
        mark(Path(here), x)
        while x and not (Path(here) / f"gate-{x}").exists():
            time.sleep(0.05)
        return x * x

    session = start("slurm")
    futures = session.client.map(function, range(4), name="sweep")
    assert futures[0].result(timeout=60) == 0
    until(lambda: sum(calls(folder, x) for x in (1, 2, 3)) == 2, timeout_s=60)
    first, second, third = sorted((1, 2, 3), key=lambda x: -calls(folder, x))

    _check_what_another_kernel_sees(session)

    lost = (folder / f"job-{second}").read_text()
    slurm.instance.run_client("scancel", "--full", "--signal=KILL", lost)
    until(lambda: [row["job_id"] for row in session.failures()] == [lost], timeout_s=60)
    assert session.failures()[0]["job_state"] == "CANCELLED"
    (folder / f"gate-{first}").touch()
    assert futures[first].result(timeout=60) == first**2

    slurm.instance.run_client("scancel", _job_of_host())
    with pytest.raises(errors.HostDiedError, match="resubmit --last"):
        futures[second].result(timeout=60)
    session.close()
    _until_nothing_is_left(slurm)
    assert _end_reason().startswith("ended by SIGTERM")

    again = resubmit(run="last")
    (folder / f"gate-{second}").touch()
    assert again[second].result(timeout=60) == second**2
    job = _job_of_host()
    slurm.scontrol("update", f"JobId={job}", "EndTime=now+100seconds")
    with pytest.raises(errors.HostDiedError):
        again[third].result(timeout=60)
    assert again.session is not None
    again.session.close()
    _until_nothing_is_left(slurm)
    assert _end_reason().startswith(f"the walltime of the host (Slurm job {job}) was nearly over")

    last = resubmit(run="last")
    (folder / f"gate-{third}").touch()
    assert last.results() == [0, 1, 4, 9]
    assert [calls(folder, x) for x in (0, first)] == [1, 1]
    assert last.session is not None
    last.session.close()
    _until_nothing_is_left(slurm)
    assert _end_reason() == "stopped"


def test_a_host_that_cannot_start_says_why(manifest: Path, folder: Path, slurm: RealSlurm) -> None:
    """The error has the job's state and exit code, and what its script said; nothing is left."""
    broken = MANIFEST.replace("PROLOGUE", "source /no/such/env, exit 3")
    manifest.write_text(broken)
    with pytest.raises(errors.StartError) as failed:
        ScalableSession.from_yaml(target="slurm").start()
    job = _job_of_host()
    said = str(failed.value)
    assert f"Slurm job {job} on n1 has FAILED after " in said
    assert "with exit code 3" in said
    assert "/no/such/env" in said
    _until_nothing_is_left(slurm)
