"""Gather results: those in the memory of the workers, and those that are stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from distributed import Future
from distributed.comm import CommClosedError
from distributed.utils_comm import pack_data, unpack_remotedata

from scalable_nb.client.cached_futures import CachedFutures
from scalable_nb.client.context import ClientTransport
from scalable_nb.client.futures import Failed
from scalable_nb.client.host_api import ObservedKeys
from scalable_nb.client.submission import many_objects
from scalable_nb.dask_adapter.client_hooks import error_of, wait_until_done
from scalable_nb.errors import HostDiedError, RunFolderError

logger = logging.getLogger(__name__)

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
    find_stored : callable
        Adds the stored results of the run to the cached futures, after its host has died.
    find_host_error : coroutine function
        Returns the error of a host that has died, when a connection to it broke.
    """

    def __init__(
        self,
        transport: ClientTransport,
        cached_futures: CachedFutures,
        observed_keys: ObservedKeys,
        submit_cached: Callable[[Iterable[Any]], None],
        find_stored: Callable[[], None],
        find_host_error: Callable[[], Awaitable[HostDiedError | None]],
    ) -> None:
        self._transport = transport
        self._cached_futures = cached_futures
        self._observed_keys = observed_keys
        self._submit_cached = submit_cached
        self._find_stored = find_stored
        self._find_host_error = find_host_error
        self._host_error: HostDiedError | None = None
        self._search: asyncio.Future[None] | None = None

    def lose_host(self, error: HostDiedError) -> None:
        """Take note that the host has died, and with it all results that are not stored."""
        self._host_error = error

    async def gather(
        self, futures: Any, errors: str = "raise", direct: Any = None, local_worker: Any = None
    ) -> Any:
        """Return results in the shape of the futures; stored ones are read here."""
        if self._observed_keys:
            _, requested = unpack_remotedata(futures, byte_keys=True)
            await self._observed_keys.claim(future.key for future in requested)
        if self._host_error is not None:
            return await self._gather_stored(futures, errors)
        remote = self._gather_remote
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
        return _with_values(unpacked, found, values)

    async def _gather_remote(
        self, futures: Any, errors: str, direct: Any, local_worker: Any = None
    ) -> Any:
        """Return results from the memory of the workers."""
        try:
            return await self._transport.gather_remote(futures, errors, direct, local_worker)
        except CommClosedError:
            if self._host_error is None:
                self._host_error = await self._find_host_error()
            if self._host_error is None:
                raise
        return await self._gather_stored(futures, errors)

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
            if self._host_error is not None:
                return await self._stored_outcomes(futures)
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

    # --- without a host ------------------------------------------------------------------

    async def _gather_stored(self, futures: Any, errors: str) -> Any:
        """Return stored results in the shape of the futures."""
        unpacked, found = unpack_remotedata(futures, byte_keys=True)
        listed = list(found)
        values: dict[Any, Any] = {}
        for future, outcome in zip(listed, await self._stored_outcomes(listed), strict=True):
            if not isinstance(outcome, Failed):
                values[future.key] = outcome
            elif errors != "skip":
                raise outcome.error
        return _with_values(unpacked, found, values)

    async def _stored_outcomes(self, futures: list[Future[Any]]) -> list[Any]:
        """Return the stored result of each future, or `Failed` in its place."""
        host_error = self._host_error
        assert host_error is not None
        keys = {future.key for future in futures if future.status == "finished"}
        if not all(map(self._cached_futures.__contains__, keys)):
            if self._search is None:
                self._search = asyncio.ensure_future(asyncio.to_thread(self._search_results))
            await asyncio.shield(self._search)  # others may wait for it, too
        values, _ = await self._cached_futures.read(keys)
        return [
            values[future.key]
            if future.key in values
            else Failed(host_error if future.key in keys else await error_of(future))
            for future in futures
        ]

    def _search_results(self) -> None:
        try:
            self._find_stored()
        except (OSError, RunFolderError) as error:
            logger.warning("the stored results of the session cannot be read: %s", error)

    # --- internals -----------------------------------------------------------------------

    async def _read_cached(self, keys: list[Any]) -> dict[Any, Any]:
        with many_objects(len(keys)):
            values, unreadable = await self._cached_futures.read(keys)
        if unreadable:
            self._submit_cached(unreadable)
        return values


def _with_values(unpacked: Any, found: Iterable[Future[Any]], values: dict[Any, Any]) -> Any:
    """Return a collection with values for its futures; leave out those without in a list."""
    missing = {future.key: None for future in found if future.key not in values}
    if missing and isinstance(unpacked, list):
        unpacked = [each for each in unpacked if getattr(each, "key", each) not in missing]
    return pack_data(unpacked, {**missing, **values})


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
