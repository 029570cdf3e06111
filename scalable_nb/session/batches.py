"""The batches of a run: by name, also those that another kernel submitted, and their control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping
from typing import Any

from distributed import Future

from scalable_nb.client.call_log import CallLog, read_call_log
from scalable_nb.client.client import ScalableClient
from scalable_nb.client.futures import FutureList
from scalable_nb.client.host_api import HostApi
from scalable_nb.client.submission import as_submission, batch_members, find_stored
from scalable_nb.errors import UnknownNameError
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.ledger_mirror import Mirror
from scalable_nb.telemetry.rows import TaskState


class Batches(MutableMapping[str, FutureList]):
    """Name of a batch -> its futures, in the order of the call.

    A batch is what one ``client.map`` gave; those of single ``client.submit`` calls are
    gathered by function, as ``"submit-NAME"``. Names and keys come from the run's call log,
    and futures are made when somebody asks. Futures of another kernel stay wanted until
    ``del session.batches[name]``.

    Parameters
    ----------
    paths : RunPaths
    client : ScalableClient
    """

    def __init__(self, paths: RunPaths, client: ScalableClient) -> None:
        self._paths = paths
        self._client = client
        self._host_api = client.host_api
        self._cached_futures = client.cached_futures
        self._log: CallLog | None = None
        self._mark: tuple[Any, ...] = ()
        self._joined: dict[str, FutureList] = {}

    def __getitem__(self, name: str) -> FutureList:
        if name not in self._joined:
            members = batch_members(self._read())
            if name not in members:
                raise UnknownNameError("batch", name, members, "`session.batches` lists them.")
            keys = members[name]
            is_foreign = any(key not in self._client.futures for key in keys)
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
        self._host_api.drop_left_claims(batch_members(self._read())[name])

    def __iter__(self) -> Iterator[str]:
        return iter(batch_members(self._read()))

    def __len__(self) -> int:
        return len(batch_members(self._read()))

    def __repr__(self) -> str:
        listed = ", ".join(f"{name!r}: {count:,} tasks" for name, count in self.sizes().items())
        return f"<batches of {self._paths.run_id}: {listed or 'none yet'}>"

    def sizes(self) -> dict[str, int]:
        """Name -> number of tasks; asks nobody."""
        return {name: len(keys) for name, keys in batch_members(self._read()).items()}

    def all_tasks(self) -> FutureList:
        """The futures of all recorded calls of the run, in the order of submission."""
        return FutureList(self._futures(list(self._read().tasks)))

    # --- internals -------------------------------------------------------------------

    def _read(self) -> CallLog:
        folder = self._paths.calls
        mark = tuple((path.name, path.stat().st_size) for path in sorted(folder.glob("*.calls")))
        if self._log is None or mark != self._mark:
            self._log, self._mark = read_call_log(folder), mark
        return self._log

    def _futures(self, keys: list[Any]) -> list[Future[Any]]:
        # They exist before the host tells what became of them.
        futures, new = self._client.open_futures(keys)
        if new:
            unknown = self._client.observed_keys.observe(new)
            if unknown:
                self._restore(unknown)
        return futures

    def _restore(self, keys: Collection[Any]) -> None:
        """Futures of tasks that the host does not know: answered by stored results, or ended."""
        log = self._read()
        tasks = [log.tasks[key] for key in keys if key in log.tasks]
        stored = find_stored(log, tasks, self._paths.results)
        for key in keys:
            if key in stored:
                folder, packed = stored[key]
                submission = as_submission(log.tasks[key], store=folder)
                self._cached_futures.restore(key, submission, packed)
            else:
                self._client.cancel_future(key, "released", "its result was released")


class BatchControl:
    """Names, resumes and cancels the batches of a session.

    Parameters
    ----------
    host_api : HostApi
    mirror : Mirror
    check_alive : callable
        Raises unless the session takes work.
    names : iterable of str
        Of the batches that the run has already.
    """

    def __init__(
        self,
        host_api: HostApi,
        mirror: Mirror,
        check_alive: Callable[[], None],
        names: Iterable[str],
    ) -> None:
        self._host_api = host_api
        self._mirror = mirror
        self._check_alive = check_alive
        self._names = set(names)

    def name_batch(self, name: str | None, default: str) -> str:
        """Return a name for a batch that no other batch of the session has."""
        if name is not None:
            self._names.add(name)
            return name
        number = 1
        while (candidate := default if number == 1 else f"{default}-{number}") in self._names:
            number += 1
        self._names.add(candidate)
        return candidate

    def unfinished(self) -> dict[str, Counter[str]]:
        """Return the number of tasks by state of each batch that is not done."""
        self._check_alive()
        self._mirror.refresh()
        found: dict[str, Counter[str]] = {}
        with self._mirror.lock:
            ledger = self._mirror.ledger
            pairs = Counter(zip(ledger.columns["batch"], ledger.columns["state"], strict=True))
            for (batch, state), count in sorted(pairs.items()):
                if not TaskState(state).is_final:
                    states = found.setdefault(ledger.strings[batch], Counter())
                    states[TaskState(state).label] += count
        return found

    def resume(self, batches: Collection[str]) -> int:
        """Resume paused batches, all if none is named; return how many tasks were paused."""
        self._check_unfinished(batches)
        return self._host_api.resume_batches(list(batches) or None)

    def cancel(self, batches: Collection[str], *, only_paused: bool) -> int:
        """Cancel unfinished tasks of batches, of all if none is named; return how many."""
        self._check_unfinished(batches)
        return self._host_api.cancel_batches(list(batches) or None, only_paused=only_paused)

    def _check_unfinished(self, batches: Collection[str]) -> None:
        known = self.unfinished()
        for name in batches:
            if name not in known:
                raise UnknownNameError("unfinished batch", name, filter(None, known))
