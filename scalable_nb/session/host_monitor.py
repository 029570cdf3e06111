"""Whether a session's host is alive, what to say when it died, and how to kill it."""

from __future__ import annotations

import math
import os
import time
from typing import Any, Final

from scalable_nb.errors import HostDiedError
from scalable_nb.paths import RunPaths
from scalable_nb.protocol.connection_file import (
    HostState,
    is_alive,
    is_here,
    read_connection_info,
    read_state,
)
from scalable_nb.session.host_job import HostJob, last_lines
from scalable_nb.session.host_launcher import HostHandle, SpawnedHost
from scalable_nb.session.stale_runs import remove_keys

_POLL_S: Final = 0.02


class HostMonitor:
    """Watches the host of a session.

    Parameters
    ----------
    paths : RunPaths
    connection_info : dict
        See `scalable_nb.protocol.connection_file`.
    host : HostHandle or None
        The host, if this kernel started it or it is a batch job.
    """

    def __init__(
        self, paths: RunPaths, connection_info: dict[str, Any], host: HostHandle | None
    ) -> None:
        self._paths = paths
        self._connection_info = connection_info
        self._host = host
        self._seen_alive_at = -math.inf

    def is_host_alive(self, *, seen_within_s: float = 0.0) -> bool:
        """Return whether the host takes work, or did so this short time ago."""
        if time.monotonic() - self._seen_alive_at >= seen_within_s:
            info = read_connection_info(self._paths)
            # A host that ends writes that into its file first.
            is_open = info is not None and is_alive(info)
            self._seen_alive_at = time.monotonic() if is_open else -math.inf
            return is_open
        return True

    def check_alive(self, *, seen_within_s: float = 0.0) -> None:
        """Raise unless the host takes work.

        Raises
        ------
        HostDiedError
            If it died, or ends.
        """
        if not self.is_host_alive(seen_within_s=seen_within_s):
            self.remove_keys()
            raise HostDiedError(self.death_message())

    def death_message(self) -> str:
        """Return the text of the error for a host that died."""
        return (
            f"the host of session {self._paths.run_id} ({self._where()}) is gone. "
            f"Kept results and the records are in {self._paths.folder}; after `%scalable stop`, "
            f"`%scalable resubmit --last` goes on, and `%scalable start` begins a new session.\n"
            f"The host's last words:\n"
            f"{last_lines(self._paths.host_log)}"
        )

    def remove_keys(self) -> None:
        """Remove certificate and key if the host was on this machine and no longer exists."""
        if is_here(self._connection_info) and not is_alive(self._connection_info):
            remove_keys(self._paths)

    def is_ending(self) -> bool:
        """Return whether the host writes that it ends."""
        return read_state(self._paths.session_json).get("state") == HostState.ENDING

    def kill(self, number: int) -> None:
        """Cancel the host's job, or send its process a signal if it is on this machine."""
        if isinstance(self._host, HostJob):
            self._host.end()
        elif is_here(self._connection_info) and is_alive(self._connection_info):
            os.kill(self._connection_info["pid"], number)

    def wait_until_gone(self, timeout_s: float) -> bool:
        """Wait for the end of the host; return whether it came in time."""
        deadline = time.monotonic() + timeout_s
        while self._exists():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S if self._host is None else self._host.poll_s)
        return True

    def _exists(self) -> bool:
        """Return whether the host is alive, or about to end."""
        if isinstance(self._host, SpawnedHost):
            return not self._host.has_ended()
        if self._host is not None and self._host.has_ended():
            return False
        # The process ends a moment after its file is gone; only this machine can see it.
        info = self._connection_info
        return is_alive(info if is_here(info) else read_state(self._paths.session_json))

    def _where(self) -> str:
        info = self._connection_info
        job = f"job {self._host.job_id}, " if isinstance(self._host, HostJob) else ""
        node = "" if is_here(info) else f" on {info.get('host')}"
        return f"{job}pid {info.get('pid')}{node}"
