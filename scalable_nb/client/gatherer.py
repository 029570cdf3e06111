"""Gather results, in memory or stored, and end waits for tasks that are paused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from distributed import Future
from distributed.comm import CommClosedError
from distributed.utils_comm import pack_data, unpack_remotedata

from scalable_nb.client.cached_futures import CachedFutures
from scalable_nb.client.context import ClientTransport
from scalable_nb.client.futures import Failed
from scalable_nb.client.host_api import HostApi, ObservedKeys
from scalable_nb.client.submission import many_objects
from scalable_nb.dask_adapter.client_hooks import error_of, is_pending, wait_until_done
from scalable_nb.errors import BatchPausedError, HostDiedError, RunFolderError
from scalable_nb.faults.circuit_breaker import pause_text

logger = logging.getLogger(__name__)

_ENDED_BADLY: Final = ("error", "cancelled")

#: How often a wait looks for paused tasks.
_INTERVAL_S: Final = 1.0

#: Of the tasks that are waited for, the first and the last so many are looked at.
_LOOKED_AT: Final = 100


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


class PauseWatch:
    """Watches over the waits of one client.

    Parameters
    ----------
    host_api : HostApi
    """

    def __init__(self, host_api: HostApi) -> None:
        self._host_api = host_api

    async def run(self, futures: Iterable[Future[Any]], wait: Callable[[], Awaitable[Any]]) -> Any:
        """Return what a coroutine function returns that waits for futures.

        Raises
        ------
        BatchPausedError
            If the futures belong to paused tasks, or to tasks that need their results, and no
            other task of the session is left that could run.
        """
        pending = [future for future in futures if is_pending(future)]
        if not pending:
            return await wait()
        waiting = asyncio.ensure_future(wait())
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=_INTERVAL_S)
                if done:
                    return waiting.result()
                pending = [future for future in pending if is_pending(future)]
                await self.check(pending)
        finally:
            waiting.cancel()

    async def check(self, pending: Sequence[Future[Any]]) -> None:
        """Raise if pending futures will stay pending until the user does something.

        Raises
        ------
        BatchPausedError
        """
        looked_at = dict.fromkeys(
            future.key for part in (pending[:_LOOKED_AT], pending[-_LOOKED_AT:]) for future in part
        )
        if not looked_at:
            return
        try:
            pauses = await self._host_api.blocking_pauses(list(looked_at))
        except (OSError, HostDiedError):
            return  # the futures fail when it is known that the host has died
        if pauses:
            raise BatchPausedError(
                f"{'; '.join(map(pause_text, pauses))}. No other task can run, so this call would "
                "wait for the user. To let them run: `%scalable resume` or "
                "`client.resume(futures)`; to end them: `%scalable cancel --paused` or "
                "`client.cancel(futures)`. `on_pause='wait'` waits instead of raising."
            )


def check_on_pause(on_pause: str) -> None:
    """Refuse an unknown value of ``on_pause``.

    Raises
    ------
    ValueError
    """
    if on_pause not in ("raise", "wait"):
        raise ValueError(f"on_pause={on_pause!r} is not known; expected 'raise' or 'wait'")


def futures_in(futures: Any) -> list[Future[Any]]:
    """Return the futures in a nested collection."""
    if isinstance(futures, list) and all(isinstance(each, Future) for each in futures):
        return futures
    _, found = unpack_remotedata(futures, byte_keys=True)
    return list(found)


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
