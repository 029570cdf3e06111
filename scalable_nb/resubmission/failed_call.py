"""A call that failed, made once more where one can look at it.

In this process, so that ``%debug`` works; in a child process where the last attempt took its
worker with it, ran out of memory or did not end, which would do the same to the notebook.
"""

from __future__ import annotations

import faulthandler
import pickle
import reprlib
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from scalable_nb.faults.tracebacks import format_traceback, safe_message
from scalable_nb.protocol.call import Call

_RAISED: Final = 70  # exit code of a child whose call raised (EX_SOFTWARE)
_GRACE_S: Final = 60.0  # for the start of a child, which ends itself at its limit
_OUTPUT_CHARS: Final = 20_000


@dataclass(frozen=True)
class Reproduction:
    """What came of a call that was made again.

    Attributes
    ----------
    outcome : str
        ``"returned"``, ``"raised"``, ``"timed out"`` or ``"died"``.
    where : str
        ``"this process"`` or ``"a child process"``.
    text : str
        One line for a person.
    details : str
        The traceback, or what the child process wrote; empty where there is none.
    duration_s : float
    value : object
        What it returned in this process; else None.
    error : BaseException or None
        What it raised in this process.
    """

    outcome: str
    where: str
    text: str
    details: str
    duration_s: float
    value: Any = None
    error: BaseException | None = None

    def __str__(self) -> str:
        return f"{self.text}\n{self.details}".rstrip()

    __repr__ = __str__


@dataclass(frozen=True)
class FailedCall:
    """A call that failed, ready to be made again.

    Attributes
    ----------
    label : str
        As a person reads it.
    call : Call
    inputs : list
        Results of other tasks among its arguments.
    is_async : bool
    timeout_s : float or None
    memory_limit_bytes : int or None
        Of the worker on which it failed.
    needs_child : bool
        Whether it must not run in the caller's process.
    """

    label: str
    call: Call
    inputs: Sequence[Any]
    is_async: bool
    timeout_s: float | None
    memory_limit_bytes: int | None
    needs_child: bool

    def run(self) -> Reproduction:
        """Make the call, where it is safe, and wait for its end."""
        return self._run_in_child() if self.needs_child else self._run_here()

    def _run_here(self) -> Reproduction:
        began = time.perf_counter()
        try:
            value = _made(_loaded(self.call, self.inputs), self.is_async)
        except BaseException as error:  # noqa: BLE001 - whatever it is, that is what is asked
            # Where `%debug` and `pdb.pm()` look.
            sys.last_type, sys.last_value, sys.last_traceback = (
                type(error), error, error.__traceback__,
            )  # fmt: skip
            text = f"raised {type(error).__name__}: {safe_message(error)}"
            return self._reproduction("raised", text, began, format_traceback(error), error=error)
        return self._reproduction("returned", f"returned {reprlib.repr(value)}", began, value=value)

    def _run_in_child(self) -> Reproduction:
        began = time.perf_counter()
        request = (sys.path, self.call, self.inputs, self.is_async, self.timeout_s,
                 self.memory_limit_bytes)  # fmt: skip
        limit_s = None if self.timeout_s is None else self.timeout_s + _GRACE_S
        child = subprocess.Popen(
            [sys.executable, "-m", "scalable_nb.resubmission.failed_call"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            output, _ = child.communicate(pickle.dumps(request), limit_s)
        except subprocess.TimeoutExpired:
            child.kill()
            output, _ = child.communicate()
        finally:
            with suppress(ProcessLookupError):
                child.kill()
        outcome, text = _end_of_child(child.returncode, self.timeout_s, time.perf_counter() - began)
        return self._reproduction(
            outcome, text, began, output.decode(errors="replace")[-_OUTPUT_CHARS:]
        )

    def _reproduction(
        self, outcome: str, text: str, began: float, details: str = "", **values: Any
    ) -> Reproduction:
        where = "a child process" if self.needs_child else "this process"
        duration_s = time.perf_counter() - began
        message = f"{self.label} in {where}, {duration_s:.1f} s: {text}"
        return Reproduction(outcome, where, message, details, duration_s, **values)


def _loaded(call: Call, inputs: Sequence[Any]) -> Callable[[], Any]:
    function: Callable[..., Any] = call.load_function()
    args, kwargs = call.load_arguments(inputs)
    return lambda: function(*args, **kwargs)


def _made(call: Callable[[], Any], is_async: bool) -> Any:
    if not is_async:
        return call()
    from scalable_nb.session.host_job import run_coroutine

    return run_coroutine(call())


def _end_of_child(code: int, timeout_s: float | None, ran_s: float) -> tuple[str, str]:
    if code == 0:
        return "returned", "returned"
    if code == _RAISED:
        return "raised", "raised an error"
    if timeout_s is not None and ran_s >= timeout_s:
        return "timed out", f"did not end within its limit of {timeout_s:g} s; it was at"
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return "died", f"took its process with it ({how})"


def _run_child() -> None:
    """What the child process does: one call, its end told by the exit code."""
    faulthandler.enable()
    path, call, inputs, is_async, timeout_s, limit_bytes = pickle.load(sys.stdin.buffer)
    sys.path += [entry for entry in path if entry not in sys.path]
    if limit_bytes:
        # Not the machine's memory is to be found out, but what the worker had.
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    try:
        loaded = _loaded(call, inputs)  # which does not count: it may import much
        if timeout_s is not None:
            faulthandler.dump_traceback_later(timeout_s, exit=True)
        value = _made(loaded, is_async)
    except BaseException:  # noqa: BLE001 - the exit code tells, whatever it is
        traceback.print_exc()
        sys.exit(_RAISED)
    print("returned", reprlib.repr(value))  # noqa: T201 - read by the parent


if __name__ == "__main__":
    _run_child()
