"""Starting a host, as a process of this machine or as a batch job, until it is open.

A process survives its notebook, unless everything that the notebook started is stopped with it.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol

from scalable_nb.errors import StartError
from scalable_nb.manifest.session_commands import host_process
from scalable_nb.manifest.start_plan import Plan
from scalable_nb.paths import RunPaths, write_private
from scalable_nb.protocol.connection_file import (
    HostState,
    read_connection_info,
    read_state,
    write_state,
)
from scalable_nb.session.host_job import last_lines, submit_host
from scalable_nb.session.session_spec import SessionSpec
from scalable_nb.signing import Kind, hand_over_key, own_key
from scalable_nb.telemetry.journal_reader import read_object
from scalable_nb.telemetry.rows import SCHEMA_VERSION, utc_iso
from scalable_nb.trusted_paths import read_regular

_TERM_GRACE_S: Final = 10.0


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
        command = host_process(str(paths.folder))
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


@contextmanager
def launch_host(spec: SessionSpec, paths: RunPaths, plan: Plan | None) -> Iterator[HostHandle]:
    """Start a host; stop it if the block raises.

    Parameters
    ----------
    spec : SessionSpec
    paths : RunPaths
        The new run.
    plan : Plan or None
        What the host starts, to be kept in the run folder; made here if None.
    """
    prepare_run(paths, spec)
    host: HostHandle | None = None
    try:
        is_job = spec.target.host == "job"
        host = submit_host(paths, spec.loaded) if is_job else SpawnedHost(paths)
        plan = plan or spec.plan()  # the host starts meanwhile
        write_private(paths.plan_json, json.dumps(plan.to_dict(), indent=1).encode())
        yield host
    except BaseException:
        if host is not None:
            host.end()
        if read_state(paths.session_json).get("state") == HostState.ASKED_FOR:
            paths.session_json.unlink(missing_ok=True)
        raise


def await_connection_info(paths: RunPaths, host: HostHandle, timeout_s: float) -> dict[str, Any]:
    """Wait until a host is open, and return its connection info.

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


def prepare_run(paths: RunPaths, spec: SessionSpec) -> None:
    """Write what a host needs to know into its run folder."""
    loaded = spec.loaded
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
        "key_file": hand_over_key(paths),
        "host": loaded.target.host,
        "user": getpass.getuser(),
        "hostname": platform.node(),
        "linger_s": spec.settings.linger_s,
        "started_at": utc_iso(time.time()),
    }
    write_private(paths.run_json, json.dumps(run, indent=1).encode())
    write_private(paths.manifest_yaml, loaded.text.encode())
    sign_manifest(paths)
    for path in (paths.tasks, paths.failures, paths.workers, paths.cache):
        path.touch(mode=0o600)


def sign_manifest(paths: RunPaths) -> None:
    """Write ``manifest.lock``: SHA-256 and signature of the manifest and the target's name."""
    digest = sha256(read_regular(paths.manifest_yaml)).hexdigest()
    signature = own_key().sign(*_signed_manifest(paths, digest)).hex()
    write_private(paths.manifest_lock, f"{digest}\n{signature}\n".encode())


def is_manifest_signed(paths: RunPaths) -> bool:
    """Return whether the user's key signed the manifest of a run, with its target."""
    try:
        digest = sha256(read_regular(paths.manifest_yaml)).hexdigest()
        signature = bytes.fromhex(read_regular(paths.manifest_lock).decode().split()[1])
    except (OSError, ValueError, IndexError):
        return False
    return own_key().has_signed(signature, *_signed_manifest(paths, digest))


def _signed_manifest(paths: RunPaths, digest: str) -> tuple[Kind, bytes, bytes]:
    target = read_object(paths.run_json).get("target")
    return Kind.MANIFEST, paths.run_id.encode(), f"{digest} {target}".encode()
