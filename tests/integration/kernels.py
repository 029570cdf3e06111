"""Kernels of their own: scripts that start a session and may be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
from waiting import until

from scalable_nb.paths import RunPaths, find_run, list_runs
from scalable_nb.settings import load_settings


def start_kernel(folder: Path, code: str, **environment: str) -> subprocess.Popen[bytes]:
    """Run a script in a process of its own, with the tests' helpers in its path."""
    # Written once and imported by nobody: its functions are those of a notebook.
    script = folder / f"kernel_{len(list(folder.glob('kernel_*.py')))}.py"
    script.write_text(textwrap.dedent(code))
    here = Path(__file__).parent
    # With the package of this checkout, wherever another one may be installed.
    path = os.pathsep.join([str(here), str(here.parents[1])])
    return subprocess.Popen(
        [sys.executable, str(script)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def run_kernel(folder: Path, code: str, **environment: str) -> int:
    """Run such a script to its end; gives its exit code."""
    return start_kernel(folder, code, **environment).wait(timeout=100)


def last_run() -> RunPaths:
    """The newest run of the working directory."""
    return find_run(load_settings().runs_dir)


def runs() -> list[RunPaths]:
    """All runs of the working directory, oldest first."""
    return list_runs(load_settings().runs_dir)


def kill_host(paths: RunPaths) -> None:
    """SIGKILL to the host of a run, as a power cut; returns when its workers are gone too."""
    host = psutil.Process(json.loads(paths.session_json.read_bytes())["pid"])
    children = host.children(recursive=True)
    host.kill()
    until(lambda: not any(child.is_running() for child in children))
    # A child is reaped by whoever started it, here perhaps by nobody.
    until(lambda: not host.is_running() or host.status() == psutil.STATUS_ZOMBIE)
