"""A session: a target that was started, and the kernel's connection to its host."""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from scalable_nb.errors import (
    HostDiedError,
    NoSessionError,
    ScalingError,
    StartError,
    UnknownNameError,
)
from scalable_nb.manifest.load import LoadedManifest, load_manifest, load_resolved
from scalable_nb.manifest.planner import make_plan
from scalable_nb.manifest.start_plan import Plan
from scalable_nb.paths import RunPaths, create_run, find_run, list_runs
from scalable_nb.protocol.connection_file import (
    HostState,
    is_alive,
    is_here,
    read_connection_info,
    read_state,
)
from scalable_nb.session.connection import Connection
from scalable_nb.session.host_job import HostJob, submit_host
from scalable_nb.session.host_launcher import (
    HostHandle,
    SpawnedHost,
    await_connection_info,
    prepare_run,
    write_plan,
)
from scalable_nb.session.host_lifetime import find_lifetime_limit
from scalable_nb.session.stale_runs import remove_stale_runs
from scalable_nb.session.status import SessionStatus, browser_link
from scalable_nb.settings import Settings, load_settings
from scalable_nb.telemetry.rows import FailureRow

# What needs Dask is imported while the host starts (`_load_dask`): it takes as long as that.
if TYPE_CHECKING:
    from scalable_nb.client.call_log_writer import CallLogWriter
    from scalable_nb.client.client import ScalableClient
    from scalable_nb.client.futures import FutureList
    from scalable_nb.session.batches import Batches
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

    def __init__(self, loaded: LoadedManifest) -> None:
        self.manifest = loaded
        self.paths: RunPaths | None = None
        self._connection: Connection | None = None
        self._batch_names: set[str] = set()
        self._is_open = False
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
        return cls(load_manifest(None if path is None else Path(path), target=target))

    @classmethod
    def attach(cls, run: str | None = None) -> Self:
        """Join the live host of a run, from another kernel than the one that started it.

        Parameters
        ----------
        run : str, optional
            The run's id; the newest live run where it is not given.

        Raises
        ------
        NoSessionError
            When no host is alive.
        """
        runs_dir = load_settings().runs_dir
        remove_stale_runs(runs_dir)
        runs = [find_run(runs_dir, run)] if run else list_runs(runs_dir)[::-1]
        for paths in runs:
            connection_info = read_connection_info(paths)
            if connection_info is not None and is_alive(connection_info):
                target = connection_info["target"]
                session = cls(load_resolved(paths.manifest_yaml, target=target))
                session.paths = paths
                _load_dask()
                session._connect(connection_info, HostJob.of(paths))
                session._batch_names.update(session.batches)
                return session
        which = f"run {run!r}" if run else f"any run in {runs_dir}"
        raise NoSessionError(
            f"no host of {which} is alive; `%scalable start` begins a new one, and `%scalable "
            f"resubmit {'--run ' + run if run else '--last'}` goes on from what a run left behind"
        )

    # --- start and end -----------------------------------------------------------

    @property
    def target_name(self) -> str:
        """The target's name in the manifest."""
        return self.manifest.target_name

    @property
    def settings(self) -> Settings:
        """The settings, with what the manifest says."""
        return load_settings(
            local_cache=self.manifest.manifest.project.local_cache,
            linger_s=self.manifest.target.linger_s,
        )

    @property
    def run_id(self) -> str:
        """Id of the run; empty before the start."""
        return self.paths.run_id if self.paths else ""

    @property
    def is_live(self) -> bool:
        """Whether it was started and not closed."""
        return self._is_open

    def plan(self) -> Plan:
        """What a start would ask for; touches nothing."""
        return make_plan(self.manifest)

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
        if self._is_open:
            return self.client
        where = self.manifest.target.host
        self.ends_with = (find_lifetime_limit() or "") if where == "auto" else ""
        settings = self.settings
        remove_stale_runs(settings.runs_dir)
        project = self.manifest.manifest.project.name
        self.paths = create_run(settings.runs_dir, project)
        prepare_run(self.paths, self.manifest, settings.linger_s)
        host = None
        try:
            host = self._begin_host(self.paths)
            write_plan(self.paths, plan or self.plan())
            _load_dask()
            connection_info = await_connection_info(self.paths, host, settings.start_timeout_s)
            self._reach(connection_info, host)
        except BaseException:
            if host is not None:
                host.end()
            if read_state(self.paths.session_json).get("state") == HostState.ASKED_FOR:
                self.paths.session_json.unlink(missing_ok=True)
            raise
        return self.client

    def _reach(self, connection_info: dict[str, Any], host: HostHandle) -> None:
        try:
            self._connect(connection_info, host)
        except OSError as error:
            raise StartError(
                f"the host of run {self.run_id} is up on {connection_info['host']}, and cannot be "
                f"reached from here: {error}. `interface:` of the target names the network that "
                f"host, workers and this machine share; a firewall may be between them."
            ) from error

    def _begin_host(self, paths: RunPaths) -> HostHandle:
        if self.manifest.target.host == "job":
            return submit_host(paths, self.manifest)
        return SpawnedHost(paths)

    def close(self) -> None:
        """End the host and its workers; closing twice is harmless."""
        if not self._is_open:
            return
        self._is_open = False
        if self in _live:
            _live.remove(self)
        self._linked.close()

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
        self.check_alive()
        return self._linked.new_client(**{"set_as_default": False, **options})

    def _connect(self, connection_info: dict[str, Any], host: HostHandle | None) -> None:
        from scalable_nb.session.batches import Batches

        assert self.paths is not None
        self._connection = Connection(self, self.paths, connection_info, host)
        self._connection.open()
        self._batches = Batches(self)
        self._is_open = True
        _live.append(self)
        if self.manifest.discovered:
            logger.warning("chosen without a manifest: %s", self.manifest.discovered)

    @property
    def _linked(self) -> Connection:
        if self._connection is None:
            raise NoSessionError("the session was not started; `session.start()` starts it")
        return self._connection

    @property
    def client(self) -> ScalableClient:
        """What tasks are submitted with."""
        return self._linked.client

    @property
    def mirror(self) -> Mirror:
        """The ledger, as far as this kernel has heard."""
        return self._linked.mirror

    @property
    def call_log(self) -> CallLogWriter:
        """Where this kernel writes its calls down."""
        return self._linked.call_log

    # --- what goes on --------------------------------------------------------------

    @property
    def worker_threads(self) -> int:
        """Slots of one worker."""
        return self.plan().threads_per_worker

    @property
    def dashboard_link(self) -> str:
        """Dask's dashboard for a browser, under a prefix that only this user can read."""
        link = str(self._connection_info.get("dashboard", ""))
        return browser_link(link) if is_here(self._connection_info) else link

    @property
    def _connection_info(self) -> dict[str, Any]:
        return self._connection.connection_info if self._connection is not None else {}

    def status(self) -> SessionStatus:
        """Workers and tasks as the host sees them now."""
        self.check_alive()
        assert self.paths is not None
        reply = self.client.host_api.status()
        return SessionStatus(
            run_id=self.run_id,
            target=self.target_name,
            state="running",
            host_pid=self._connection_info["pid"],
            workers=[worker.to_wire() for worker in reply.workers],
            counts=reply.counts,
            dashboard_link=self.dashboard_link,
            folder=self.paths.folder,
            started_at=self._connection_info["started_at"],
            notices=list(reply.notices),
            pauses=list(reply.pauses),
            jobs=list(reply.jobs),
            core_hours=self._linked.core_hours(),
            host=self._connection_info["host"],
            host_job=reply.host_job,
        )

    def failures(self) -> list[FailureRow]:
        """All failed attempts of the run so far, oldest first."""
        return self.journals()[0]

    def attempts(self, task_id: str) -> list[AttemptRow]:
        """All attempts of a task so far, oldest first, the one that is running included.

        Parameters
        ----------
        task_id : str
            The task's key as text, as in the journal.
        """
        return self._linked.attempts(task_id, is_open=self._is_open)

    def journals(self) -> tuple[list[Any], list[Any]]:
        """Failed attempts and ended tasks, brought up to date by a host that is alive."""
        return self._linked.journals(is_open=self._is_open)

    def tasks(self) -> FutureList:
        """All tasks of the run that this kernel still holds, in the order of their submission."""
        from distributed import Future

        from scalable_nb.client.futures import FutureList

        self.check_alive()
        self.mirror.refresh()
        held = self.client.held_keys()
        with self.mirror.lock:
            keys = [held[text] for text in self.mirror.ledger.keys if text in held]
        return FutureList(Future(key, self.client) for key in keys)

    @property
    def batches(self) -> Batches:
        """The batches of the run by name, also those of a kernel that is gone.

        ``session.batches["sweep"]`` is what ``client.map(..., name="sweep")`` gave, in order.
        """
        self.check_alive()
        return self._batches

    def unfinished(self) -> dict[str, Counter[str]]:
        """The batches with tasks that are not done, and how many are in which state.

        Tasks of single ``submit`` calls belong to the batch ``""``.
        """
        from scalable_nb.telemetry.rows import TaskState

        self.check_alive()
        self.mirror.refresh()
        found: dict[str, Counter[str]] = {}
        with self.mirror.lock:
            ledger = self.mirror.ledger
            pairs = Counter(zip(ledger.columns["batch"], ledger.columns["state"], strict=True))
            for (batch, state), count in sorted(pairs.items()):
                if not TaskState(state).is_final:
                    states = found.setdefault(ledger.strings[batch], Counter())
                    states[TaskState(state).label] += count
        return found

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
        self._check_batches(batches)
        return self.client.host_api.resume_batches(batches or None)

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
        self._check_batches(batches)
        return self.client.host_api.cancel_batches(batches or None, only_paused=only_paused)

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
        self._check_workers(n=n)
        self._check_component(component, f"session.scale({n})")
        return self.client.host_api.scale(n, component)

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
        maximum = maximum if maximum is not None else max(self.plan().workers, minimum, 1)
        self._check_workers(minimum=minimum, maximum=maximum)
        if minimum > maximum or maximum < 1:
            raise ScalingError(
                f"minimum={minimum}, maximum={maximum}: expected 0 <= minimum <= maximum and at "
                "least one worker; e.g. session.adapt(minimum=0, maximum=10)"
            )
        self._check_component(component, f"session.adapt({minimum}, {maximum})")
        return self.client.host_api.adapt(minimum, maximum, component)

    def _check_workers(self, **numbers: object) -> None:
        self.check_alive()
        for name, value in numbers.items():
            if type(value) is not int or value < 0:
                raise ScalingError(
                    f"{name}={value!r} is not a number of workers; expected a whole number, "
                    f"0 or more, e.g. {name}=4"
                )

    def _check_component(self, component: str | None, instead: str) -> None:
        if component is None:
            return
        if component not in self.manifest.manifest.components:
            raise UnknownNameError("component", component, self.manifest.manifest.components)
        if self.manifest.target.provider == "local":
            raise ScalingError(
                f"component={component!r}: on the local target {self.target_name!r} all components "
                f"share the workers; say `{instead}`"
            )

    def _check_batches(self, batches: Collection[str]) -> None:
        known = self.unfinished()
        for name in batches:
            if name not in known:
                raise UnknownNameError("unfinished batch", name, filter(None, known))

    def name_batch(self, name: str | None, default: str) -> str:
        """A name for a batch that no other batch of this session has."""
        if name is not None:
            self._batch_names.add(name)
            return name
        number = 1
        while (candidate := default if number == 1 else f"{default}-{number}") in self._batch_names:
            number += 1
        self._batch_names.add(candidate)
        return candidate

    # --- the host's health ---------------------------------------------------------

    def is_host_alive(self) -> bool:
        """Whether the host is there for us: not dead, nor about to end."""
        return self._connection is not None and self._connection.is_host_alive()

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
        linked = self._linked
        if not self._is_open:
            raise NoSessionError(f"the session {self.run_id} was closed; start a new one")
        is_closed = linked.client.status == "closed"
        if is_closed or not linked.is_host_alive(seen_within_s=seen_within_s):
            raise HostDiedError(self.death_message())

    def death_message(self) -> str:
        """What to say of a host that died."""
        return self._linked.death_message()

    def __repr__(self) -> str:
        state = "running" if self._is_open else ("closed" if self._connection else "not started")
        return f"<ScalableSession {self.run_id or self.target_name}: {state}>"


def _load_dask() -> None:
    from scalable_nb.dask_adapter import compatibility

    compatibility.check()  # first: the client's modules import what may be missing
    importlib.import_module("scalable_nb.client.client")


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
