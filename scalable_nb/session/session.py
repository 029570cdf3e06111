"""The public session: a thin facade over its spec and, once connected, a live session."""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from scalable_nb.errors import (
    NoSessionError,
    ProtocolVersionError,
    RunFolderError,
    SessionError,
    StartError,
)
from scalable_nb.manifest.load import LoadedManifest
from scalable_nb.manifest.start_plan import Plan
from scalable_nb.paths import RunPaths, create_run, find_run, list_runs
from scalable_nb.protocol.connection_file import is_alive, read_connection_info
from scalable_nb.protocol.version import ProtocolVersion
from scalable_nb.session.host_job import HostJob
from scalable_nb.session.host_launcher import (
    HostHandle,
    await_connection_info,
    launch_host,
)
from scalable_nb.session.host_lifetime import find_lifetime_limit
from scalable_nb.session.session_spec import SessionSpec
from scalable_nb.session.stale_runs import remove_stale_runs
from scalable_nb.session.status import SessionStatus
from scalable_nb.settings import Settings, load_settings
from scalable_nb.telemetry.rows import FailureRow

# What needs Dask is imported while the host starts (`_load_dask`): it takes as long as that.
if TYPE_CHECKING:
    from scalable_nb.client.client import ScalableClient
    from scalable_nb.client.futures import FutureList
    from scalable_nb.session.batches import BatchControl, Batches
    from scalable_nb.session.live_session import LiveSession
    from scalable_nb.session.worker_control import WorkerControl
    from scalable_nb.telemetry.journal_replay import AttemptRow
    from scalable_nb.telemetry.ledger_mirror import Mirror

logger = logging.getLogger(__name__)

_live: list[ScalableSession] = []


