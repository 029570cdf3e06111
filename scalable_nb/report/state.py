"""Whether a run is over, from the evidence in its folder and on this machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Any, Final

import orjson
import psutil

from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.reader import number

# While a host starts and while it ends there is no session.json and no end either.
_TRANSITION_S: Final = 60.0


def unfinished(run: RunPaths, about: Mapping[str, Any]) -> tuple[str, str]:
    """State of a run that wrote no end, and the machine its host is on."""
    session = read_object(run.session_json)
    here = platform.node()
    host = str(session.get("host") or about.get("hostname") or here)
    if host != here:
        return "unknown", host
    if not session:
        newest = max((file.stat().st_mtime for file in run.folder.iterdir()), default=0.0)
        return ("running" if time() - newest < _TRANSITION_S else "interrupted"), host
    return ("running" if _is_alive(session) else "interrupted"), host


def _is_alive(session: Mapping[str, Any]) -> bool:
    try:
        began_at = psutil.Process(session["pid"]).create_time()
    except (KeyError, TypeError, ValueError, OverflowError, psutil.Error):
        return False
    # A pid is used again, after a reboot above all: the time of the start tells.
    noted_at = number(session.get("pid_started_at"))
    return not abs(began_at - noted_at) > 5


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a run's folder; empty where there is none."""
    try:
        value = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}
