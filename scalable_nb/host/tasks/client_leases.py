"""Keeps what a vanished client wanted.

Dask forgets a task as soon as no client wants it, so a dead kernel would end its run. The
host therefore wants every task too, under a name of its own, until a live client releases
or cancels it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from distributed.scheduler import ClientState, TaskState

from scalable_nb.dask_adapter.scheduler import (
    CANCEL_KEYS,
    CLIENT_RELEASES_KEYS,
    SchedulerAdapter,
)
from scalable_nb.protocol.messages import JoinRequest, TaskKeys

HOST_CLIENT: Final = "scalable-host"


class ClientLeases:
    """The host's own interest in all tasks of the run.

    Parameters
    ----------
    adapter : SchedulerAdapter
        Its functions for releasing and cancelling are wrapped.
    """

    def __init__(self, adapter: SchedulerAdapter) -> None:
        self._adapter = adapter
        self._release = adapter.replace_stream_handler(CLIENT_RELEASES_KEYS, self._client_releases)
        self._cancel = adapter.replace_stream_handler(CANCEL_KEYS, self._client_cancels)
        self._let_go = adapter.replace_release(self._on_release)

    def acquire(self, keys: Iterable[Any]) -> None:
        """Want these tasks."""
        self._adapter.want(keys, client=HOST_CLIENT)

    def join(self, request: JoinRequest) -> TaskKeys:
        """Another kernel wants tasks of this run too; answers those that are gone."""
        known = [key for key in request.keys if key in self._adapter.tasks]
        self._adapter.want(known, client=request.client)
        return TaskKeys(tuple(key for key in request.keys if key not in self._adapter.tasks))

    def cancel(self, keys: Iterable[Any], reason: str) -> None:
        """Cancel tasks and their dependents, whoever wants them, and notify the clients."""
        to_cancel = self._with_dependents(keys)
        names = [ts.key for ts in to_cancel]
        for cs in {cs for ts in to_cancel for cs in ts.who_wants or ()}:
            self._release(keys=names, client=cs.client_key)
        self._adapter.report_cancelled(names, reason)

    def _client_releases(self, keys: Collection[Any], client: str, **kwargs: Any) -> None:
        keys = list(keys)
        self._release(keys=keys, client=client, **kwargs)
        if client != HOST_CLIENT and HOST_CLIENT in self._adapter.clients:
            unwanted = [key for key in keys if self._only_host_wants(key)]
            if unwanted:
                self._release(keys=unwanted, client=HOST_CLIENT)

    def _on_release(self, keys: Collection[Any], cs: ClientState, recommendations: Any) -> None:
        """Somebody lets go of tasks: a client, on its own or because it vanished, or Dask.

        Variables, queues, published datasets and `fire_and_forget` want tasks under names that
        no connection has. When they are the last, the host lets go as well.
        """
        self._let_go(keys=keys, cs=cs, recommendations=recommendations)
        host = self._adapter.clients.get(HOST_CLIENT)
        if host not in (None, cs) and not self._adapter.is_connected(cs.client_key):
            unwanted = [key for key in keys if self._only_host_wants(key)]
            self._let_go(keys=unwanted, cs=host, recommendations=recommendations)

    def _client_cancels(self, keys: Collection[Any], client: str, **kwargs: Any) -> None:
        # Dask cancels only what nobody else wants; the host must not count as somebody.
        keys = list(keys)
        host = self._adapter.clients.get(HOST_CLIENT)
        to_cancel = self._with_dependents(keys)
        # What only the host wants, for a client that vanished, is nobody's to cancel.
        wanted = [
            ts
            for ts in to_cancel
            if host in (ts.who_wants or ()) and not self._only_host_wants(ts.key)
        ]
        for ts in wanted:
            self._adapter.unwant(ts, host)  # type: ignore[arg-type] # it wants them
        # A dropped future in the midst of a chain: Dask's own check fails where nobody wants a
        # task (distributed 2026.8.0), and that would end the client's connection.
        unwanted = [ts.key for ts in to_cancel if not ts.who_wants]
        self._adapter.want(unwanted, client=client)
        self._cancel(keys=keys, client=client, **kwargs)
        self.acquire(ts.key for ts in wanted if ts.key in self._adapter.tasks and ts.who_wants)

    def _with_dependents(self, keys: Iterable[Any]) -> list[TaskState]:
        found: dict[Any, TaskState] = {}
        stack = [ts for key in keys if (ts := self._adapter.tasks.get(key)) is not None]
        while stack:
            ts = stack.pop()
            if ts.key not in found:
                found[ts.key] = ts
                stack += ts.dependents
        return list(found.values())

    def _only_host_wants(self, key: Any) -> bool:
        ts = self._adapter.tasks.get(key)
        wanting = (ts.who_wants if ts is not None else None) or ()
        return [cs.client_key for cs in wanting] == [HOST_CLIENT]
