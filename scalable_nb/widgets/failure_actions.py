"""What the failure explorer can do with failed tasks of a live session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from scalable_nb.paths import RunPaths

_LOG_LINES: Final = 60
_LOG_BYTES: Final = 64_000


class Actions(Protocol):
    """Where the buttons of an explorer end."""

    def resubmit(self, kinds: Iterable[str], changes: Mapping[str, Any]) -> str:
        """Run failed tasks again whose last failure is of these kinds; tells what was done."""


class SessionActions:
    """The actions of the session that is live in this kernel.

    Parameters
    ----------
    paths : RunPaths
        The run whose session it has to be.
    """

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths

    def resubmit(self, kinds: Iterable[str], changes: Mapping[str, Any]) -> str:
        """Run failed tasks again whose last failure is of these kinds.

        Raises
        ------
        NoSessionError
            When the run's session is not live here.
        """
        from scalable_nb.errors import NoSessionError
        from scalable_nb.resubmission import resubmit
        from scalable_nb.session import live_sessions

        run_id = self._paths.run_id
        session = next((each for each in live_sessions() if each.run_id == run_id), None)
        if session is None:
            raise NoSessionError(
                f"the session of {run_id} is not live in this notebook; `%scalable attach` joins "
                "it, and what is over is run again by `resubmit(run=...)`"
            )
        tasks = session.tasks()
        chosen = set(kinds)
        before = len(tasks.failed)
        resubmit(tasks, only=lambda row: row.get("fingerprint") in chosen, **changes)
        done = before - len(tasks.failed)
        with_ = ", ".join(f"{name}={value!r}" for name, value in changes.items())
        count = "1 task" if done == 1 else f"{done:,} tasks"
        return f"{count} submitted again" + (f" with {with_}." if with_ else ".")


def last_log_lines(paths: RunPaths, worker: str) -> tuple[Path, str]:
    """The end of a worker's log; of the host's where the worker has none of its own here."""
    own = paths.worker_log(worker)
    path = own if own is not None else paths.host_log
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return path, "There is no log."
    if own is None:
        lines = [line for line in lines if worker and worker in line] or lines
    return path, "\n".join(lines[-_LOG_LINES:]) or "The log is empty."