class ScalableSession:
    """A target, before, while and after it runs.

    Made by `from_yaml` or `attach`; a context manager that closes it at the end.

    Examples
    --------
    >>> session = ScalableSession.from_yaml("./scalable.yaml", target="local")
    >>> client = session.start()
    >>> client.submit(sum, [1, 2, 3]).result()
    6
    >>> session.close()
    """

    def __init__(self, spec: SessionSpec) -> None:
        self.paths: RunPaths | None = None
        self._spec = spec
        self._live_session: LiveSession | None = None
        #: What will end the session sooner than somebody means; empty where nothing is known.
        self.ends_with = ""

    @classmethod
    def from_yaml(cls, path: str | Path | None = None, *, target: str | None = None) -> Self:
        """A session from a manifest, not started yet.

        Parameters
        ----------
        path : path, optional
            ``SCALABLE_MANIFEST``, else ``./scalable.yaml``, else an embedded default.
        target : str, optional
            ``SCALABLE_TARGET``, else the manifest's only one or ``"local"``.

        Raises
        ------
        ManifestError
            Lists everything that is wrong with the manifest.
        UnknownNameError
            When there is no such target.
        """
        return cls(SessionSpec.from_yaml(path, target=target))

    @classmethod
    def attach(cls, run: str | None = None, *, trust: bool = False) -> Self:
        """Join the live host of a run, from another kernel than the one that started it.

        Parameters
        ----------
        run : str, optional
            The run's id; the newest live run where it is not given.
        trust : bool
            Sign the records of the run with your key first; it runs its code with your rights.

        Raises
        ------
        NoSessionError
            When no host is alive.
        RunFolderError
            When the records of the run are not signed with your key.
        ProtocolVersionError
            When the host has another version of scalable_nb; where ``run`` is not given, when
            all live ones have.
        """
        runs_dir = load_settings().runs_dir
        remove_stale_runs(runs_dir)
        if trust:
            _trust(runs_dir, run)
        newest_error: ProtocolVersionError | RunFolderError | None = None
        for paths in [find_run(runs_dir, run)] if run else list_runs(runs_dir)[::-1]:
            try:
                info = read_connection_info(paths)
                if info is None or not is_alive(info):
                    continue
                # First: another version may write anything else in another way.
                ProtocolVersion.from_wire(info).require_compatible(paths.run_id)
            except (ProtocolVersionError, RunFolderError) as error:
                newest_error = newest_error or error
                continue
            session = cls(SessionSpec.of_run(paths, info["target"]))
            _load_dask()
            session._join(paths, info, HostJob.of(paths))
            return session
        if newest_error is not None:
            raise newest_error
        which = f"run {run!r}" if run else f"any run in {runs_dir}"
        raise NoSessionError(
            f"no host of {which} is alive; `%scalable start` begins a new one, and `%scalable "
            f"resubmit {'--run ' + run if run else '--last'}` goes on from what a run left behind"
        )

    # --- start and end -----------------------------------------------------------

    @property
    def manifest(self) -> LoadedManifest:
        """The manifest, and where it came from."""
        return self._spec.loaded

    @property
    def target_name(self) -> str:
        """The target's name in the manifest."""
        return self._spec.target_name

    @property
    def settings(self) -> Settings:
        """The settings, with what the manifest says."""
        return self._spec.settings

    @property
    def run_id(self) -> str:
        """Id of the run; empty before the start."""
        return self.paths.run_id if self.paths else ""

    @property
    def is_live(self) -> bool:
        """Whether it was started and not closed."""
        return self._live_session is not None and self._live_session.is_open

    def plan(self) -> Plan:
        """What a start would ask for; touches nothing."""
        return self._spec.plan()

    def start(self, plan: Plan | None = None) -> ScalableClient:
        """Start the target and connect to it.

        Parameters
        ----------
        plan : Plan, optional
            As given by `plan`; made here where it is not given.

        Raises
        ------
        StartError
            When the host does not come up; carries its log lines. Nothing stays behind.
        RunFolderError
            When the run folder cannot be made.
        """
        if self.is_live:
            return self.client
        is_auto = self._spec.target.host == "auto"
        self.ends_with = (find_lifetime_limit() or "") if is_auto else ""
        settings = self.settings
        remove_stale_runs(settings.runs_dir)
        self.paths = create_run(settings.runs_dir, self.manifest.manifest.project.name)
        with launch_host(self._spec, self.paths, plan) as host:
            _load_dask()  # meanwhile the host starts
            info = await_connection_info(self.paths, host, settings.start_timeout_s)
            try:
                self._join(self.paths, info, host)
            except OSError as error:
                raise StartError(
                    f"the host of run {self.run_id} is up on {info['host']}, and cannot be "
                    f"reached from here: {error}. `interface:` of the target names the network "
                    f"that host, workers and this machine share; a firewall may be between them."
                ) from error
        return self.client

    def close(self) -> None:
        """End the host and its workers; closing twice is harmless."""
        if not self.is_live:
            return
        if self in _live:
            _live.remove(self)
        self._connected.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def connect(self, **options: Any) -> ScalableClient:
        """Give a further client of this session, beside the one that `start` returns.

        It has futures of its own; the session goes on when it is closed.

        Parameters
        ----------
        **options
            As for `distributed.Client`. With ``asynchronous=True`` it is a client for
            coroutines, to be entered with ``async with``. It does not become Dask's default
            client unless ``set_as_default=True`` says so.

        Raises
        ------
        NoSessionError, HostDiedError
            When there is nothing to connect to.

        Examples
        --------
        >>> async with session.connect(asynchronous=True) as client:
        ...     await client.submit(sum, [1, 2, 3])
        6
        """
        return self._connected.connect(**options)

    def _join(self, paths: RunPaths, info: dict[str, Any], host: HostHandle | None) -> None:
        from scalable_nb.session.live_session import open_connection

        self.paths = paths
        self._live_session = open_connection(self._spec, paths, info, host, handle=self)
        _live.append(self)
        if self.manifest.discovered:
            logger.warning("chosen without a manifest: %s", self.manifest.discovered)

    @property
    def _connected(self) -> LiveSession:
        if self._live_session is None:
            raise NoSessionError("the session was not started; `session.start()` starts it")
        return self._live_session

    @property
    def _batch_control(self) -> BatchControl:
        return self._connected.batch_control

    @property
    def _worker_control(self) -> WorkerControl:
        return self._connected.worker_control

    @property
    def client(self) -> ScalableClient:
        """What tasks are submitted with."""
        return self._connected.client

    @property
    def mirror(self) -> Mirror:
        """The ledger, as far as this kernel has heard."""
        return self._connected.mirror

    # --- what goes on --------------------------------------------------------------

    @property
    def worker_threads(self) -> int:
        """Slots of one worker."""
        return self._spec.worker_threads

    @property
    def dashboard_link(self) -> str:
        """Dask's dashboard for a browser, under a prefix that only this user can read."""
        return self._live_session.dashboard_link if self._live_session else ""

    def status(self) -> SessionStatus:
        """Workers and tasks as the host sees them now."""
        return self._connected.status()

    def failures(self) -> list[FailureRow]:
        """All failed attempts of the run so far, oldest first."""
        return self._connected.failures()

    def attempts(self, task_id: str) -> list[AttemptRow]:
        """All attempts of a task so far, oldest first, the one that is running included.

        Parameters
        ----------
        task_id : str
            The task's key as text, as in the journal.
        """
        return self._connected.attempts(task_id)

    def journals(self) -> tuple[list[Any], list[Any]]:
        """Failed attempts and ended tasks, brought up to date by a host that is alive."""
        return self._connected.journals()

    def tasks(self) -> FutureList:
        """All tasks of the run that this kernel still holds, in the order of their submission."""
        return self._connected.tasks()

    @property
    def batches(self) -> Batches:
        """The batches of the run by name, also those of a kernel that is gone.

        ``session.batches["sweep"]`` is what ``client.map(..., name="sweep")`` gave, in order.
        """
        return self._connected.batches

    def unfinished(self) -> dict[str, Counter[str]]:
        """The batches with tasks that are not done, and how many are in which state.

        Tasks of single ``submit`` calls belong to the batch ``""``.
        """
        return self._batch_control.unfinished()

    def resume(self, *batches: str) -> int:
        """Let paused batches go on although their tasks failed alike; all where none is named.

        Returns
        -------
        int
            How many tasks were paused.

        Raises
        ------
        UnknownNameError
            When no batch of this name has tasks that are not done.
        """
        return self._batch_control.resume(batches)

    def cancel(self, *batches: str, only_paused: bool = False) -> int:
        """Cancel what is not done of some batches, of all where none is named.

        Results that are there stay there; ``client.cancel(futures)`` would drop them too.

        Parameters
        ----------
        *batches : str
        only_paused : bool
            Leave tasks alone that run or will run.

        Returns
        -------
        int
            How many tasks were cancelled.

        Raises
        ------
        UnknownNameError
            When no batch of this name has tasks that are not done.
        """
        return self._batch_control.cancel(batches, only_paused=only_paused)

    # --- workers -------------------------------------------------------------------

    def scale(self, n: int, component: str | None = None) -> dict[str, int]:
        """Ask for so many workers; those that are too many finish what they execute first.

        Parameters
        ----------
        n : int
            Workers; 0 or more.
        component : str, optional
            Of this component; else of all together, shared evenly. On a local target all
            components share the workers.

        Returns
        -------
        dict of str to int
            Workers wanted, by component (``""``: shared by all).

        Raises
        ------
        UnknownNameError, ScalingError
        """
        return self._worker_control.scale(n, component)

    def adapt(
        self, minimum: int = 0, maximum: int | None = None, component: str | None = None
    ) -> dict[str, int]:
        """Let the number of workers follow the tasks that could run.

        A worker that executes a task, or has the only copy of a result, is never ended.

        Parameters
        ----------
        minimum, maximum : int
            Workers of each component. ``maximum`` None: the target's ``max_workers``.
        component : str, optional
            Of this component; else of each.

        Returns
        -------
        dict of str to int
            Workers wanted now, by component (``""``: shared by all).

        Raises
        ------
        UnknownNameError, ScalingError
        """
        return self._worker_control.adapt(minimum, maximum, component)

    def name_batch(self, name: str | None, default: str) -> str:
        """A name for a batch that no other batch of this session has."""
        return self._batch_control.name_batch(name, default)

    # --- the host's health ---------------------------------------------------------

    def is_host_alive(self) -> bool:
        """Whether the host is there for us: not dead, nor about to end."""
        return self._live_session is not None and self._live_session.is_host_alive()

    def check_alive(self, *, seen_within_s: float = 0.0) -> None:
        """Raise where the session cannot take work.

        Parameters
        ----------
        seen_within_s : float
            How long ago the host may have been looked at; to look takes as long as a submission.

        Raises
        ------
        NoSessionError
            When it was closed or never started.
        HostDiedError
            When its host is gone.
        """
        self._connected.check_alive(seen_within_s=seen_within_s)

    def __repr__(self) -> str:
        state = "running" if self.is_live else ("closed" if self._live_session else "not started")
        return f"<ScalableSession {self.run_id or self.target_name}: {state}>"


def _trust(runs_dir: Path, run: str | None) -> None:
    if run is None:
        raise SessionError("trust=True needs a run: attach('run-…', trust=True)")
    from scalable_nb.session.run_trust import trust_host

    trust_host(find_run(runs_dir, run))


def _load_dask() -> None:
    from scalable_nb.dask_adapter import compatibility

    compatibility.check()  # first: the client's modules import what may be missing
    importlib.import_module("scalable_nb.session.live_session")


def live_sessions() -> list[ScalableSession]:
    """The sessions of this kernel that are live, oldest first."""
    return list(_live)


def current_session() -> ScalableSession:
    """The session that was started last and is live.

    Raises
    ------
    NoSessionError
        When there is none.
    """
    if not _live:
        raise NoSessionError("no session is live; `%scalable start` starts one")
    return _live[-1]
