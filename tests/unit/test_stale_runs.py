"""What a killed host leaves is removed by the next start, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from scalable_nb.paths import RunPaths, create_run
from scalable_nb.protocol.connection_file import SILENT_S
from scalable_nb.session.stale_runs import remove_stale_runs


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
