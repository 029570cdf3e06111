"""The batches of a run, including those of other kernels, and their control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from time import localtime, strftime
from typing import Any

from distributed import Future

from scalable_nb.client.batch_records import BatchRecord
from scalable_nb.client.call_log import CallLog, read_call_log
from scalable_nb.client.client import ScalableClient
from scalable_nb.client.futures import FutureList
from scalable_nb.client.host_api import HostApi
from scalable_nb.client.submission import as_submission, find_stored
from scalable_nb.errors import LeftOutError, RemoteError, UnknownNameError
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.ledger_mirror import Mirror
from scalable_nb.telemetry.rows import RELEASED, TaskState, key_text


class Batches(Mapping[str, FutureList]):
    """The batches of a run, by name or id.

    A batch contains the inputs of one ``client.map``, in order. Batches of single
    ``client.submit`` calls are listed together by function, as ``"submit-NAME"``. A name refers
    to the newest batch of that name of this kernel, else of any kernel; all other batches are
    found by their ids. Batches are read from the run's call log. Looking at a batch of another
    kernel does not keep its results, unless a value is requested.

    ``del session.batches[name]`` drops the claims of kernels that no longer exist.

    Parameters
    ----------
    paths : RunPaths
    client : ScalableClient
    kernel : str
        The call log's name for this kernel.
    """

    def __init__(self, paths: RunPaths, client: ScalableClient, kernel: str) -> None:
        self._paths = paths
        self._client = client
        self._host_api = client.host_api
        self._cached_futures = client.cached_futures
        self.kernel = kernel
        self._log: CallLog | None = None
        self._mark: tuple[Any, ...] = ()
        self._dropped: set[str] = set()

    def __getitem__(self, name: str) -> FutureList:
        return self.list_inputs(self.find(name))

    def __delitem__(self, name: str) -> None:
        records = self.find(name)
        self._dropped.update(record.batch_id for record in records)
        holders = self.log().history.holders
        keys = dict.fromkeys(key for record in records for key in record.keys)
        # What another batch has, too, stays until that is dropped.
        self._host_api.drop_left_claims(
            [key for key in keys if self._dropped.issuperset(holders(key))]
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.records())

    def __len__(self) -> int:
        return len(self.records())

    def __repr__(self) -> str:
        listed = [f"  {name!r}: {about}" for name, about in self.descriptions().items()]
        return "\n".join([f"<batches of {self._paths.run_id}:", *(listed or ["  none yet"])]) + ">"

    def records(self) -> dict[str, list[BatchRecord]]:
        """Name or id -> the batches that are listed under it, those of `submit` calls last."""
        labels = self.log().history.labels(self.kernel)
        return dict(sorted(labels.items(), key=lambda item: item[1][0].is_single))

    def sizes(self) -> dict[str, int]:
        """Return name or id -> number of inputs."""
        return {
            name: sum(len(record.keys) for record in records)
            for name, records in self.records().items()
        }

    def descriptions(self) -> dict[str, str]:
        """Name or id -> number of tasks, time, kernel and generation as text."""
        return {name: self._describe(records, name) for name, records in self.records().items()}

    def find(self, name: str) -> list[BatchRecord]:
        """Return the batch that a name or id stands for, or all listed under it.

        Raises
        ------
        UnknownNameError
            If no batch has this name or id.
        """
        found = self.log().history.named(name, self.kernel)
        if not found:
            raise UnknownNameError("batch", name, self.records(), "`session.batches` lists them.")
        return found

    def list_inputs(self, records: Collection[BatchRecord] | None = None) -> FutureList:
        """Return the futures of all inputs of batches, in order; of the whole run for None."""
        if records is None:
            records = self.log().history.batches.values()
        keys = [key for record in records for key in record.keys]
        labels = {record.label for record in records}
        return FutureList(
            self.futures(keys),
            name=labels.pop() if len(labels) == 1 else "",
            batch_ids=tuple(record.batch_id for record in records),
        )

    def futures(self, keys: Collection[Any]) -> list[Future[Any]]:
        """Return futures of tasks of the run; those of other kernels are only observed."""
        # They are created first: the host reports states to existing futures only.
        futures, new = self._client.open_futures(keys)
        if new:
            unknown = self._client.observed_keys.observe(new, self._settle)
            if unknown:
                self._settle(self._settle_ended(unknown))
        return futures

    def log(self) -> CallLog:
        """Return the call log as it is now."""
        folder = self._paths.calls
        mark = tuple((path.name, path.stat().st_size) for path in sorted(folder.glob("*.calls")))
        if self._log is None or mark != self._mark:
            self._log, self._mark = read_call_log(folder), mark
        return self._log

    # --- internals -------------------------------------------------------------------

    def _describe(self, records: list[BatchRecord], name: str) -> str:
        newest = records[-1]
        count = sum(len(record.keys) for record in records)
        parts = [
            f"{count:,} task{'' if count == 1 else 's'}",
            *([newest.label] if name == newest.batch_id else []),
            strftime("%Y-%m-%d %H:%M:%S", localtime(newest.at)),
            "this kernel" if newest.kernel == self.kernel else "another kernel",
            *([f"generation {newest.generation}"] if newest.generation else []),
        ]
        return ", ".join(parts)

    def _settle_ended(self, keys: Collection[Any]) -> list[Any]:
        """Settle futures of tasks that failed or were cancelled; return the other keys."""
        failures, endings = self._client.session.journals()
        messages = {row["task_id"]: row["message"] for row in failures if "message" in row}
        last = {row["task_id"]: row for row in endings if "task_id" in row}
        carried = self.log().history.carried()
        others = []
        for key in keys:
            row = last.get(key_text(key), {})
            state = row.get("state")
            if key in carried:  # its row is of an earlier run
                others.append(key)
            elif state == TaskState.FAILED.label:
                message = messages.get(key_text(key), "")
                self._fail(key, RemoteError(str(row.get("failure_class")), message))
            elif state == TaskState.CANCELLED.label:
                self._client.cancel_future(key, "cancelled", "the user cancelled it")
            else:
                others.append(key)
        return others

    def _fail(self, key: Any, error: Exception) -> None:
        self._client.fail_future(key, error)
        self._client.forget_failed(key)  # the same call, submitted again, is to run

    def _settle(self, keys: Collection[Any]) -> None:
        """Settle futures of tasks that the host does not know: stored, left out, or released."""
        log = self.log()
        tasks = [log.tasks[key] for key in keys if key in log.tasks]
        stored = find_stored(log, tasks, self._paths.results)
        carried = log.history.carried()
        for key in keys:
            if key in stored:
                folder, packed = stored[key]
                submission = as_submission(log.tasks[key], store=folder)
                self._cached_futures.restore(key, submission, packed)
            elif key in carried:
                self._fail(key, LeftOutError.of(key_text(key), carried[key].reason))
            else:
                self._client.cancel_future(key, RELEASED, "its result was released")


class BatchControl:
    """Names, resumes and cancels the batches of a session.

    Parameters
    ----------
    host_api : HostApi
    mirror : Mirror
    check_alive : callable
        Raises unless the session takes work.
    batches : Batches
        Those that the run has already.
    """

    def __init__(
        self,
        host_api: HostApi,
        mirror: Mirror,
        check_alive: Callable[[], None],
        batches: Batches,
    ) -> None:
        self._host_api = host_api
        self._mirror = mirror
        self._check_alive = check_alive
        self._batches = batches
        self._names = set(batches)

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
        """Cancel unfinished tasks of batches, of all if none is named; return how many.

        A task that is also in another batch continues.
        """
        if only_paused or not batches:
            self._check_unfinished(batches)
            return self._host_api.cancel_batches(list(batches) or None, only_paused=only_paused)
        self._check_alive()
        self._mirror.refresh()
        records = [record for name in batches for record in self._unfinished_records(name)]
        cancelled = {record.batch_id for record in records}
        history = self._batches.log().history
        keys = dict.fromkeys(
            key
            for record in records
            for key in record.keys
            if cancelled.issuperset(history.holders(key))
        )
        return self._host_api.cancel_tasks(list(keys))

    def _unfinished_records(self, name: str) -> list[BatchRecord]:
        """Return the batches that a name or id stands for."""
        records = self._batches.log().history.named(name, self._batches.kernel)
        if not any(map(self._is_unfinished, records)):
            known = [
                label
                for label, listed in self._batches.records().items()
                if any(map(self._is_unfinished, listed))
            ]
            raise UnknownNameError("unfinished batch", name, known)
        return records

    def _is_unfinished(self, record: BatchRecord) -> bool:
        with self._mirror.lock:
            ledger = self._mirror.ledger
            rows = (ledger.row_of.get(key_text(key)) for key in record.keys)
            states = (ledger.columns["state"][row] for row in rows if row is not None)
            return any(not TaskState(state).is_final for state in states)

    def _check_unfinished(self, batches: Collection[str]) -> None:
        known = self.unfinished()
        for name in batches:
            if name not in known:
                raise UnknownNameError("unfinished batch", name, filter(None, known))
