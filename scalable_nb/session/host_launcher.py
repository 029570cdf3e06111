"""Starting a host, as a process of this machine or as a batch job, until it can be reached."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from scalable_nb.errors import StartError
from scalable_nb.manifest.load import LoadedManifest
from scalable_nb.manifest.start_plan import Plan
from scalable_nb.paths import RunPaths, write_private
from scalable_nb.protocol.connection_file import HostState, read_connection_info, write_state
from scalable_nb.telemetry.rows import SCHEMA_VERSION, utc_iso

T = TypeVar("T")


_TERM_GRACE_S: Final = 10.0
_LOG_LINES: Final = 15


class HostHandle(Protocol):
    """A host that was asked for.

    Attributes
    ----------
    poll_s : float
        So often it is looked whether it can be reached, seconds.
    """

    poll_s: float

    def has_ended(self) -> bool:
        """Whether it ended by itself, as far as that is known."""

    def how_ended(self) -> str:
        """How, as a clause; to be asked when it has ended."""

    def is_queued(self) -> bool:
        """Whether it still waits for a machine to run on."""

    def log_excerpt(self) -> str:
        """The end of its log, set in, and where that is."""

    def end(self) -> None:
        """End it and what it had started; harmless where it has ended."""


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
        "host": loaded.target.host,
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


class SpawnedHost:
    """A host that is a process of this machine, detached from this one."""

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
        """Whether the process is over; reaps it, so that it does not look alive."""
        return self._process.poll() is not None

    def how_ended(self) -> str:
        """With which exit code."""
        return f"it ended with exit code {self._process.returncode}"

    def is_queued(self) -> bool:
        """It runs at once."""
        return False

    def log_excerpt(self) -> str:
        """The end of its log."""
        return f"Its log ({self._log}) says:\n{last_lines(self._log)}"

    def end(self) -> None:
        """First asked to, then killed."""
        if self.has_ended():
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(_TERM_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def await_connection_info(paths: RunPaths, host: HostHandle, timeout_s: float) -> dict[str, Any]:
    """Wait until a host says how it is reached.

    Parameters
    ----------
    paths : RunPaths
    host : HostHandle
    timeout_s : float
        How long it may take to come up, the time in a queue not counted.

    Raises
    ------
    StartError
        When it ended, or did not come up in time; carries the last lines of its log.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        connection_info = read_connection_info(paths)
        if connection_info is not None:
            return connection_info
        if host.has_ended():
            raise StartError(
                f"the host of run {paths.run_id} did not come up: {host.how_ended()}. "
                f"{host.log_excerpt()}"
            )
        if host.is_queued():
            deadline = time.monotonic() + timeout_s
        time.sleep(host.poll_s)
    raise StartError(
        f"the host of run {paths.run_id} did not come up within {timeout_s:g} s "
        f"(SCALABLE_START_TIMEOUT_S). {host.log_excerpt()}"
    )


def last_lines(path: Path) -> str:
    """The end of a log, set in."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:]) or "  (the log is empty)"


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own, and give its result.

    In a notebook the calling thread runs an event loop already, so this is another thread. It
    ends before an interrupt of the wait goes on to the caller: what the coroutine began is known.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
