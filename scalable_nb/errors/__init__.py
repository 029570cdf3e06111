"""Every error this package raises on purpose.

Two families. Errors of *use* say what was asked, what was expected and what to
type next. Errors of *tasks* (`TaskError`) are what a future raises when an
attempt ended in a way that has no exception of its own: a lost worker, a
timeout, an exception that could not travel.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalable_nb.errors.worker_errors import (
        OutOfMemoryError,
        UnknownOutcomeError,
        WorkerLostError,
    )

__all__ = [
    "BatchCommandError",
    "DaskVersionError",
    "HostDiedError",
    "LeftOutError",
    "ManifestError",
    "NoRunError",
    "NoSessionError",
    "NotCacheableError",
    "OutOfMemoryError",
    "PolicyError",
    "ProtocolError",
    "ProtocolVersionError",
    "RemoteError",
    "ResultValidationError",
    "RunFolderError",
    "ScalableError",
    "ScalingError",
    "SessionConflictError",
    "SessionError",
    "SettingsError",
    "StartError",
    "SubmitError",
    "TaskError",
    "TaskTimeoutError",
    "UnknownNameError",
    "UnknownOutcomeError",
    "WorkerLostError",
]


class ScalableError(Exception):
    """Base of all errors raised by scalable_nb."""

    def __reduce__(self) -> Any:
        # Its own, and be it the inherited one: for a class without, tblib (which Dask installs
        # for all exceptions) goes round the constructor, and fails where it has several bases.
        return super().__reduce__()


# --- errors of use -----------------------------------------------------------


class SettingsError(ScalableError, ValueError):
    """A setting (environment variable or file) has a value that cannot be used."""


class ManifestError(ScalableError, ValueError):
    """A manifest cannot be read; the message lists every problem at once.

    Parameters
    ----------
    message : str
        The whole text, one problem per line.
    problems : sequence of str
        The same problems one by one, each with file, line, key, value and what
        was expected.
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)

    def __reduce__(self) -> Any:
        return type(self), (self.args[0], self.problems)


class UnknownNameError(ScalableError, KeyError):
    """A name (target, component, task, tag, subcommand, run) that is not defined.

    Parameters
    ----------
    kind : str
        What the name should have been, e.g. ``"target"``.
    name : str
        The name as given.
    known : iterable of str
        The names that exist; the closest one is suggested.
    hint : str, optional
        The next thing to type.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name, self.known, self.hint = kind, name, tuple(known), hint
        super().__init__(kind, name, self.known, hint)

    def __str__(self) -> str:
        close = difflib.get_close_matches(str(self.name), self.known, n=1)
        parts = [f"no {self.kind} named {self.name!r}."]
        if close:
            parts.append(f"Did you mean {close[0]!r}?")
        listed = ", ".join(sorted(self.known)) or "none is defined"
        parts.append(f"Known: {listed}.")
        if self.hint:
            parts.append(self.hint)
        return " ".join(parts)


class NoRunError(UnknownNameError):
    """The newest run was asked for before there was one."""

    def __str__(self) -> str:
        return f"there is no {self.kind} yet. {self.hint}"


class PolicyError(ScalableError, ValueError):
    """A retry or task policy with a value that makes no sense."""


class ScalingError(ScalableError, ValueError):
    """A number of workers that makes no sense, or for workers that the target does not have."""


class BatchCommandError(ScalableError):
    """A command of the batch system failed.

    Parameters
    ----------
    command : sequence of str
        With its arguments.
    exit_code : int or None
        None where it could not be run, or did not end in time.
    stdout, stderr : str
        What it printed, or why it could not be run.
    """

    def __init__(
        self, command: Iterable[str], exit_code: int | None, stdout: str, stderr: str
    ) -> None:
        self.command = tuple(command)
        self.exit_code = exit_code
        self.stdout, self.stderr = stdout, stderr
        super().__init__(self.command, exit_code, stdout, stderr)

    def __str__(self) -> str:
        how = "failed" if self.exit_code is None else f"ended with exit code {self.exit_code}"
        printed = [text.strip() for text in (self.stdout, self.stderr) if text.strip()]
        return "\n".join([f"`{' '.join(self.command)}` {how}.", *printed])


class SubmitError(ScalableError, TypeError):
    """A call that cannot be submitted: not callable, not picklable, ambiguous keyword."""


class NotCacheableError(SubmitError):
    """A call without a cache key: something that it depends on has no value to key on."""


class RunFolderError(ScalableError, OSError):
    """A run or cache folder that cannot be used: missing, unwritable or not private."""


class SessionError(ScalableError, RuntimeError):
    """Something about the session: not started, already live, not reachable."""


class NoSessionError(SessionError):
    """A command that needs a live session was used without one."""


class SessionConflictError(SessionError):
    """Another target was asked for while a session is live."""


class StartError(SessionError):
    """The host of a session did not come up; the message carries its last log lines."""


class DaskVersionError(ScalableError, ImportError):
    """Dask lacks something that this package uses; the message names it and both versions."""


class BatchPausedError(SessionError):
    """A wait for tasks of a paused batch, while no other task can run."""


class HostDiedError(SessionError, ConnectionError):
    """The process that owns the session ended while the session was in use."""


class ProtocolError(ScalableError, TypeError):
    """A message between two processes does not have the expected fields or types."""


class ProtocolVersionError(SessionError):
    """Another process runs a version of scalable_nb that this one cannot talk to."""


# --- errors of tasks ---------------------------------------------------------


class TaskError(ScalableError):
    """Base of the errors with which a task can fail other than its own exception."""


class LeftOutError(TaskError):
    """A task of an earlier run was not resubmitted; the message has the reason."""

    @classmethod
    def of(cls, task_id: str, reason: str) -> LeftOutError:
        """Return the error of a task."""
        return cls(f"{task_id} was left out: {reason}")


class TaskTimeoutError(TaskError, TimeoutError):
    """An attempt ran longer than the ``timeout_s`` of its policy."""


class ResultValidationError(TaskError, ValueError):
    """The function returned, but ``validate`` refused the result."""


class RemoteError(TaskError):
    """Stand-in for an exception that could not be pickled or unpickled.

    Attributes
    ----------
    type_name : str
        Qualified name of the original exception's class.
    traceback_text : str
        The traceback as the worker saw it.
    """

    def __init__(self, type_name: str, message: str, traceback_text: str = "") -> None:
        super().__init__(type_name, message, traceback_text)
        self.type_name = type_name
        self.message = message
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}"


def __getattr__(name: str) -> Any:
    # These derive from a class of Dask's. Importing that takes a third of a second, which
    # would stand between a person and the start of a session.
    if name in ("OutOfMemoryError", "UnknownOutcomeError", "WorkerLostError"):
        return getattr(importlib.import_module("scalable_nb.errors.worker_errors"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
