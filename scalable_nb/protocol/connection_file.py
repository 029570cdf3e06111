"""``session.json``: how a host is reached, and the sign that it is alive.

It exists from the moment a host is asked for to the last thing that the host does. Whoever must
know whether a host lives asks `is_alive`: the kernel of a session, a report, and whoever sweeps up
what dead hosts left.
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
from scalable_nb.telemetry.rows import SCHEMA_VERSION

#: So often the one whose sign it is touches the file.
BEAT_INTERVAL_S: Final = 5.0

#: After so long without a beat a host on another machine is dead. Clocks of machines differ by
#: seconds, and a network file system may show a file's time a minute late (acregmax of NFS).
SILENT_S: Final = 180.0

#: A process's start, as computed from the time since boot, moves when the clock is set.
_SAME_START_S: Final = 5.0

_TOUCHED_AT: Final = "touched_at"
_OWNER: Final = "owner"


class HostState(StrEnum):
    """What a host does, in its own words."""

    ASKED_FOR = "asked for"  # the sign of the kernel that starts it
    STARTING = "starting"
    OPEN = "open"
    ENDING = "ending"


def sign(paths: RunPaths, state: HostState, **more: Any) -> None:
    """Say that this process stands for the host of a run.

    Parameters
    ----------
    paths : RunPaths
    state : HostState
    **more
        What else a kernel should know, as values that JSON knows.
    """
    contact = {
        "schema_version": SCHEMA_VERSION,
        "run_id": paths.run_id,
        "state": str(state),
        "pid": os.getpid(),
        "pid_started_at": psutil.Process().create_time(),
        "host": platform.node(),
        **more,
    }
    write_private(paths.session_json, json.dumps(contact, indent=1).encode())


def beat(paths: RunPaths) -> None:
    """Show that whoever signed is still there.

    Raises
    ------
    OSError
        When the file is gone, or its file system.
    """
    # Without a time: it is the file server's then, the same for all machines.
    os.utime(paths.session_json)


def read_sign(path: Path) -> dict[str, Any]:
    """``session.json``, whose it is and when it was last touched; empty where it is not whole."""
    try:
        # Opening a file asks a network file system for its newest state; looking does not.
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            contact = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(contact, dict):
        return {}
    return {**contact, _TOUCHED_AT: info.st_mtime, _OWNER: info.st_uid}


def read_contact(paths: RunPaths) -> dict[str, Any] | None:
    """How the host of a run is reached; None while, or when, it takes no work.

    Raises
    ------
    RunFolderError
        When somebody else wrote it.
    """
    contact = read_sign(paths.session_json)
    if contact.get("state") != HostState.OPEN:
        return None
    if contact[_OWNER] != os.getuid():
        raise RunFolderError(
            f"{paths.session_json} belongs to uid {contact[_OWNER]}, not to you: not read"
        )
    return contact


def is_here(contact: dict[str, Any]) -> bool:
    """Whether a host is a process of this machine."""
    return bool(contact.get("host", platform.node()) == platform.node())


def is_alive(contact: dict[str, Any]) -> bool:
    """Whether whoever signed is there: a process here, or a file that is touched from elsewhere."""
    if not is_here(contact):
        touched_at = contact.get(_TOUCHED_AT)
        return isinstance(touched_at, float) and time() - touched_at < SILENT_S
    try:
        process = psutil.Process(contact["pid"])
        # Process ids are used again; the start tells two of them apart.
        apart_s: float = abs(process.create_time() - contact["pid_started_at"])
        is_zombie: bool = process.status() == psutil.STATUS_ZOMBIE
        return apart_s < _SAME_START_S and not is_zombie
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        return False
