"""What a killed host leaves is removed by the next start, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from users import ALICE, MALLORY, commons, make_for, run_as

from scalable_nb.batch_system.job_queue import sign_job
from scalable_nb.errors import RunFolderError
from scalable_nb.paths import RunPaths, create_run
from scalable_nb.protocol.connection_file import (
    SILENT_S,
    is_alive,
    read_connection_info,
    read_state,
)
from scalable_nb.session.stale_runs import remove_stale_runs
from scalable_nb.signing import Kind, SigningKey

__all__ = ["commons"]


def left_behind(runs_dir: Path) -> RunPaths:
    """A run whose host is not there any more."""
    run = create_run(runs_dir, "demo")
    run.run_json.write_text(json.dumps({"provider": "local"}))
    run.tls.mkdir()
    (run.tls / "key.pem").write_text("secret")
    (run.workspace / "worker").mkdir(parents=True)
    run.session_json.write_text("{}")
    run.failures.write_text("")
    return run


def test_keys_of_a_dead_host_do_not_stay(tmp_path: Path) -> None:
    """Certificates, addresses and scratch space go; the records stay."""
    run = left_behind(tmp_path)
    assert remove_stale_runs(tmp_path) == [run]
    assert not (run.tls.exists() or run.workspace.exists() or run.session_json.exists())
    assert run.failures.exists()
    assert remove_stale_runs(tmp_path) == []


def test_a_host_of_another_machine_is_left_alone_while_it_shows_signs_of_life(
    tmp_path: Path,
) -> None:
    """It touches its file; when it has not done so for minutes, it is dead."""
    run = left_behind(tmp_path)
    run.session_json.write_text(json.dumps({"host": "another-node", "pid": 1}))
    assert remove_stale_runs(tmp_path) == []
    assert run.tls.exists()
    silent_at = time.time() - SILENT_S - 1
    os.utime(run.session_json, (silent_at, silent_at))
    assert remove_stale_runs(tmp_path) == [run]
    assert not run.tls.exists()


def test_a_host_that_is_just_starting_is_left_alone(tmp_path: Path) -> None:
    """Whoever asked for it stands for it until it speaks for itself."""
    run = left_behind(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from scalable_nb.protocol.connection_file import HostState, write_state\n"
        "from scalable_nb.paths import RunPaths\n"
        "write_state(RunPaths(Path(sys.argv[1])), HostState.ASKED_FOR); print(flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(run.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kernel:
        assert kernel.stdout is not None
        kernel.stdout.readline()
        assert remove_stale_runs(tmp_path) == []
        kernel.communicate(b"\n")
    assert remove_stale_runs(tmp_path) == [run]


RUN_ID = "run-20260101T000000Z-x-00000000"


def thesis(folder: Path) -> Path:
    """Make a folder that is no run, with names like those of a run."""
    (folder / "workspace").mkdir(parents=True)
    (folder / "tls").mkdir()
    (folder / "workspace" / "chapter.tex").write_text("years of work")
    return folder


def test_a_run_folder_that_is_a_link_is_not_cleaned(tmp_path: Path) -> None:
    """A planted link in the folder of runs deletes nothing elsewhere."""
    victim = thesis(tmp_path / "thesis")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / RUN_ID).symlink_to(victim)
    assert remove_stale_runs(tmp_path / "runs") == []
    assert (victim / "workspace" / "chapter.tex").exists()
    assert (victim / "tls").exists()


def test_links_in_a_run_folder_are_removed_and_not_followed(tmp_path: Path) -> None:
    """Their targets stay, folders and files."""
    victim = thesis(tmp_path / "thesis")
    (victim / "notes.json").write_text("{}")
    run = RunPaths(tmp_path / "runs" / RUN_ID)
    run.folder.mkdir(parents=True)
    run.workspace.symlink_to(victim / "workspace")
    run.tls.mkdir()
    (run.tls / "deep").symlink_to(victim)
    run.session_json.symlink_to(victim / "notes.json")
    assert remove_stale_runs(tmp_path / "runs") == [run]
    assert list(run.folder.iterdir()) == []
    assert (victim / "workspace" / "chapter.tex").exists()
    assert (victim / "notes.json").exists()


def test_runs_of_other_users_are_not_cleaned(commons: Path) -> None:
    """A folder of runs that another user could exchange is refused before anything is removed."""
    runs_dir = make_for(MALLORY, commons / "runs", 0o777)
    run = RunPaths(make_for(ALICE, runs_dir / RUN_ID))
    make_for(ALICE, run.workspace)
    with pytest.raises(RunFolderError, match=f"belongs to uid {MALLORY}"):
        run_as(ALICE, remove_stale_runs, runs_dir)
    os.chown(runs_dir, ALICE, ALICE)
    runs_dir.chmod(0o700)
    os.chown(run.folder, MALLORY, MALLORY)
    run.folder.chmod(0o777)
    assert run_as(ALICE, remove_stale_runs, runs_dir) == []
    assert run.workspace.exists()


@pytest.fixture
def scancel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a `scancel` on the path notes its arguments."""
    called = tmp_path / "called"
    command = tmp_path / "bin" / "scancel"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" >> {called}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return called


