"""What a kernel holds of a host that is up: its client, its picture of the ledger, the records."""

from __future__ import annotations

import logging
import math
import os
import signal
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scalable_nb.paths import RunPaths
from scalable_nb.protocol.connection_file import (
    HostState,
    is_alive,
    is_here,
    read_connection_info,
    read_state,
)
from scalable_nb.protocol.version import ProtocolVersion
from scalable_nb.session.host_job import HostJob
from scalable_nb.session.host_launcher import HostHandle, SpawnedHost, last_lines
from scalable_nb.telemetry.aggregates import core_hours
from scalable_nb.telemetry.journal_reader import JournalRows, with_given_up

# What needs Dask is imported while the host starts: it takes as long as that.
if TYPE_CHECKING:
    from scalable_nb.client.call_log_writer import CallLogWriter
    from scalable_nb.client.client import ScalableClient
    from scalable_nb.session.session import ScalableSession
    from scalable_nb.telemetry.journal_replay import AttemptRow
    from scalable_nb.telemetry.ledger_mirror import Mirror

_POLL_S: Final = 0.02
_STOP_TIMEOUT_S: Final = 20.0
_KILL_TIMEOUT_S: Final = 5.0
_CLIENT_TIMEOUT_S: Final = 2.0
_RELEASED_PER_S: Final = 5000  # on a busy machine

logger = logging.getLogger(__name__)


