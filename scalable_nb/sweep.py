"""Removes what hosts left behind that were killed before they could do it themselves."""

from __future__ import annotations

import json
import logging
import platform
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from scalable_nb.paths import RunPaths, list_runs

logger = logging.getLogger(__name__)


def sweep_runs(runs_dir: Path) -> list[RunPaths]:
    """Take away keys, addresses and workspaces of hosts of this machine that are dead.

    The records stay. A run of another machine is left alone: whether its host is alive cannot
    be seen from here.

    Returns
    -------
    list of RunPaths
        The runs in which something was removed.
    """
    suspects = [run for run in list_runs(runs_dir) if any(_leftovers(run)) and _is_ours(run)]
    if not suspects:
        return []
    # A host is started with its run folder as an argument, long before it has an address.
    alive = set(_arguments())
    swept = [run for run in suspects if str(run.folder) not in alive]
    for run in swept:
        for path in _leftovers(run):
            _remove(path)
    return swept


def _leftovers(run: RunPaths) -> Iterator[Path]:
    yield from (path for path in (run.tls, run.workspace, run.session_json) if path.exists())


def _is_ours(run: RunPaths) -> bool:
    try:
        about = json.loads(run.run_json.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("hostname") == platform.node()


def _arguments() -> Iterator[str]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it ended meanwhile, or belongs to somebody else
            yield from process.cmdline()


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        logger.warning("cannot remove %s, which a dead host left behind", path, exc_info=True)
