"""Starting a host, as a process of this machine or as a batch job, until it is open."""

from __future__ import annotations

import getpass
import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scalable_nb.errors import StartError
from scalable_nb.manifest.start_plan import Plan
from scalable_nb.paths import RunPaths, write_private
from scalable_nb.protocol.connection_file import HostState, read_connection_info, read_state
from scalable_nb.session.host_job import submit_host
from scalable_nb.session.session_spec import SessionSpec
from scalable_nb.session.spawned_host import HostHandle, SpawnedHost
from scalable_nb.telemetry.rows import SCHEMA_VERSION, utc_iso


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
        "host": loaded.target.host,
        "user": getpass.getuser(),
        "hostname": platform.node(),
        "linger_s": spec.settings.linger_s,
        "started_at": utc_iso(time.time()),
    }
    write_private(paths.run_json, json.dumps(run, indent=1).encode())
    write_private(paths.manifest_yaml, loaded.text.encode())
    write_private(paths.manifest_lock, f"{loaded.sha256}\n".encode())
    for path in (paths.tasks, paths.failures, paths.workers, paths.cache):
        path.touch(mode=0o600)
