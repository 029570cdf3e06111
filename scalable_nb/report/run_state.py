"""Whether a run is over, from the evidence in its folder and on this machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Any, Final

import orjson

from scalable_nb.paths import RunPaths
from scalable_nb.protocol.connection_file import is_alive, read_sign

# Runs of the package `scalable` have no session.json: a young one may go on.
_TRANSITION_S: Final = 60.0


def unfinished(run: RunPaths, about: Mapping[str, Any]) -> tuple[str, str]:
    """State of a run that wrote no end, and the machine its host is on."""
    contact = read_sign(run.session_json)
    host = str(contact.get("host") or about.get("hostname") or platform.node())
    if contact:
        return ("running" if is_alive(contact) else "interrupted"), host
    if run.host_log.exists():  # ours: the next start took its sign away, because it was dead
        return "interrupted", host
    if host != platform.node():  # a run of another package, without signs of life
        return "unknown", host
    newest = max((file.stat().st_mtime for file in run.folder.iterdir()), default=0.0)
    return ("running" if time() - newest < _TRANSITION_S else "interrupted"), host


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a run's folder; empty where there is none."""
    try:
        value = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}
