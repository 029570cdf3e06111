"""Jobs followed through a real queue: why they wait, that they run, that no worker comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from real_slurm import EVERYWHERE, RealSlurm

from scalable_nb.batch_system.job_queue import SlurmQueue
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.workers.job_monitor import JobMonitor
from scalable_nb.paths import create_run
from scalable_nb.targets.fleet import WorkerGroup, WorkerKind

NAME = "watched"


class Followed:
    """A job without any worker, and who follows it.

    Parameters
    ----------
    folder : Path
        For logs and records.
    job_id : str
    silence_s : float
        See `JobMonitor`.
    """

    def __init__(self, folder: Path, job_id: str, silence_s: float = 600) -> None:
        paths = create_run(folder / "runs", "watch")
        self.rows_file = paths.workers
        self.recorder = RunRecorder(paths, "slurm")
        self.queue = SlurmQueue(NAME, first_spacing_s=0.2)
        self.notices: list[str] = []
        self.entries = {"work-0": WorkerGroup("work-0", WorkerKind("work", {}), job_id=job_id)}
        adapter: Any = SimpleNamespace(aliases={}, workers={})
        notices: Any = SimpleNamespace(notify=self.notices.append)
        fleet: Any = SimpleNamespace(
            entries=self.entries,
            queue=self.queue,
            job_id_of=lambda entry: entry.job_id,
            logs_of=lambda entry: [folder / "job.log"],
        )
        # Only what the monitor needs of them.
        self.watch = JobMonitor(fleet, adapter, self.recorder, notices, silence_s=silence_s)

    def until(self, condition: Callable[[], object], timeout_s: float = 60) -> None:
        """Follow the job until the condition holds."""

        async def follow() -> None:
            while not condition():
                await self.queue.look()
                await self.watch.observe()
                await asyncio.sleep(0.1)

        asyncio.run(asyncio.wait_for(follow(), timeout_s))

    @property
    def now(self) -> dict[str, Any]:
        """What is known of the job."""
        (job,) = self.watch.jobs()
        return job

    def rows(self) -> list[tuple[str, str | None]]:
        """Phases and states written down so far."""
        self.recorder.flush()
        lines = self.rows_file.read_text().splitlines()
        return [(row["phase"], row["job_state"]) for row in map(json.loads, lines)]


@pytest.fixture
def submit(slurm_plain: RealSlurm, tmp_path: Path) -> Callable[..., str]:
    """Submits a script under the name that is followed."""

    def submit(script: str, *options: str, name: str = NAME) -> str:
        return slurm_plain.sbatch(script, tmp_path / "job.log", f"--job-name={name}", *options)

    return submit


def test_a_full_queue_is_told_with_its_reason(
    submit: Callable[..., str], slurm_plain: RealSlurm, tmp_path: Path
) -> None:
    """A pending job has Slurm's reason and its estimate of the start; then it runs and ends."""
    filler = submit("exec sleep 600", *EVERYWHERE, "--time=10", name="filler")
    slurm_plain.until_state(filler, "RUNNING")
    job = Followed(tmp_path, submit("exec sleep 600", *EVERYWHERE, "--time=10"))
    job.until(lambda: job.watch.jobs() and job.now["reason"] == "Resources")
    assert (job.now["phase"], job.now["job_state"]) == ("pending", "PENDING")
    job.until(lambda: job.now["estimated_start_at"] is not None)
    slurm_plain.instance.run_client("scancel", filler)
    job.until(lambda: job.now["phase"] == "starting")
    assert (job.now["job_state"], job.now["host"]) == ("RUNNING", "n1")
    slurm_plain.instance.run_client("scancel", job.now["job_id"])
    job.until(lambda: job.now["phase"] == "ended")
    phases = [phase for phase, _ in job.rows()]
    assert list(dict.fromkeys(phases)) == ["pending", "starting", "ended"]
    assert job.rows()[-1] == ("ended", "CANCELLED")


def test_a_job_without_a_worker_is_told_of_once(submit: Callable[..., str], tmp_path: Path) -> None:
    """When a job runs and no worker connects: its output, and what is the likely cause."""
    script = "echo OSError: Timed out trying to connect to tls://10.0.0.1:1; exec sleep 600"
    job = Followed(tmp_path, submit(script), silence_s=1)
    job.until(lambda: job.notices)
    (notice,) = job.notices
    assert notice.startswith(f"Slurm job {job.now['job_id']} of component 'work' has been running")
    assert "no worker of it has connected. Perhaps the node cannot reach the scheduler" in notice
    assert "Timed out trying to connect to tls://10.0.0.1:1" in notice
    job.until(lambda: job.now["phase"] == "starting")
    assert len(job.notices) == 1


def test_a_queue_that_does_not_answer(
    slurm_plain: RealSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once, with exit code, command and what that printed."""
    (tmp_path / "slurm.conf").write_text("NoSuchKey=1\n")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    job = Followed(tmp_path, "1", silence_s=0.5)
    job.until(lambda: job.notices)
    (notice,) = job.notices
    assert notice.startswith("Slurm has not answered for ")
    assert "`squeue --me " in notice
    assert "ended with exit code 1" in notice
    assert "NoSuchKey" in notice
    calls = len(slurm_plain.calls("squeue", NAME).at)
    job.until(lambda: len(slurm_plain.calls("squeue", NAME).at) > calls)
    assert len(job.notices) == 1
