"""``session.json``: the host's state, its connection info, and its heartbeat (the file's mtime).

The file exists from the request for a host until the host's last action. The kernel of a session,
a report and the removal of stale runs use `is_alive` to find out whether the host is running.
"""

from __future__ import annotations

import json
import os
import platform
from enum import StrEnum
from pathlib import Path
from time import time
from typing import Any, Final

import psutil

from scalable_nb.errors import RunFolderError
from scalable_nb.paths import RunPaths, write_private
from scalable_nb.protocol.version import ProtocolVersion
from scalable_nb.signing import Kind, own_key
from scalable_nb.telemetry.rows import SCHEMA_VERSION
from scalable_nb.trusted_paths import open_regular

#: How often the process named in the file touches it.
HEARTBEAT_INTERVAL_S: Final = 5.0

#: A host on another machine is dead after this time without a heartbeat. Clocks of machines
#: differ by seconds, and a network file system may show a file's time a minute late (acregmax of
#: NFS).
SILENT_S: Final = 180.0

#: A process's start, as computed from the time since boot, moves when the clock is set.
_SAME_START_S: Final = 5.0

#: Values of an open host without which a kernel cannot connect.
_CONNECTION_KEYS: Final = frozenset(
    {"address", "certificate", "host", "pid", "started_at", "target", "tls"}
)

_MAX_BYTES: Final = 1 << 20
_TOUCHED_AT: Final = "touched_at"
_OWNER: Final = "owner"
_READ: Final = frozenset({_TOUCHED_AT, _OWNER})


class HostState(StrEnum):
    """Host states in ``session.json``."""

    ASKED_FOR = "asked for"  # written by the kernel that starts it
    STARTING = "starting"
    OPEN = "open"
    ENDING = "ending"


def write_state(paths: RunPaths, state: HostState, **more: Any) -> None:
    """Write ``session.json`` in the name of this process.

    Parameters
    ----------
    paths : RunPaths
    state : HostState
    **more
        Further JSON values for kernels.
    """
    info = {
        "schema_version": SCHEMA_VERSION,
        "run_id": paths.run_id,
        "state": str(state),
        "pid": os.getpid(),
        "pid_started_at": psutil.Process().create_time(),
        "host": platform.node(),
        "written_at": time(),
        **ProtocolVersion.own().to_wire(),
        **more,
    }
    _write(paths, info)


def sign_state(paths: RunPaths) -> None:
    """Sign ``session.json`` as it is; does nothing without one. Its time stays."""
    info = read_state(paths.session_json)
    if info:
        values = {name: value for name, value in info.items() if name not in _READ}
        _write(paths, {"written_at": info[_TOUCHED_AT], **values})
        os.utime(paths.session_json, (info[_TOUCHED_AT], info[_TOUCHED_AT]))


def _write(paths: RunPaths, info: dict[str, Any]) -> None:
    signed = own_key().signed(Kind.STATE, paths.run_id, info)
    write_private(paths.session_json, json.dumps(signed, indent=1).encode())


def touch(paths: RunPaths) -> None:
    """Write a heartbeat: update the time of ``session.json``.

    Raises
    ------
    OSError
        When the file is gone, or its file system.
    """
    # Without a time: it is the file server's then, the same for all machines.
    os.utime(paths.session_json)


def read_state(path: Path) -> dict[str, Any]:
    """Return ``session.json`` with its owner and mtime; empty if missing, not whole or a link."""
    try:
        # Opening a file asks a network file system for its newest state; looking does not.
        with open_regular(path) as file:
            stat = os.fstat(file.fileno())
            info = json.loads(file.read(_MAX_BYTES))
    except (FileNotFoundError, RunFolderError, ValueError):
        return {}
    if not isinstance(info, dict):
        return {}
    return {**info, _TOUCHED_AT: stat.st_mtime, _OWNER: stat.st_uid}


def read_connection_info(paths: RunPaths) -> dict[str, Any] | None:
    """Return the host's connection info, or None unless the host is open.

    Raises
    ------
    RunFolderError
        If another user owns the file, it is of another run, or a live host of this version has
        not written all values or not signed them.
    """
    info = read_state(paths.session_json)
    if info.get("state") != HostState.OPEN:
        return None
    if info[_OWNER] != os.getuid():
        raise RunFolderError(
            f"{paths.session_json} belongs to uid {info[_OWNER]}, not to you: not read"
        )
    if info.get("run_id", paths.run_id) != paths.run_id:
        raise RunFolderError(
            f"{paths.session_json} is of run {info['run_id']!r}, not of {paths.run_id}: not read"
        )
    # The caller reports another version: that says more than what is missing.
    if not ProtocolVersion.from_wire(info).is_compatible or not is_alive(info):
        return info
    if not _is_signed(info, paths.run_id):
        raise RunFolderError(
            f"{paths.session_json} is not signed with your key, so its address is not used: it is "
            "from elsewhere, or was changed. If you trust its author, "
            f"`%scalable attach {paths.run_id} --trust` signs it"
        )
    missing = sorted(_CONNECTION_KEYS - info.keys())
    if missing:
        raise RunFolderError(
            f"{paths.session_json} does not say {', '.join(missing)}: stop the host (its pid: "
            f"{info.get('pid', 'unknown')}) and start a new session"
        )
    return info


def _is_signed(info: dict[str, Any], run_id: str) -> bool:
    """Return whether the user's key signed it for this run, at a plausible time."""
    written_at = info.get("written_at")
    if not isinstance(written_at, float) or written_at - info[_TOUCHED_AT] > SILENT_S:
        return False  # no file has a time long before it was written
    values = {name: value for name, value in info.items() if name not in _READ}
    return written_at - time() < SILENT_S and own_key().is_signed(Kind.STATE, run_id, values)


def is_here(info: dict[str, Any]) -> bool:
    """Return whether the host is a process of this machine."""
    return bool(info.get("host", platform.node()) == platform.node())


def is_alive(info: dict[str, Any]) -> bool:
    """Return whether the host process runs, or its heartbeat from another machine is recent."""
    if not is_here(info):
        touched_at = info.get(_TOUCHED_AT)
        # A time in the future, as in an unpacked archive, is no heartbeat either.
        return isinstance(touched_at, float) and abs(time() - touched_at) < SILENT_S
    try:
        process = psutil.Process(info["pid"])
        # Process ids are used again; the start tells two of them apart.
        apart_s: float = abs(process.create_time() - info["pid_started_at"])
        is_zombie: bool = process.status() == psutil.STATUS_ZOMBIE
        return apart_s < _SAME_START_S and not is_zombie
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        return False
