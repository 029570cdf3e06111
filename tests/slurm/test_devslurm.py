"""A private Slurm comes up, serves and goes away without a trace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from leftovers import processes_below
from real_slurm import RealSlurm
from waiting import until

NOBODY = 65534

#: Its modules are loaded before: another user need not be allowed to read where they lie.
AS_NOBODY = f"""
import os, sys
from scalable_nb.devslurm.__main__ import main
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); os.chdir("/")
main()
"""


@pytest.fixture
def folder(slurm_plain_instance: RealSlurm) -> Iterator[Path]:
    """A folder that any user can reach; nothing runs in it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="devslurm-"))
    folder.chmod(0o755)
    yield folder
    until(lambda: processes_below(folder) == [])
    shutil.rmtree(folder)


def devslurm(*words: str, script: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``python -m scalable_nb.devslurm``."""
    program = ["-c", script] if script else ["-m", "scalable_nb.devslurm"]
    return subprocess.run(
        [sys.executable, *program, *words], capture_output=True, text=True, check=False
    )


def test_another_instance_runs_beside_the_first(folder: Path, slurm_plain: RealSlurm) -> None:
    """`up` says what to export, a job runs to its end, and `down` stops only its own instance."""
    place = ["--folder", str(folder / "own")]
    up = devslurm("up", *place, "--nodes", "2", "--no-accounting")
    assert up.stdout == f"export SLURM_CONF={folder}/own/slurm.conf\n", up.stderr
    environment = {**os.environ, "SLURM_CONF": f"{folder}/own/slurm.conf"}
    try:
        assert devslurm("status", *place).stdout == up.stdout
        again = devslurm("up", *place)
        assert again.returncode == 1
        assert f"an instance runs in {folder}/own already" in again.stderr
        log = folder / "own" / "job.log"
        command = ["sbatch", "--wait", f"--output={log}", "--wrap", "echo $SLURMD_NODENAME"]
        subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
        assert log.read_text() == "n1\n"
        # One that still runs must not survive.
        command = ["sbatch", "--output=/dev/null", "--wrap", "exec sleep 1000"]
        subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
    finally:
        down = devslurm("down", *place)
    assert down.returncode == 0, down.stderr
    assert processes_below(folder) == []
    assert slurm_plain.scontrol("ping").strip().endswith("UP")
    # A pid file may name a process that has inherited its number: that one is spared.
    innocent = subprocess.Popen(["sleep", "1000"])
    try:
        (folder / "own" / "pids" / "munged.pid").write_text(f"{innocent.pid} 12345.0\n")
        assert devslurm("down", *place, "--remove").returncode == 0
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()
    assert not (folder / "own").exists()


@pytest.mark.skipif("os.getuid() != 0", reason="only root can become another user")
def test_it_needs_no_root(folder: Path) -> None:
    """An ordinary user starts and stops an instance with accounting, and leaves nothing."""
    os.chown(folder, NOBODY, -1)
    place = ["--folder", str(folder / "own")]
    up = devslurm("up", *place, "--nodes", "1", script=AS_NOBODY)
    down = devslurm("down", *place, "--remove", script=AS_NOBODY)
    assert up.returncode == 0, up.stderr
    assert "export SLURM_CONF=" in up.stdout
    assert down.returncode == 0, down.stderr
    assert not (folder / "own").exists()
