"""A host that is a process of this machine, and what limits its lifetime.

Such a host survives its notebook, unless everything that the notebook started is stopped with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from scalable_nb.paths import RunPaths
from scalable_nb.protocol.connection_file import HostState, write_state

_TERM_GRACE_S: Final = 10.0
_LOG_LINES: Final = 15
#: Set in the jobs of batch systems, by system.
_JOB_VARIABLES: Final = {
    "SLURM_JOB_ID": "Slurm",
    "PBS_JOBID": "PBS",
    "LSB_JOBID": "LSF",
    "OAR_JOB_ID": "OAR",
    "MOAB_JOBID": "Moab",
}
_CONTAINER_MARKS: Final = ("/.dockerenv", "/run/.containerenv")
_COMMAND_TIMEOUT_S: Final = 5.0


class HostHandle(Protocol):
    """A host that was started.

    Attributes
    ----------
    poll_s : float
        Polling interval in seconds.
    """

    poll_s: float

    def has_ended(self) -> bool:
        """Return whether it is known to have ended by itself."""

    def how_ended(self) -> str:
        """Return the outcome of a host that has ended, as a clause."""

    def is_queued(self) -> bool:
        """Return whether it still waits for a machine to run on."""

    def log_excerpt(self) -> str:
        """Return the path and the last lines of its log, indented."""

    def end(self) -> None:
        """Stop it and what it has started; harmless if it has ended."""


class SpawnedHost:
    """A host that is a detached process on this machine.

    Parameters
    ----------
    paths : RunPaths
    """

    poll_s = 0.02

    def __init__(self, paths: RunPaths) -> None:
        self._log = paths.host_log
        write_state(paths, HostState.ASKED_FOR)
        # -P: the notebook's folder must not shadow what the host imports.
        command = [sys.executable, "-P", "-m", "scalable_nb.host.process", str(paths.folder)]
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def has_ended(self) -> bool:
        """Return whether the process has ended; reaps it, so that it does not look alive."""
        return self._process.poll() is not None

    def how_ended(self) -> str:
        """Return its exit code as a clause."""
        return f"it ended with exit code {self._process.returncode}"

    def is_queued(self) -> bool:
        """Return False: it runs immediately."""
        return False

    def log_excerpt(self) -> str:
        """Return the path and the last lines of its log."""
        return f"Its log ({self._log}) says:\n{last_lines(self._log)}"

    def end(self) -> None:
        """Stop it with SIGTERM, and with SIGKILL if that takes too long."""
        if self.has_ended():
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(_TERM_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def last_lines(path: Path) -> str:
    """Return the last lines of a log, indented."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:]) or "  (the log is empty)"


def find_lifetime_limit(
    environ: Mapping[str, str] = os.environ, root: Path = Path("/")
) -> str | None:
    """What will end a host that is started here sooner than its session; None where nothing is.

    Parameters
    ----------
    environ : mapping
        Of this process.
    root : Path
        Of the file system.
    """
    for name, system in _JOB_VARIABLES.items():
        job_id = environ.get(name)
        if job_id:
            return (
                f"this notebook is {system} job {job_id}, and the session's host is part of it: "
                f"both end with the job{_end_of(system, job_id)}"
            )
    if any((root / mark.lstrip("/")).exists() for mark in _CONTAINER_MARKS):
        return "this notebook runs in a container: the session ends when that is stopped"
    if _is_killed_at_logout(environ, root):
        return (
            "this machine ends all processes of a user at logout (KillUserProcesses), the "
            "session's host too; `loginctl enable-linger` or `host: job` of the target prevents it"
        )
    return None


def _end_of(system: str, job_id: str) -> str:
    if system != "Slurm":
        return ""
    try:
        answer = subprocess.run(
            ["squeue", "--noheader", f"--jobs={job_id}", "--format=%e"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    end = answer.stdout.strip()
    return f", at {end}" if answer.returncode == 0 and end not in ("", "N/A") else ""


def _is_killed_at_logout(environ: Mapping[str, str], root: Path) -> bool:
    if (root / "var/lib/systemd/linger" / environ.get("USER", "?")).exists():
        return False
    lines: list[str] = []
    for folder in ("usr/lib/systemd", "etc/systemd"):  # what comes later holds
        files = [root / folder / "logind.conf"]
        files += sorted((root / folder / "logind.conf.d").glob("*.conf"))
        for path in files:
            if path.is_file():
                lines += path.read_text(errors="replace").splitlines()
    said = [line.partition("=")[2].strip().lower() for line in lines
            if line.strip().startswith("KillUserProcesses=")]  # fmt: skip
    return bool(said) and said[-1] in ("yes", "true", "1", "on")
