"""The context of a client, and the interfaces between its parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from scalable_nb.manifest.planner import make_plan
from scalable_nb.settings import load_settings

if TYPE_CHECKING:
    from distributed import Future
    from tornado.ioloop import IOLoop

    from scalable_nb.dask_adapter.graphs import Task
    from scalable_nb.manifest.load import LoadedManifest
    from scalable_nb.manifest.schema import Manifest
    from scalable_nb.paths import RunPaths
    from scalable_nb.telemetry.journal_replay import AttemptRow
    from scalable_nb.telemetry.ledger_mirror import Mirror
    from scalable_nb.telemetry.rows import FailureRow


@dataclass(frozen=True)
class ClientContext:
    """What calls depend on: manifest, target and folders of a session.

    Attributes
    ----------
    loaded : LoadedManifest
    results_dir : Path
        Folder of the results that are stored for this run alone.
    """

    loaded: LoadedManifest
    results_dir: Path

    @property
    def manifest(self) -> Manifest:
        """The content of the manifest."""
        return self.loaded.manifest

    @property
    def target_name(self) -> str:
        """The target's name in the manifest."""
        return self.loaded.target_name

    @property
    def cache_dir(self) -> Path:
        """Folder of the results that answer later calls, as the settings are now."""
        return load_settings(local_cache=self.manifest.project.local_cache).cache_dir

    @property
    def worker_threads(self) -> int:
        """Slots of one worker."""
        return make_plan(self.loaded).threads_per_worker


class SessionHandle(Protocol):
    """What a client, its futures and their resubmission may ask of their session."""

    @property
    def manifest(self) -> LoadedManifest:
        """The manifest that the session was started with."""

    @property
    def paths(self) -> RunPaths | None:
        """The run folder."""

    @property
    def mirror(self) -> Mirror:
        """The kernel's copy of the ledger."""

    @property
    def dashboard_link(self) -> str:
        """The address of Dask's dashboard."""

    def check_alive(self, *, seen_within_s: float = 0.0) -> None:
        """Raise unless the session takes work."""

    def name_batch(self, name: str | None, default: str) -> str:
        """Return a name for a batch that no other batch of the session has."""

    def attempts(self, task_id: str) -> list[AttemptRow]:
        """Return all attempts of a task, oldest first."""

    def failures(self) -> list[FailureRow]:
        """Return all failed attempts of the run, oldest first."""

    def journals(self) -> tuple[list[Any], list[Any]]:
        """Return failed attempts and ended tasks."""


class HostHealth(Protocol):
    """What a client asks about its host when the connection breaks."""

    def is_host_alive(self, *, seen_within_s: float = 0.0) -> bool:
        """Return whether the host takes work."""

    def death_message(self) -> str:
        """Return the text of the error for a host that died."""


class ClientTransport(Protocol):
    """What the parts of a client use of it: futures and the connection; see `ClientHooks`."""

    futures: Any
    id: str

    @property
    def loop(self) -> IOLoop | None:
        """The event loop of the connection."""

    @property
    def scheduler(self) -> Any:
        """The scheduler, to call its handlers."""

    def sync(self, func: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Run a coroutine function in the event loop and wait for its result."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message in order with the graphs."""

    def forget_failed(self, key: Any) -> bool:
        """Forget a task if its future has failed; the future keeps its error."""

    def reopen_futures(self, keys: Iterable[Any]) -> None:
        """Make futures pending again whose tasks run again."""

    def submit_graph(
        self,
        tasks: Mapping[Any, Task],
        *,
        workers: Any = None,
        allow_other_workers: bool = False,
        priority: int = 0,
        resources: dict[str, float] | None = None,
        fifo_timeout: str | float = 0,
    ) -> dict[Any, Future[Any]]:
        """Send tasks and return their futures."""

    async def gather_remote(
        self, futures: Any, errors: str = "raise", direct: Any = None, local_worker: Any = None
    ) -> Any:
        """Return the results of futures from the memory of the workers."""

    def held_futures(self, keys: Iterable[Any]) -> dict[Any, Future[Any]]:
        """Return a future of each task of which one is held already."""

    def finish_futures(self, keys: Iterable[Any]) -> dict[Any, Future[Any]]:
        """Finish tasks that the scheduler does not know, and return a future of each."""


@runtime_checkable
class SessionClient(Protocol):
    """What a list of futures needs of its client."""

    @property
    def session(self) -> SessionHandle:
        """The session that the client belongs to."""

    @property
    def asynchronous(self) -> bool:
        """Whether the client is used in coroutines."""

    def gather(self, futures: Any, *, on_pause: str = "raise") -> Any:
        """Return the results of futures."""

    def check_progress(self, futures: Iterable[Future[Any]]) -> None:
        """Raise if no task of the futures can go on without the user."""

    def outcomes(self, futures: list[Future[Any]], on_pause: str = "raise") -> list[Any]:
        """Wait for futures and return each one's result, or a `Failed` instead."""
