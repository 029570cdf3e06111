"""A session that is connected to its host: client, ledger, journals and their end.

Importing this module imports Dask, so the public session does it while the host starts.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from distributed import Future

from scalable_nb.client.call_log_writer import CallLogWriter
from scalable_nb.client.client import ScalableClient
from scalable_nb.client.context import ClientContext, SessionHandle
from scalable_nb.client.futures import FutureList
from scalable_nb.client.host_api import LedgerFeed
from scalable_nb.dask_adapter.access import load_security
from scalable_nb.errors import HostDiedError, NoSessionError
from scalable_nb.paths import RunPaths
from scalable_nb.protocol.connection_file import is_here
from scalable_nb.protocol.operations import NOTICE_TOPIC
from scalable_nb.protocol.version import ProtocolVersion
from scalable_nb.session.batches import BatchControl, Batches
from scalable_nb.session.host_launcher import HostHandle
from scalable_nb.session.host_monitor import HostMonitor
from scalable_nb.session.session_spec import SessionSpec
from scalable_nb.session.status import SessionStatus, browser_link
from scalable_nb.session.worker_control import WorkerControl
from scalable_nb.telemetry.journal_reader import JournalRows, with_given_up
from scalable_nb.telemetry.journal_replay import AttemptRow, join_attempts, running_attempt
from scalable_nb.telemetry.ledger_mirror import Mirror
from scalable_nb.telemetry.rows import FailureRow
from scalable_nb.telemetry.sanitize import plain_text

_STOP_TIMEOUT_S: Final = 20.0
_KILL_TIMEOUT_S: Final = 5.0
_CLIENT_TIMEOUT_S: Final = 2.0
_RELEASED_PER_S: Final = 5000  # on a busy machine

logger = logging.getLogger(__name__)


class LiveSession:
    """A session from its connection on, also when it is closed or its host has died.

    Made by `open_connection`.

    Parameters
    ----------
    spec : SessionSpec
    paths : RunPaths
    connection_info : dict
        See `scalable_nb.protocol.connection_file`.
    client : ScalableClient
        The client that tasks are submitted with.
    new_client : callable
        Makes further clients; takes the options of `distributed.Client`.
    mirror : Mirror
    call_log : CallLogWriter
    monitor : HostMonitor

    Attributes
    ----------
    is_open : bool
        Whether it was not closed.
    batch_control : BatchControl
    worker_control : WorkerControl
    """

    def __init__(
        self,
        spec: SessionSpec,
        paths: RunPaths,
        connection_info: dict[str, Any],
        *,
        client: ScalableClient,
        new_client: Callable[..., ScalableClient],
        mirror: Mirror,
        call_log: CallLogWriter,
        monitor: HostMonitor,
    ) -> None:
        self.client = client
        self.mirror = mirror
        self.is_open = True
        self._batches = Batches(paths, client, call_log.name)
        self.batch_control = BatchControl(client.host_api, mirror, self.check_alive, self._batches)
        self.worker_control = WorkerControl(client.host_api, spec, self.check_alive)
        self._spec = spec
        self._paths = paths
        self._connection_info = connection_info
        self._host_api = client.host_api
        self._new_client = new_client
        self._call_log = call_log
        self._monitor = monitor
        self._failures = JournalRows(paths.failures)
        self._endings = JournalRows(paths.tasks)
        self._workers = JournalRows(paths.workers)

    def connect(self, **options: Any) -> ScalableClient:
        """Return a further client; see `ScalableSession.connect`."""
        self.check_alive()
        return self._new_client(**{"set_as_default": False, **options})

    # --- the host's health ---------------------------------------------------------------

    def is_host_alive(self) -> bool:
        """Return whether the host takes work."""
        return self._monitor.is_host_alive()

    def check_alive(self, *, seen_within_s: float = 0.0) -> None:
        """Raise unless the session takes work; see `ScalableSession.check_alive`."""
        if not self.is_open:
            raise NoSessionError(f"the session {self._paths.run_id} was closed; start a new one")
        if self.client.status == "closed":
            raise HostDiedError(self._monitor.death_message())
        self._monitor.check_alive(seen_within_s=seen_within_s)

    # --- what it does --------------------------------------------------------------------

    @property
    def dashboard_link(self) -> str:
        """The address of Dask's dashboard for a browser."""
        link = str(self._connection_info.get("dashboard", ""))
        return browser_link(link) if is_here(self._connection_info) else link

    def status(self) -> SessionStatus:
        """Return workers and tasks as the host sees them now."""
        from scalable_nb.telemetry.aggregates import core_hours  # a start needs no tables

        self.check_alive()
        reply = self._host_api.status()
        return SessionStatus(
            run_id=self._paths.run_id,
            target=self._spec.target_name,
            state="running",
            host_pid=self._connection_info["pid"],
            workers=[worker.to_wire() for worker in reply.workers],
            counts=reply.counts,
            dashboard_link=self.dashboard_link,
            folder=self._paths.folder,
            started_at=self._connection_info["started_at"],
            notices=list(reply.notices),
            pauses=list(reply.pauses),
            jobs=list(reply.jobs),
            core_hours=core_hours(self._workers.read(), time.time()),
            host=self._connection_info["host"],
            host_job=reply.host_job,
        )

    @property
    def batches(self) -> Batches:
        """The batches of the run by name."""
        self.check_alive()
        return self._batches

    def tasks(self) -> FutureList:
        """Return all tasks that this kernel holds, in the order of their submission."""
        self.check_alive()
        self.mirror.refresh()
        held = self.client.held_keys()
        with self.mirror.lock:
            keys = [held[text] for text in self.mirror.ledger.keys if text in held]
        return FutureList(Future(key, self.client) for key in keys)

    # --- its records ---------------------------------------------------------------------

    def journals(self) -> tuple[list[Any], list[Any]]:
        """Return failed attempts and ended tasks, brought up to date by a live host."""
        if self.is_open and self.is_host_alive():
            self._host_api.flush()
        endings = self._endings.read()
        return with_given_up(self._failures.read(), endings), endings

    def failures(self) -> list[FailureRow]:
        """Return all failed attempts of the run so far, oldest first."""
        return self.journals()[0]

    def attempts(self, task_id: str) -> list[AttemptRow]:
        """Return all attempts of a task, oldest first, including the running one."""
        failures, endings = self.journals()
        ended = join_attempts(
            [row for row in failures if row.get("task_id") == task_id],
            [row for row in endings if row.get("task_id") == task_id],
        )
        if self.is_open and self.is_host_alive():
            self.mirror.refresh()
        with self.mirror.lock:
            running = running_attempt(self.mirror.ledger, task_id)
        return ended if running is None else [*ended, running]

    # --- the end -------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the host and its workers, and wait until they are gone."""
        self.is_open = False
        self._stop_host()
        self.mirror.end("closed")
        # The client releases its futures one by one; it is abandoned if that takes too long.
        timeout_s = _CLIENT_TIMEOUT_S + len(self.client.futures) / _RELEASED_PER_S
        with suppress(TimeoutError):
            self.client.close(timeout=timeout_s)
        self._call_log.close()
        if not self._monitor.wait_until_gone(_STOP_TIMEOUT_S):
            self._monitor.kill(signal.SIGKILL)
            self._monitor.wait_until_gone(_KILL_TIMEOUT_S)
        self._monitor.remove_keys()

    def _stop_host(self) -> None:
        if self.client.status == "running":
            try:
                self.mirror.refresh()  # so that the views end with what is true
                self._host_api.stop()
            except OSError:
                logger.debug("the host ended before it could be stopped", exc_info=True)
            else:
                return
        if not self._monitor.is_ending():
            self._monitor.kill(signal.SIGTERM)


