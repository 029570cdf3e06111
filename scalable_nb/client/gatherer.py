"""Gathers results: those in the memory of the workers, and those that are stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from distributed import Future
from distributed.utils_comm import pack_data, unpack_remotedata

from scalable_nb.client.cached_futures import CachedFutures
from scalable_nb.client.context import ClientTransport
from scalable_nb.client.futures import Failed
from scalable_nb.client.observed_keys import ObservedKeys
from scalable_nb.client.submission import many_objects
from scalable_nb.dask_adapter.client_hooks import error_of, wait_until_done

_ENDED_BADLY: Final = ("error", "cancelled")


class Gatherer:
    """Gathers the results of one client's futures, and the errors of those that failed.

    Parameters
    ----------
    transport : ClientTransport
    cached_futures : CachedFutures
    observed_keys : ObservedKeys
    submit_cached : callable
        Sends calls to the host whose stored results cannot be read, by key.
    """

    def __init__(
        self,
        transport: ClientTransport,
        cached_futures: CachedFutures,
        observed_keys: ObservedKeys,
        submit_cached: Callable[[Iterable[Any]], None],
    ) -> None:
        self._transport = transport
        self._cached_futures = cached_futures
        self._observed_keys = observed_keys
        self._submit_cached = submit_cached

    async def gather(
        self, futures: Any, errors: str = "raise", direct: Any = None, local_worker: Any = None
    ) -> Any:
        """Return results in the shape of the futures; stored ones are read here."""
        if self._observed_keys:
            _, requested = unpack_remotedata(futures, byte_keys=True)
            await self._observed_keys.claim(future.key for future in requested)
        remote = self._transport.gather_remote
        if not self._cached_futures or local_worker is not None:
            return await remote(futures, errors, direct, local_worker)
        keys = _plain_keys(futures)
        if keys and all(map(self._cached_futures.__contains__, keys)):
            values = await self._read_cached(keys)
            if all(map(values.__contains__, keys)):
                return [values[key] for key in keys]
        unpacked, found = unpack_remotedata(futures, byte_keys=True)
        values = await self._read_cached([future.key for future in found])
        others = {future.key: future for future in found if future.key not in values}
        if others and errors == "skip":
            await asyncio.gather(*map(wait_until_done, others.values()))
            others = {key: each for key, each in others.items() if each.status == "finished"}
        if others:
            gathered = await remote(list(others.values()), "raise", direct)
            values.update(zip(others, gathered, strict=True))
        missing = {future.key: None for future in found if future.key not in values}
        if missing and isinstance(unpacked, list):
            unpacked = [each for each in unpacked if getattr(each, "key", each) not in missing]
        return pack_data(unpacked, {**missing, **values})

    async def results_or_errors(self, futures: Any) -> Any:
        """Wait for all futures; return each one's result, or the exception in its place."""
        listed = [futures] if isinstance(futures, Future) else list(futures)
        values = [
            each.error if isinstance(each, Failed) else each for each in await self.outcomes(listed)
        ]
        return values[0] if isinstance(futures, Future) else values

    async def outcomes(self, futures: list[Future[Any]]) -> list[Any]:
        """Wait for all futures; return each one's result, or `Failed` in its place."""
        await self._observed_keys.claim(future.key for future in futures)
        while True:
            await asyncio.gather(*map(wait_until_done, futures))
            finished = [future for future in futures if future.status == "finished"]
            try:
                # "skip": what is lost at this very moment is no news for the notebook.
                gathered = await self.gather(finished, errors="skip")
                values = dict(zip(finished, gathered, strict=True))
            except Exception:  # noqa: BLE001 - one result is not to be had: ask for each alone
                values = {future: await self._outcome(future) for future in finished}
            if all(future in values or future.status in _ENDED_BADLY for future in futures):
                # Otherwise lost with its worker meanwhile, and computed again.
                return [
                    values[future] if future in values else Failed(await error_of(future))
                    for future in futures
                ]

    async def _outcome(self, future: Future[Any]) -> Any:
        try:
            (value,) = await self.gather([future])
        except Exception as error:  # noqa: BLE001 - whatever kept it from coming
            return Failed(error)
        return value

    async def _read_cached(self, keys: list[Any]) -> dict[Any, Any]:
        with many_objects(len(keys)):
            values, unreadable = await self._cached_futures.read(keys)
        if unreadable:
            self._submit_cached(unreadable)
        return values


def plain_lists(futures: Any) -> Any:
    """Return the same collection with plain lists, so that results come in those."""
    if isinstance(futures, list):
        return [plain_lists(item) if isinstance(item, list | dict) else item for item in futures]
    if type(futures) is dict:
        return {key: plain_lists(item) for key, item in futures.items()}
    return futures


def _plain_keys(futures: Any) -> list[Any]:
    """Return the keys of a list of futures; none if it is anything else."""
    is_native = type(futures) is list and {Future}.issuperset(map(type, futures))
    return [future.key for future in futures] if is_native else []
