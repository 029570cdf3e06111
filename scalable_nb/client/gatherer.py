"""A client that gathers results: those of the workers, and those that are stored."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import CancelledError
from typing import Any, Final

from distributed import Future
from distributed.utils_comm import pack_data, unpack_remotedata

from scalable_nb.client.futures import Failed, PartialResult, partial
from scalable_nb.client.host_api import HostClient
from scalable_nb.client.submission import many_objects


class GatheringClient(HostClient):
    """How a client of a session gets results, and what became of those that failed."""

    def gather(
        self, futures: Any, errors: str = "raise", direct: Any = None, asynchronous: Any = None
    ) -> Any:
        """Results of futures, in the shape they are given in.

        Parameters
        ----------
        futures : Future or nested collection of futures
        errors : {"raise", "skip", "return"}
            ``"raise"`` the first failure; ``"skip"`` failed tasks in a list; ``"return"``
            the exception in the place of the result (for a flat collection).
        direct, asynchronous
            As in `distributed.Client.gather`.
        """
        if errors != "return":
            if errors not in ("raise", "skip"):
                raise ValueError(
                    f"errors={errors!r} is not known; expected 'raise', 'skip' or 'return'"
                )
            plain = _plain_lists(futures)
            return super().gather(plain, errors=errors, direct=direct, asynchronous=asynchronous)
        return self.sync(self._results_or_errors, futures, asynchronous=asynchronous)

    async def _gather(
        self, futures: Any, errors: str = "raise", direct: Any = None, local_worker: Any = None
    ) -> Any:
        """Called by Dask for every result; those that are answered here are read here."""
        if not self.cached_futures or local_worker is not None:
            return await super()._gather(futures, errors, direct, local_worker)
        keys = _plain_keys(futures)
        if keys and all(map(self.cached_futures.__contains__, keys)):
            values = await self._answers_for(keys)
            if all(map(values.__contains__, keys)):
                return [values[key] for key in keys]
        unpacked, found = unpack_remotedata(futures, byte_keys=True)
        values = await self._answers_for([future.key for future in found])
        others = {future.key: future for future in found if future.key not in values}
        if others and errors == "skip":
            await asyncio.gather(*(_ended(future) for future in others.values()))
            others = {key: each for key, each in others.items() if each.status == "finished"}
        if others:
            gathered = await super()._gather(list(others.values()), "raise", direct)
            values.update(zip(others, gathered, strict=True))
        missing = {future.key: None for future in found if future.key not in values}
        if missing and isinstance(unpacked, list):
            unpacked = [each for each in unpacked if getattr(each, "key", each) not in missing]
        return pack_data(unpacked, {**missing, **values})

    async def _answers_for(self, keys: list[Any]) -> dict[Any, Any]:
        with many_objects(len(keys)):
            return await self.cached_futures.read(keys)

    def _release_key(self, key: Any) -> None:
        """Called by Dask when the last future of a task is gone."""
        if not self.cached_futures.forget(key):
            super()._release_key(key)
        elif key in self.futures:
            self.futures.pop(key).cancel()  # the host has no such task to release

    async def _results_or_errors(self, futures: Any) -> Any:
        listed = [futures] if isinstance(futures, Future) else list(futures)
        values = [
            each.error if isinstance(each, Failed) else each for each in await self.outcomes(listed)
        ]
        return values[0] if isinstance(futures, Future) else values

    async def outcomes(self, futures: list[Future[Any]]) -> list[Any]:
        """Wait for all futures; gives each one's result, or `Failed` in its place."""
        while True:
            await asyncio.gather(*(_ended(future) for future in futures))
            finished = [future for future in futures if future.status == "finished"]
            try:
                # "skip": what is lost at this very moment is no news for the notebook.
                gathered = await self._gather(finished, errors="skip")
                values = dict(zip(finished, gathered, strict=True))
            except Exception:  # noqa: BLE001 - one result is not to be had: ask for each alone
                values = {future: await self._outcome(future) for future in finished}
            if all(future in values or future.status in _ENDED_BADLY for future in futures):
                # Otherwise lost with its worker meanwhile, and computed again.
                return [
                    values[future] if future in values else Failed(await _error_of(future))
                    for future in futures
                ]

    async def _outcome(self, future: Future[Any]) -> Any:
        try:
            (value,) = await self._gather([future])
        except Exception as error:  # noqa: BLE001 - whatever kept it from coming
            return Failed(error)
        return value

    def partial(self, futures: Iterable[Future[Any]]) -> PartialResult:
        """Wait for all futures, then give results and failures; see `scalable_nb.partial`."""
        return partial(futures)


_ENDED_BADLY: Final = ("error", "cancelled")


async def _ended(future: Future[Any]) -> None:
    """Wait for a future; one that was cancelled has ended too."""
    await future._state.wait()  # type: ignore[union-attr]


async def _error_of(future: Future[Any]) -> BaseException:
    """What a failed or cancelled future raises."""
    error = await future._exception()
    return error if isinstance(error, BaseException) else CancelledError(str(future.key))


def _plain_keys(futures: Any) -> list[Any]:
    """The keys of a list of futures; empty where it is anything else."""
    is_native = type(futures) is list and {Future}.issuperset(map(type, futures))
    return [future.key for future in futures] if is_native else []


def _plain_lists(futures: Any) -> Any:
    """The same collection with plain lists, so that results come in those."""
    if isinstance(futures, list):
        return [_plain_lists(item) if isinstance(item, list | dict) else item for item in futures]
    if type(futures) is dict:
        return {key: _plain_lists(item) for key, item in futures.items()}
    return futures
