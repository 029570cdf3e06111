"""End waits for tasks that only the user can resume."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from distributed import Future
from distributed.utils_comm import unpack_remotedata

from scalable_nb.client.host_api import HostApi
from scalable_nb.dask_adapter.client_hooks import is_pending
from scalable_nb.errors import BatchPausedError, HostDiedError
from scalable_nb.faults.circuit_breaker import pause_text

#: How often a wait looks for paused tasks.
_INTERVAL_S: Final = 1.0

#: How many pending futures are looked up in the host at each end of the list.
_SAMPLE_SIZE: Final = 100


class PauseWatch:
    """Ends the waits of one client for tasks that stay paused.

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
        both_ends = (*pending[:_SAMPLE_SIZE], *pending[-_SAMPLE_SIZE:])
        sample = list(dict.fromkeys(future.key for future in both_ends))
        if not sample:
            return
        try:
            pauses = await self._host_api.blocking_pauses(sample)
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
