"""The tasks that a client only observes, and their claims.

A client observes tasks that it did not submit: the host reports their states to it, but keeps
nothing for it. When a value is requested, a task is submitted or is an input of another one, the
observation becomes a claim.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future as Reply
from contextlib import suppress
from functools import partial
from typing import Any

from scalable_nb.client.context import ClientTransport
from scalable_nb.client.host_api import HostApi
from scalable_nb.errors import HostDiedError

#: Settles futures of tasks that the host has released: some results are stored.
Settle = Callable[[Collection[Any]], None]


class ObservedKeys:
    """The keys of the tasks that one client only observes.

    Parameters
    ----------
    transport : ClientTransport
    host_api : HostApi
    """

    def __init__(self, transport: ClientTransport, host_api: HostApi) -> None:
        self._transport = transport
        self._host_api = host_api
        self._settle: dict[Any, Settle] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._settle

    def __len__(self) -> int:
        return len(self._settle)

    def observe(self, keys: Collection[Any], settle: Settle) -> list[Any]:
        """Observe tasks of which futures were just made; return the keys of those it cannot.

        The states of the others have been reported on return. With an asynchronous client, it
        returns an awaitable.

        Parameters
        ----------
        keys : collection
        settle : callable
            Called in the client's event loop with the keys of tasks that are released later.
        """
        unknown: list[Any] = self._transport.sync(self._observe, keys, settle)
        return unknown

    async def _observe(self, keys: Collection[Any], settle: Settle) -> list[Any]:
        self._settle.update(dict.fromkeys(keys, settle))
        unknown = await self._host_api.observe(keys)
        self.take(unknown)
        return unknown

    async def claim(self, keys: Iterable[Any]) -> None:
        """Claim those of the tasks that are observed, and settle the released ones."""
        observed = self.take(keys)
        if observed:
            with suppress(HostDiedError):  # the futures have the error, too
                self._release(observed, await self._host_api.claim(list(observed)))

    def claim_soon(self, keys: Iterable[Any]) -> None:
        """Claim those of the tasks that are observed before the next graph is sent."""
        observed = self.take(keys)
        if observed:
            reply = self._host_api.send_claim(list(observed))
            reply.add_done_callback(partial(self._on_claimed, observed))

    def take(self, keys: Iterable[Any]) -> dict[Any, Settle]:
        """Forget those of the keys that are observed: they are claimed; return them."""
        found: dict[Any, Settle] = {}
        for key in keys if self._settle else ():
            settle = self._settle.pop(key, None)
            if settle is not None:
                found[key] = settle
        return found

    def discard(self, key: Any) -> None:
        """Forget a key of which no future is left."""
        self._settle.pop(key, None)

    def clear(self) -> None:
        """Forget all keys: the connection broke, and with it all futures."""
        self._settle.clear()

    def on_released(self, keys: Iterable[Any]) -> None:
        """Settle the observed ones among tasks that the host has released."""
        # The others are claimed meanwhile.
        released = self.take(keys)
        self._release(released, released)

    def _on_claimed(self, observed: Mapping[Any, Settle], reply: Reply[list[Any]]) -> None:
        if reply.exception() is None:
            self._release(observed, reply.result())

    def _release(self, observed: Mapping[Any, Settle], released: Collection[Any]) -> None:
        lost: dict[Settle, list[Any]] = {}
        for key in released:
            # A failed future has all that there was, so it keeps its error.
            if key in self._transport.futures and not self._transport.forget_failed(key):
                lost.setdefault(observed[key], []).append(key)
        for settle, keys in lost.items():
            settle(keys)
