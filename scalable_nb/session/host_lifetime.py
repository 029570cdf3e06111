"""What will end a host that is started here sooner than its session."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from scalable_nb.manifest.job_options import BATCH_SYSTEMS

#: Grid Engine's; other programs set it, too.
_AMBIGUOUS_VARIABLE: Final = "JOB_ID"
_CONTAINER_MARKS: Final = ("/.dockerenv", "/run/.containerenv")
_COMMAND_TIMEOUT_S: Final = 5.0


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
    for system in BATCH_SYSTEMS.values():
        job_id = environ.get(system.id_variable)
        if job_id and system.id_variable != _AMBIGUOUS_VARIABLE:
            return (
                f"this notebook is {system.label} job {job_id}, and the session's host is part of "
                f"it: both end with the job{_end_of(system.label, job_id)}"
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