class Connection:
    """A session's connection to its host, also when that is gone.

    Parameters
    ----------
    session : ScalableSession
    paths : RunPaths
    connection_info : dict
        How the host is reached; see `scalable_nb.protocol.connection_file`.
    host : HostHandle or None
        The host, where this kernel started it or it is a batch job.

    Attributes
    ----------
    client : ScalableClient
    mirror : Mirror
    call_log : CallLogWriter
        Since `open`.
    """

    client: ScalableClient
    mirror: Mirror
    call_log: CallLogWriter

    def __init__(
        self,
        session: ScalableSession,
        paths: RunPaths,
        connection_info: dict[str, Any],
        host: HostHandle | None,
    ) -> None:
        self._session = session
        self.paths = paths
        self.connection_info = connection_info
        self._host = host
        self._failures = JournalRows(paths.failures)
        self._endings = JournalRows(paths.tasks)
        self._workers = JournalRows(paths.workers)
        self._seen_alive_at = -math.inf

    def open(self) -> None:
        """Connect.

        Raises
        ------
        ProtocolVersionError
            If the host has another version of scalable_nb.
        OSError
            When the host cannot be reached.
        """
        ProtocolVersion.from_wire(self.connection_info).require_compatible(self.paths.run_id)
        from scalable_nb.client.call_log_writer import CallLogWriter
        from scalable_nb.client.host_api import LedgerFeed
        from scalable_nb.protocol.operations import NOTICE_TOPIC
        from scalable_nb.telemetry.ledger_mirror import Mirror

        limit_bytes = self._session.manifest.manifest.defaults.record_limit_bytes
        name = f"client-{uuid.uuid4().hex}"
        self.call_log = CallLogWriter(self.paths.calls, name, limit_bytes)
        self.client = client = self.new_client(set_as_default=True)
        self.mirror = Mirror(LedgerFeed(client, client.host_api, client.cached_futures), "")
        self.client.subscribe_topic(NOTICE_TOPIC, _show_notice)

    def new_client(self, **options: Any) -> ScalableClient:
        """Give a further client; options as for `distributed.Client`."""
        from scalable_nb.client.client import ScalableClient
        from scalable_nb.client.context import ClientContext
        from scalable_nb.dask_adapter.access import load_security

        return ScalableClient(
            self.connection_info["address"],
            context=ClientContext(self._session.manifest, self.paths.results),
            call_log=self.call_log,
            host_health=self,
            session=self._session,
            on_host_lost=lambda: self.mirror.end("lost"),
            security=load_security(Path(self.connection_info["tls"])),
            **options,
        )

    # --- the host's health ---------------------------------------------------------

    def is_host_alive(self, *, seen_within_s: float = 0.0) -> bool:
        """Whether the host is there for us, or was so short a time ago: not dead, nor ending."""
        if time.monotonic() - self._seen_alive_at >= seen_within_s:
            connection_info = read_connection_info(self.paths)
            # The first thing a host does at its end is to say so in its file.
            is_there = connection_info is not None and is_alive(connection_info)
            self._seen_alive_at = time.monotonic() if is_there else -math.inf
            return is_there
        return True

    def death_message(self) -> str:
        """What to say of a host that died."""
        return (
            f"the host of session {self.paths.run_id} ({self._where()}) is gone. "
            f"Kept results and the records are in {self.paths.folder}; after `%scalable stop`, "
            f"`%scalable resubmit --last` goes on, and `%scalable start` begins a new session.\n"
            f"The host's last words:\n"
            f"{last_lines(self.paths.host_log)}"
        )

    def _where(self) -> str:
        job = f"job {self._host.job_id}, " if isinstance(self._host, HostJob) else ""
        node = "" if is_here(self.connection_info) else f" on {self.connection_info.get('host')}"
        return f"{job}pid {self.connection_info.get('pid')}{node}"

    # --- its records ---------------------------------------------------------------

    def journals(self, *, is_open: bool) -> tuple[list[Any], list[Any]]:
        """Failed attempts and ended tasks; where it ``is_open``, brought up to date by the host."""
        if is_open and self.is_host_alive():
            self.client.host_api.flush()
        endings = self._endings.read()
        return with_given_up(self._failures.read(), endings), endings

    def attempts(self, task_id: str, *, is_open: bool) -> list[AttemptRow]:
        """All attempts of a task, oldest first, the one that is running included."""
        from scalable_nb.telemetry.journal_replay import join_attempts, running_attempt

        failures, endings = self.journals(is_open=is_open)
        ended = join_attempts(
            [row for row in failures if row.get("task_id") == task_id],
            [row for row in endings if row.get("task_id") == task_id],
        )
        if is_open and self.is_host_alive():
            self.mirror.refresh()
        with self.mirror.lock:
            running = running_attempt(self.mirror.ledger, task_id)
        return ended if running is None else [*ended, running]

    def core_hours(self) -> float:
        """Threads of all workers times the hours that they were there, until now."""
        return core_hours(self._workers.read(), time.time())

    # --- the end -------------------------------------------------------------------

    def close(self) -> None:
        """End the host and its workers, and wait until they are gone."""
        self._ask_to_stop()
        self.mirror.end("closed")
        # It lets go of its futures one by one. Where it takes too long, it goes on without us.
        timeout_s = _CLIENT_TIMEOUT_S + len(self.client.futures) / _RELEASED_PER_S
        with suppress(TimeoutError):
            self.client.close(timeout=timeout_s)
        self.call_log.close()
        if not self._is_gone_within(_STOP_TIMEOUT_S):
            self._end_host(signal.SIGKILL)
            self._is_gone_within(_KILL_TIMEOUT_S)

    def _ask_to_stop(self) -> None:
        if self.client.status == "running":
            try:
                self.mirror.refresh()  # so that the views end with what is true
                self.client.host_api.stop()
            except OSError:
                logger.debug("the host went before it could be asked to", exc_info=True)
            else:
                return
        if read_state(self.paths.session_json).get("state") != HostState.ENDING:
            self._end_host(signal.SIGTERM)

    def _end_host(self, number: signal.Signals) -> None:
        """End a host that does not hear."""
        if isinstance(self._host, HostJob):
            self._host.end()
        elif is_here(self.connection_info) and is_alive(self.connection_info):
            os.kill(self.connection_info["pid"], number)

    def _is_gone_within(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self._is_host_there():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S if self._host is None else self._host.poll_s)
        return True

    def _is_host_there(self) -> bool:
        """Whether the host is alive, or still about to end."""
        if isinstance(self._host, SpawnedHost):
            return not self._host.has_ended()
        if self._host is not None and self._host.has_ended():
            return False
        # The process goes a moment after the file; only this machine can see it.
        info = (
            self.connection_info
            if is_here(self.connection_info)
            else read_state(self.paths.session_json)
        )
        return is_alive(info)


def _show_notice(event: tuple[float, str]) -> None:
    # Runs in the client's IO thread, also while a cell is busy. Where nobody configured
    # logging, Python shows warnings on stderr, which a notebook shows under the cell.
    logger.warning(event[1])
