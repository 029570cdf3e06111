"""What the buttons of the table do: with the tasks of a live session, or of a finished run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from scalable_nb.errors import RunFolderError, SubmitError, UnknownNameError
from scalable_nb.trusted_paths import read_last_lines

if TYPE_CHECKING:
    from scalable_nb.client.host_api import HostApi
    from scalable_nb.faults.circuit_breaker import Pause
    from scalable_nb.paths import RunPaths
    from scalable_nb.resubmission.failed_call import FailedCall
    from scalable_nb.session.session import ScalableSession
    from scalable_nb.telemetry.journal_replay import AttemptRow

# As `logging` writes the time, in the machine's own zone: 2026-03-01 12:00:00,123
_MAX_LOG_BYTES: Final = 1 << 24
_STAMP: Final = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}")


#: The clocks of two processes, and the time between an event and its line.
_LOG_MARGIN_S: Final = 1.0
_LOG_LINES: Final = 200


@dataclass(frozen=True)
class Outcome:
    """What came of a button.

    Attributes
    ----------
    text : str
        One line.
    details : str
        A traceback or what was printed.
    follow_up : callable, optional
        Does the rest, which takes long, and gives the outcome of that.
    """

    text: str
    details: str = ""
    follow_up: Callable[[], Outcome] | None = None


class Controls(Protocol):
    """What a table can ask and do."""

    @property
    def actions(self) -> Sequence[str]:
        """What `act` can do with tasks."""
        ...

    def attempts(self, task_id: str) -> Sequence[AttemptRow]:
        """All attempts of a task, oldest first."""
        ...

    def log(self, task_id: str, attempt: int) -> list[str]:
        """What the worker logged during an attempt."""
        ...

    def act(self, action: str, task_ids: Sequence[str]) -> Outcome:
        """Do something with tasks."""
        ...

    def pauses(self) -> Sequence[Pause]:
        """The batches that are paused."""
        ...

    def decide(self, choice: str, batch: str) -> None:
        """Let a paused batch go on (``"resume"``), or cancel its rest (``"cancel"``)."""
        ...


class SessionControls:
    """The controls of a live session.

    Parameters
    ----------
    session : ScalableSession
    host_api : HostApi
        Of the session's client.
    """

    def __init__(self, session: ScalableSession, host_api: HostApi) -> None:
        self._session = session
        self._host_api = host_api
        self._actions: dict[str, Callable[[Sequence[str]], Outcome]] = {
            "retry_now": self._retry_now,
            "give_up": self._give_up,
            "cancel": self._cancel,
            "resubmit": self._resubmit,
            "reproduce": self._reproduce,
        }

    @property
    def actions(self) -> Sequence[str]:
        """What `act` can do with tasks."""
        return list(self._actions)

    def attempts(self, task_id: str) -> Sequence[AttemptRow]:
        """All attempts of a task, oldest first."""
        return self._session.attempts(task_id)

    def log(self, task_id: str, attempt: int) -> list[str]:
        """What the worker logged during an attempt; where it is gone, what the host noted."""
        span = _span(self._session.attempts(task_id), attempt)
        if span is None:
            return []
        worker, begin_at, end_at = span
        lines = lines_between(self._lines_of(worker), begin_at, end_at)
        if not lines and self._session.paths is not None:
            lines = lines_between(_lines_in_files(self._session.paths, worker), begin_at, end_at)
        return lines[-_LOG_LINES:]

    def _lines_of(self, worker: str) -> list[str]:
        addresses = [
            each["address"] for each in self._session.status().workers if each["name"] == worker
        ]
        if not addresses:
            return []
        logs = self._session.client.get_worker_logs(workers=addresses)
        # Newest first, each with its level.
        return [text for entries in logs.values() for _, text in reversed(entries)]

    def pauses(self) -> Sequence[Pause]:
        """The batches that are paused."""
        return self._session.status().pauses

    def decide(self, choice: str, batch: str) -> None:
        """Let a paused batch go on, or cancel its rest."""
        if choice == "resume":
            self._session.resume(batch)
        else:
            self._session.cancel(batch, only_paused=True)

    # --- with tasks ----------------------------------------------------------------

    def act(self, action: str, task_ids: Sequence[str]) -> Outcome:
        """Do something with tasks.

        Raises
        ------
        UnknownNameError
            When there is no such action.
        """
        if action not in self._actions:
            raise UnknownNameError("action", action, self._actions)
        self._session.check_alive()
        return self._actions[action](task_ids)

    def _keys(self, task_ids: Sequence[str]) -> list[Any]:
        """The keys themselves, where this notebook knows that they are no texts."""
        held = self._session.client.held_keys()
        return [held.get(task_id, task_id) for task_id in task_ids]

    def _retry_now(self, task_ids: Sequence[str]) -> Outcome:
        done = self._host_api.retry_now(self._keys(task_ids))
        return Outcome(f"{_tasks(done)} tried again now")

    def _give_up(self, task_ids: Sequence[str]) -> Outcome:
        done = self._host_api.give_up(self._keys(task_ids))
        return Outcome(f"{_tasks(done)} given up")

    def _cancel(self, task_ids: Sequence[str]) -> Outcome:
        done = self._host_api.cancel_tasks(self._keys(task_ids))
        return Outcome(f"{_tasks(done)} cancelled")

    def _resubmit(self, task_ids: Sequence[str]) -> Outcome:
        from distributed import Future

        from scalable_nb.client.futures import FutureList
        from scalable_nb.resubmission.api import resubmit

        client = self._session.client
        held = [key for key in self._keys(task_ids) if key in client.futures]
        if not held:
            raise SubmitError(
                "this notebook holds no future of the task, so its result would go nowhere; "
                "`resubmit(session.batches[...])`, or submit it again"
            )
        futures = FutureList(Future(key, client) for key in held)
        failed = len(futures.failed)
        resubmit(futures)
        left = len(futures.failed)
        why = f"; {left} left out because they are not idempotent: name them" if left else ""
        return Outcome(f"{_tasks(failed - left)} submitted again{why}")

    def _reproduce(self, task_ids: Sequence[str]) -> Outcome:
        from scalable_nb.resubmission.find_call import call_of_session

        (task_id,) = task_ids
        (key,) = self._keys(task_ids)
        return _run_call(call_of_session(self._session, task_id, key))


class RunControls:
    """The controls of a run whose session is gone: it can be looked at, and reproduced.

    Parameters
    ----------
    paths : RunPaths
    """

    actions = ("reproduce",)

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths

    def attempts(self, task_id: str) -> Sequence[AttemptRow]:
        """All attempts of a task, oldest first."""
        from scalable_nb.telemetry.journal_replay import attempts_of_run

        return attempts_of_run(self._paths, task_id)

    def log(self, task_id: str, attempt: int) -> list[str]:
        """What the worker logged during an attempt; where there is no log, what the host noted."""
        span = _span(self.attempts(task_id), attempt)
        if span is None:
            return []
        worker, begin_at, end_at = span
        return lines_between(_lines_in_files(self._paths, worker), begin_at, end_at)[-_LOG_LINES:]

    def act(self, action: str, task_ids: Sequence[str]) -> Outcome:
        """Make a call again as it was recorded (``"reproduce"``); there is nothing else to do.

        Raises
        ------
        SubmitError
            For any other action.
        """
        if action in self.actions:
            from scalable_nb.resubmission.find_call import call_of_run

            (task_id,) = task_ids
            return _run_call(call_of_run(self._paths, task_id))
        raise SubmitError(f"the session of run {self._paths.run_id} is over: nothing can {action}")

    def pauses(self) -> Sequence[Pause]:
        """Nothing waits any more."""
        return []

    def decide(self, choice: str, batch: str) -> None:
        """Nothing can be decided any more.

        Raises
        ------
        SubmitError
            Always.
        """
        self.act(choice, [])


def _run_call(call: FailedCall) -> Outcome:
    """Make a call now where that is safe, else later in a child process."""

    def run() -> Outcome:
        came = call.run()
        hint = " `%debug` looks into it." if came.error is not None else ""
        return Outcome(came.text + hint, came.details)

    return Outcome("Running in a child process …", follow_up=run) if call.needs_child else run()


def _tasks(count: int) -> str:
    return f"{count:,} task{'' if count == 1 else 's'}"


def _span(rows: Sequence[AttemptRow], attempt: int) -> tuple[str, float, float] | None:
    """Worker, begin and end of an attempt; an end in the far future while it runs."""
    for row in rows:
        if row.get("attempt") == attempt:
            ended = row.get("ended_at")
            end_at = datetime.fromisoformat(ended).timestamp() if ended else float("inf")
            begun = row.get("started_at")
            begin_at = (
                datetime.fromisoformat(begun).timestamp()
                if begun
                else end_at - (row.get("duration_s") or 0.0)
            )
            return str(row.get("worker", "")), begin_at - _LOG_MARGIN_S, end_at + _LOG_MARGIN_S
    return None


def _lines_in_files(paths: RunPaths, worker: str) -> list[str]:
    return _lines_in(paths.worker_log(worker) or paths.host_log)


def _lines_in(path: Path) -> list[str]:
    try:
        return read_last_lines(path, _MAX_LOG_BYTES, _MAX_LOG_BYTES)
    except (FileNotFoundError, RunFolderError):
        return []


def lines_between(lines: Iterable[str], begin_at: float, end_at: float) -> list[str]:
    """The lines of a span of time, oldest first.

    Parameters
    ----------
    lines : iterable of str
        In the order in which they were written. A line without a time belongs to the one
        before it.
    begin_at, end_at : float
        Seconds since the epoch, both included.
    """
    found = []
    is_within = False
    for line in lines:
        stamp = _STAMP.match(line)
        if stamp is not None:
            at = datetime.strptime(stamp[0], "%Y-%m-%d %H:%M:%S,%f").timestamp()
            is_within = begin_at <= at <= end_at
        if is_within:
            found.append(line)
    return found
