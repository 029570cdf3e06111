"""The batches of a run by name, also those that another kernel submitted."""

from __future__ import annotations

from collections.abc import Collection, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from distributed import Future

from scalable_nb.client.call_log import CallLog, read_call_log
from scalable_nb.client.futures import FutureList
from scalable_nb.client.logged_submissions import as_submission, batch_members, find_stored
from scalable_nb.errors import UnknownNameError

if TYPE_CHECKING:
    from scalable_nb.session.session import ScalableSession


class Batches(MutableMapping[str, FutureList]):
    """Name of a batch -> its futures, in the order of the call.

    A batch is what one ``client.map`` gave; those of single ``client.submit`` calls are
    gathered by function, as ``"submit-NAME"``. Names and keys come from the run's call log,
    and futures are made when somebody asks. Futures of another kernel stay wanted until
    ``del session.batches[name]``.

    Parameters
    ----------
    session : ScalableSession
    """

    def __init__(self, session: ScalableSession) -> None:
        self._session = session
        self._log: CallLog | None = None
        self._mark: tuple[Any, ...] = ()
        self._joined: dict[str, FutureList] = {}

    def __getitem__(self, name: str) -> FutureList:
        if name not in self._joined:
            members = batch_members(self._read())
            if name not in members:
                raise UnknownNameError("batch", name, members, "`session.batches` lists them.")
            keys = members[name]
            is_foreign = any(key not in self._session.client.futures for key in keys)
            futures = FutureList(self._futures(keys), name=name)
            if not is_foreign:  # the notebook itself holds them, or lets them go
                return futures
            self._joined[name] = futures
        return self._joined[name]

    def __setitem__(self, name: str, futures: FutureList) -> None:
        raise TypeError("batches are made by client.map(..., name=...)")

    def __delitem__(self, name: str) -> None:
        if name not in self._joined:
            self[name]  # so that what nobody holds is joined, and then let go
        self._joined.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(batch_members(self._read()))

    def __len__(self) -> int:
        return len(batch_members(self._read()))

    def __repr__(self) -> str:
        listed = ", ".join(f"{name!r}: {count:,} tasks" for name, count in self.sizes().items())
        return f"<batches of {self._session.run_id}: {listed or 'none yet'}>"

    def sizes(self) -> dict[str, int]:
        """Name -> number of tasks; asks nobody."""
        return {name: len(keys) for name, keys in batch_members(self._read()).items()}

    def all_tasks(self) -> FutureList:
        """The futures of all recorded calls of the run, in the order of submission."""
        return FutureList(self._futures(list(self._read().tasks)))

    # --- internals -------------------------------------------------------------------

    def _read(self) -> CallLog:
        assert self._session.paths is not None
        folder = self._session.paths.calls
        mark = tuple((path.name, path.stat().st_size) for path in sorted(folder.glob("*.calls")))
        if self._log is None or mark != self._mark:
            self._log, self._mark = read_call_log(folder), mark
        return self._log

    def _futures(self, keys: list[Any]) -> list[Future[Any]]:
        client = self._session.client
        new = [key for key in dict.fromkeys(keys) if key not in client.futures]
        # They exist before the host tells what became of them.
        futures: list[Future[Any]] = [Future(key, client) for key in keys]
        if new:
            unknown = client.host_api.join(new)
            if unknown:
                self._restore(unknown)
        return futures

    def _restore(self, keys: Collection[Any]) -> None:
        """Futures of tasks that the host does not know: answered by stored results, or ended."""
        assert self._session.paths is not None
        client, log = self._session.client, self._read()
        tasks = [log.tasks[key] for key in keys if key in log.tasks]
        stored = find_stored(log, tasks, self._session.paths.results)
        for key in keys:
            if key in stored:
                folder, packed = stored[key]
                submission = as_submission(log.tasks[key], store=folder)
                client.cached_futures.restore(key, submission, packed)
            else:
                client.cancel_future(key, "released", "its result was released")
