"""The process of a host: started, found again, ended."""

from __future__ import annotations

import getpass
import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

from scalable_nb.errors import RunFolderError, StartError
from scalable_nb.manifest.load import LoadedManifest
from scalable_nb.manifest.plan import Plan
from scalable_nb.paths import RunPaths, write_private
from scalable_nb.telemetry.records import SCHEMA_VERSION, utc_iso

_POLL_S: Final = 0.02
_TERM_GRACE_S: Final = 10.0
_LOG_LINES: Final = 15


def prepare_run(paths: RunPaths, loaded: LoadedManifest, linger_s: float) -> None:
    """Write down in the run folder what its host needs to know."""
    run = {
        "run_id": paths.run_id,
        "schema_version": SCHEMA_VERSION,
        "project": loaded.manifest.project.name,
        "target": loaded.target_name,
        "provider": loaded.target.provider,
        "manifest": str(loaded.source) if loaded.source else None,
        "cwd": str(Path.cwd()),
        "python_path": [str(Path(entry).absolute()) for entry in sys.path],  # '': the folder itself
        "python": sys.executable,
        "user": getpass.getuser(),
        "hostname": platform.node(),
        "linger_s": linger_s,
        "started_at": utc_iso(time.time()),
    }
    write_private(paths.run_json, json.dumps(run, indent=1).encode())
    write_private(paths.manifest_yaml, loaded.text.encode())
    write_private(paths.manifest_lock, f"{loaded.sha256}\n".encode())
    for path in (paths.tasks, paths.failures, paths.workers, paths.cache):
        path.touch(mode=0o600)


def write_plan(paths: RunPaths, plan: Plan) -> None:
    """Keep the plan of a run."""
    write_private(paths.plan_json, json.dumps(plan.to_dict(), indent=1).encode())


def spawn_host(paths: RunPaths) -> subprocess.Popen[bytes]:
    """Start the host of a run, detached from this process."""
    # -P: the notebook's folder must not shadow what the host imports.
    command = [sys.executable, "-P", "-m", "scalable_nb.host.process", str(paths.folder)]
    descriptor = os.open(paths.host_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def await_contact(
    paths: RunPaths, process: subprocess.Popen[bytes], timeout_s: float
) -> dict[str, Any]:
    """Wait until a host says how it is reached.

    Raises
    ------
    StartError
        When it ended, or did not come up in time; carries the last lines of its log.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        contact = read_contact(paths)
        if contact is not None:
            return contact
        if process.poll() is not None:
            raise StartError(
                f"the host of run {paths.run_id} ended with exit code {process.returncode} while "
                f"it started. Its log ({paths.host_log}) says:\n{last_lines(paths.host_log)}"
            )
        time.sleep(_POLL_S)
    raise StartError(
        f"the host of run {paths.run_id} did not come up within {timeout_s:g} s "
        f"(SCALABLE_START_TIMEOUT_S). Its log ({paths.host_log}) says:\n"
        f"{last_lines(paths.host_log)}"
    )


def read_contact(paths: RunPaths) -> dict[str, Any] | None:
    """``session.json``, where it is there and whole."""
    try:
        info = paths.session_json.stat()
        contact: dict[str, Any] = json.loads(paths.session_json.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if info.st_uid != os.getuid():
        raise RunFolderError(
            f"{paths.session_json} belongs to uid {info.st_uid}, not to you: not read"
        )
    return contact


def is_alive(contact: dict[str, Any]) -> bool:
    """Whether a host's process exists; assumed of a host on another machine."""
    if not contact:
        return False
    if contact["host"] != platform.node():
        return True
    try:
        process = psutil.Process(contact["pid"])
        # Process ids are used again; the start tells two of them apart.
        is_same = abs(process.create_time() - contact["pid_started_at"]) < 1.0
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_host(process: subprocess.Popen[bytes]) -> None:
    """End a host that did not come up, and what it had started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_TERM_GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_lines(path: Path) -> str:
    """The end of a log, set in."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:]) or "  (the log is empty)"
