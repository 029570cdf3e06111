"""What a killed host leaves is removed by the next start, and nothing else."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

from scalable_nb.paths import RunPaths, create_run
from scalable_nb.sweep import sweep_runs


def left_behind(runs_dir: Path, hostname: str | None = None) -> RunPaths:
    """A run whose host is not there any more."""
    run = create_run(runs_dir, "demo")
    run.run_json.write_text(json.dumps({"hostname": hostname or platform.node()}))
    run.tls.mkdir()
    (run.tls / "key.pem").write_text("secret")
    (run.workspace / "worker").mkdir(parents=True)
    run.session_json.write_text("{}")
    run.failures.write_text("")
    return run


def test_keys_of_a_dead_host_do_not_stay(tmp_path: Path) -> None:
    """Certificates, addresses and scratch space go; the records stay."""
    run = left_behind(tmp_path)
    assert sweep_runs(tmp_path) == [run]
    assert not (run.tls.exists() or run.workspace.exists() or run.session_json.exists())
    assert run.failures.exists()
    assert sweep_runs(tmp_path) == []


def test_a_run_of_another_machine_is_left_alone(tmp_path: Path) -> None:
    """Whether a host lives elsewhere cannot be seen from here."""
    run = left_behind(tmp_path, hostname="another-node")
    assert sweep_runs(tmp_path) == []
    assert run.tls.exists()


def test_a_host_that_is_just_starting_is_left_alone(tmp_path: Path) -> None:
    """A process that was started for the run counts, also before it has an address."""
    run = left_behind(tmp_path)
    run.session_json.unlink()
    command = [sys.executable, "-c", "input()", str(run.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as host:
        assert sweep_runs(tmp_path) == []
        host.communicate(b"\n")
    assert sweep_runs(tmp_path) == [run]