@pytest.mark.parametrize("job_id", ["--user=vic", "-t", "all", "0", "", "1 2", "1,2", 7, None])
def test_only_ids_of_jobs_reach_the_command_that_cancels(
    tmp_path: Path, scancel: Path, job_id: object
) -> None:
    """Options, words and lists in the records of a run are left out."""
    run = left_behind(tmp_path / "runs")
    write_jobs(run, [(each, sign_job(run.run_id, "slurm", str(each))) for each in (job_id, "4711")])
    assert remove_stale_runs(tmp_path / "runs") == [run]
    assert scancel.read_text() == "4711\n"


def write_jobs(run: RunPaths, jobs: list[tuple[object, str]]) -> None:
    """Record jobs with their signatures; the first one is that of the host, too."""
    run.run_json.write_text(json.dumps({"provider": "slurm"}))
    rows = [
        {"event_type": "job-submitted", "job_id": job_id, "signature": signature}
        for job_id, signature in jobs
    ]
    run.workers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.host_job_json.write_text(json.dumps(rows[0]))


def test_only_signed_jobs_are_cancelled(
    tmp_path: Path, scancel: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A planted id, or a signature of another run or another job, cancels nothing."""
    run = left_behind(tmp_path / "runs")
    jobs = [
        ("4711", ""),
        ("4712", sign_job("run-20260101T000000Z-other-00000000", "slurm", "4712")),
        ("4713", sign_job(run.run_id, "slurm", "1")),
        ("4714", sign_job(run.run_id, "pbs", "4714")),
        ("4715", SigningKey(b"another key".ljust(32)).sign(Kind.JOB, b"", b"").hex()),
    ]
    write_jobs(run, jobs)
    assert remove_stale_runs(tmp_path / "runs") == [run]
    assert not scancel.exists()
    (record,) = caplog.records
    assert "`scancel 4711 4712 4713 4714 4715`" in record.getMessage()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"provider": "x; rm"}'])
def test_a_broken_description_of_a_dead_run_stops_nothing(tmp_path: Path, content: bytes) -> None:
    """The next start removes the leftovers, whatever `run.json` contains."""
    run = left_behind(tmp_path)
    run.run_json.write_bytes(content)
    assert remove_stale_runs(tmp_path) == [run]
    assert not run.tls.exists()


def test_a_fifo_in_the_place_of_a_record_is_not_waited_for(tmp_path: Path) -> None:
    """The keys are removed although the records cannot be read."""
    run = left_behind(tmp_path)
    run.run_json.unlink()
    os.mkfifo(run.run_json)
    assert remove_stale_runs(tmp_path) == [run]
    assert not run.tls.exists()


def test_a_heartbeat_in_the_future_is_none(tmp_path: Path) -> None:
    """An unpacked archive may have any time; its host counts as dead."""
    run = left_behind(tmp_path)
    run.session_json.write_text(json.dumps({"host": "another-node", "pid": 1}))
    future_at = time.time() + 10 * SILENT_S
    os.utime(run.session_json, (future_at, future_at))
    assert not is_alive(read_state(run.session_json))


def test_the_address_of_another_run_is_not_used(tmp_path: Path) -> None:
    """A `session.json` that was copied from another run is refused."""
    run = left_behind(tmp_path)
    run.session_json.write_text(json.dumps({"state": "open", "run_id": RUN_ID}))
    with pytest.raises(RunFolderError, match=f"is of run '{RUN_ID}'"):
        read_connection_info(run)
