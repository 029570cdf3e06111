"""What the failure explorer can do with failed tasks of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from scalable_nb.errors import NoSessionError, RunFolderError
from scalable_nb.paths import RunPaths
from scalable_nb.trusted_paths import read_last_lines
from scalable_nb.widgets.task_table.actions import Controls, Outcome, RunControls, SessionControls

if TYPE_CHECKING:
    from scalable_nb.session.session import ScalableSession

_LOG_LINES: Final = 60
_LOG_BYTES: Final = 64_000


class Actions(Protocol):
    """Where the buttons of an explorer end."""

    def resubmit(self, kinds: Iterable[str], changes: Mapping[str, Any]) -> str:
        """Run failed tasks again whose last failure is of these kinds; tells what was done."""

    def reproduce(self, task_id: str) -> Outcome:
        """Make the call of a failed task again, here."""


class RunActions:
    """The actions of a run: by its session where that is live in this kernel.

    Parameters
    ----------
    paths : RunPaths
    """

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths

    def _session(self) -> ScalableSession | None:
        from scalable_nb.session.session import live_sessions

        run_id = self._paths.run_id
        return next((each for each in live_sessions() if each.run_id == run_id), None)

    def resubmit(self, kinds: Iterable[str], changes: Mapping[str, Any]) -> str:
        """Run failed tasks again whose last failure is of these kinds.

        Raises
        ------
        NoSessionError
            When the run's session is not live here.
        """
        from scalable_nb.resubmission.api import resubmit

        session = self._session()
        if session is None:
            raise NoSessionError(
                f"the session of {self._paths.run_id} is not live in this notebook; `%scalable "
                "attach` joins it, and what is over is run again by `resubmit(run=...)`"
            )
        tasks = session.tasks()
        chosen = set(kinds)
        before = len(tasks.failed)
        resubmit(tasks, only=lambda row: row.get("fingerprint") in chosen, **changes)
        done = before - len(tasks.failed)
        with_ = ", ".join(f"{name}={value!r}" for name, value in changes.items())
        count = "1 task" if done == 1 else f"{done:,} tasks"
        return f"{count} submitted again" + (f" with {with_}." if with_ else ".")

    def reproduce(self, task_id: str) -> Outcome:
        """Make the call of a failed task again, here: as it is in the session, or as recorded.

        Raises
        ------
        SubmitError
            When it is not idempotent, or is not known any more.
        """
        session = self._session()
        is_live = session is not None and session.is_host_alive()
        controls: Controls = (
            SessionControls(session, session.client.host_api)
            if session and is_live
            else RunControls(self._paths)
        )
        return controls.act("reproduce", [task_id])


def last_log_lines(paths: RunPaths, worker: str) -> tuple[Path, str]:
    """The end of a worker's log; of the host's where the worker has none of its own here."""
    own = paths.worker_log(worker)
    path = own if own is not None else paths.host_log
    try:
        lines = read_last_lines(path, _LOG_BYTES, _LOG_BYTES)
    except FileNotFoundError:
        return path, "There is no log."
    except RunFolderError as error:
        return path, str(error)
    if own is None:
        lines = [line for line in lines if worker and worker in line] or lines
    return path, "\n".join(lines[-_LOG_LINES:]) or "The log is empty."