def open_connection(
    spec: SessionSpec,
    paths: RunPaths,
    connection_info: dict[str, Any],
    host: HostHandle | None,
    handle: SessionHandle,
) -> LiveSession:
    """Connect to the host of a run.

    Parameters
    ----------
    spec : SessionSpec
    paths : RunPaths
    connection_info : dict
        See `scalable_nb.protocol.connection_file`.
    host : HostHandle or None
        The host, if this kernel started it or it is a batch job.
    handle : SessionHandle
        The session that clients belong to.

    Raises
    ------
    ProtocolVersionError
        If the host has another version of scalable_nb.
    OSError
        If the host cannot be reached.
    """
    ProtocolVersion.from_wire(connection_info).require_compatible(paths.run_id)
    is_lost = threading.Event()
    mirror: Mirror | None = None

    def on_host_lost() -> None:
        is_lost.set()
        monitor.remove_keys()
        if mirror is not None:
            mirror.end("lost")

    monitor = HostMonitor(paths, connection_info, host)
    limit_bytes = spec.loaded.manifest.defaults.record_limit_bytes
    call_log = CallLogWriter(paths.calls, f"client-{uuid.uuid4().hex}", limit_bytes)

    def new_client(**options: Any) -> ScalableClient:
        return ScalableClient(
            connection_info["address"],
            context=ClientContext(spec.loaded, paths.results),
            call_log=call_log,
            host_health=monitor,
            session=handle,
            on_host_lost=on_host_lost,
            security=load_security(paths.tls, connection_info["certificate"]),
            **options,
        )

    client = new_client(set_as_default=True)
    try:
        mirror = Mirror(LedgerFeed(client, client.host_api, client.cached_futures), "")
        if is_lost.is_set():  # before there was a mirror
            mirror.end("lost")
        client.subscribe_topic(NOTICE_TOPIC, _show_notice)
        return LiveSession(
            spec,
            paths,
            connection_info,
            client=client,
            new_client=new_client,
            mirror=mirror,
            call_log=call_log,
            monitor=monitor,
        )
    except BaseException:
        with suppress(OSError):
            client.close(timeout=_CLIENT_TIMEOUT_S)
        call_log.close()
        raise


def _show_notice(event: tuple[float, str]) -> None:
    # Runs in the client's IO thread, also while a cell is busy. Unless logging is configured,
    # Python prints warnings to stderr, which a notebook shows below the cell.
    logger.warning("%s", plain_text(event[1]))
