"""Daemons that outlive the command which started them, and can be told from any other process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from scalable_nb.errors import StartError
from scalable_nb.paths import write_private

_ENDS_WITHIN_S: Final = 15.0
_POLL_S: Final = 0.02
_LOG_LINES: Final = 15


class Daemon:
    """A program in the background, with a pid file and a log.

    Parameters
    ----------
    name : str
        Names its files, e.g. ``"slurmd-n1"``.
    pids, logs : Path
        Folders of those files.
    """

    def __init__(self, name: str, pids: Path, logs: Path) -> None:
        self.name = name
        self._pid_file = pids / f"{name}.pid"
        self.log = logs / f"{name}.log"

    def start(self, command: list[str], environment: Mapping[str, str]) -> None:
        """Start the program in a session of its own; it writes to the log."""
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # Not subprocess: that wants whoever starts a program to stay and wait for it.
            pid = os.posix_spawn(
                command[0],
                command,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,
            )
        finally:
            os.close(log)
        started_at = psutil.Process(pid).create_time()
        write_private(self._pid_file, f"{pid} {started_at}\n".encode())

    def process(self) -> psutil.Process | None:
        """The running program; None when it ended, also when another has its pid by now."""
        try:
            pid, started_at = self._pid_file.read_text().split()
            process = psutil.Process(int(pid))
            is_it = process.create_time() == float(started_at)
            return process if is_it and is_alive(process) else None
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None

    def log_excerpt(self) -> str:
        """The end of its log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(lines[-_LOG_LINES:])

    def forget(self) -> None:
        """Remove the pid file."""
        self._pid_file.unlink(missing_ok=True)


def wait_until(
    condition: Callable[[], bool], daemons: Iterable[Daemon], what: str, timeout_s: float
) -> None:
    """Wait for a condition while all these daemons live.

    Raises
    ------
    StartError
        With the last words of a daemon that ended, or of all when the time is over.
    """
    daemons = list(daemons)
    deadline = time.monotonic() + timeout_s
    while not condition():
        dead = [daemon for daemon in daemons if daemon.process() is None]
        if not dead and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            continue
        happened = "ended while starting" if dead else f"were not ready after {timeout_s:g} s"
        names = ", ".join(daemon.name for daemon in dead or daemons)
        words = "\n".join(f"{daemon.log}:\n{daemon.log_excerpt()}" for daemon in dead or daemons)
        raise StartError(f"{what}: {names} {happened}.\n{words}")


def stop_all(daemons: Iterable[Daemon]) -> None:
    """End programs together: first politely, after a while by force."""
    daemons = list(daemons)
    processes = [process for daemon in daemons if (process := daemon.process())]
    end_processes(processes)
    for daemon in daemons:
        daemon.forget()


def end_processes(processes: Iterable[psutil.Process]) -> None:
    """Terminate processes, kill those that stay, and wait for all."""
    left = list(processes)
    for act in (psutil.Process.terminate, psutil.Process.kill):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                act(process)
        deadline = time.monotonic() + _ENDS_WITHIN_S
        while (left := list(filter(is_alive, left))) and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; a zombie does not, however long its parent takes to notice."""
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)  # we may be the parent
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
