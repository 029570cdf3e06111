"""The tasks that a client only observes, and their claims.

A client observes tasks that it did not submit: the host reports their states to it, but keeps
nothing for it. When a value is requested, a task is submitted or is an input of another one, the
observation becomes a claim.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import Future as Reply
from typing import Any

from scalable_nb.client.context import ClientTransport
from scalable_nb.client.host_api import HostApi
from scalable_nb.telemetry.rows import RELEASED


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
        self._keys: set[Any] = set()

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def observe(self, keys: Collection[Any]) -> list[Any]:
        """Observe tasks of which futures were just made; return the keys of those it cannot.

        The states of the others have been reported on return. With an asynchronous client, it
        returns an awaitable.
        """
        unknown: list[Any] = self._transport.sync(self._observe, keys)
        return unknown

    async def _observe(self, keys: Collection[Any]) -> list[Any]:
        self._keys.update(keys)
        unknown = await self._host_api.observe(keys)
        self._keys.difference_update(unknown)
        return unknown

    async def claim(self, keys: Iterable[Any]) -> None:
        """Claim those of the tasks that are observed; cancel futures of released ones."""
        observed = self.take(keys)
        if observed:
            self._cancel(await self._host_api.claim(observed))

    def claim_soon(self, keys: Iterable[Any]) -> None:
        """Claim those of the tasks that are observed before the next graph is sent."""
        observed = self.take(keys)
        if observed:
            self._host_api.send_claim(observed).add_done_callback(self._on_claimed)

    def take(self, keys: Iterable[Any]) -> list[Any]:
        """Return those of the keys that are observed, and forget them: they are claimed."""
        found = [key for key in keys if key in self._keys] if self._keys else []
        self._keys.difference_update(found)
        return found

    def discard(self, key: Any) -> None:
        """Forget a key of which no future is left."""
        self._keys.discard(key)

    def clear(self) -> None:
        """Forget all keys: the connection broke, and with it all futures."""
        self._keys.clear()

    def _on_claimed(self, reply: Reply[list[Any]]) -> None:
        if reply.exception() is None:
            self._cancel(reply.result())

    def _cancel(self, released: Iterable[Any]) -> None:
        for key in released:
            self._transport.cancel_future(key, RELEASED, "its result was released")
