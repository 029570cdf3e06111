"""Claims and observations of clients.

Dask keeps a task for as long as a client wants it. Here, what a client wants is either a *claim*
or an *observation*: an observing client receives the states of a task, but keeps nothing. When the
last claim is released, so are the observations.

Claims of a client that vanished are left, so that a dead kernel does not end its run. Variables,
queues, published datasets and `fire_and_forget` claim tasks under names that no connection has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from distributed.scheduler import ClientState
from distributed.scheduler import TaskState as DaskTaskState

from scalable_nb.dask_adapter.scheduler import (
    CANCEL_KEYS,
    CLIENT_RELEASES_KEYS,
    FIRE_AND_FORGET,
    SchedulerAdapter,
)
from scalable_nb.host.tasks.task import RECOMPUTED, TrackedTask
from scalable_nb.host.tasks.task_registry import TaskRegistry
from scalable_nb.protocol.messages import JoinReply, JoinRequest, TaskKeys
from scalable_nb.protocol.operations import Operation
from scalable_nb.protocol.wire import stream_message
from scalable_nb.telemetry.ledger import Ledger
from scalable_nb.telemetry.rows import CANCELLED_BY_USER, RELEASED, TaskState

#: Has the claims of clients that vanished.
LEFT_CLAIMS: Final = "scalable-left-claims"


class ClientLeases:
    """Decides which tasks are kept for which client, and which are released with a claim.

    Parameters
    ----------
    adapter : SchedulerAdapter
        Its functions for wanting, releasing and cancelling are wrapped.
    registry : TaskRegistry
    ledger : Ledger
    """

    def __init__(self, adapter: SchedulerAdapter, registry: TaskRegistry, ledger: Ledger) -> None:
        self._adapter = adapter
        self._registry = registry
        self._ledger = ledger
        self._connected: set[str] = set()
        # By client. What is observed has a claim: without observations, Dask decides alone.
        self._observed: dict[str, set[Any]] = {}
        # By client: observed tasks that were released, until it is notified.
        self._unreported: dict[str, list[Any]] = {}
        self._want = adapter.replace_want(self._on_want)
        self._let_go = adapter.replace_release(self._on_release)
        self._release = adapter.replace_stream_handler(CLIENT_RELEASES_KEYS, self._client_releases)
        adapter.replace_stream_handler(CANCEL_KEYS, self._client_cancels)

    # --- clients that come and go ----------------------------------------------------

    def add_client(self, client: str) -> None:
        """Take note of a client that connected."""
        self._connected.add(client)

    def leave_claims(self, client: str) -> None:
        """Keep the claims of a client that is about to vanish, except those on native tasks."""
        self._connected.discard(client)
        observed = self._observed.pop(client, set())
        self._unreported.pop(client, None)
        cs = self._adapter.clients.get(client)
        claimed = [ts for ts in cs.wants_what if ts.key not in observed] if cs is not None else ()
        self._adapter.hold(filter(self._is_call, claimed), LEFT_CLAIMS)

    def drop_left_claims(self, request: TaskKeys) -> TaskKeys:
        """Release the claims that vanished clients left on tasks; return the keys of these."""
        cs, tasks = self._adapter.clients.get(LEFT_CLAIMS), self._adapter.tasks
        left = [key for key in request.keys if cs is not None and tasks.get(key) in cs.wants_what]
        if left:
            self._release(keys=left, client=LEFT_CLAIMS)
        return TaskKeys(tuple(left))

    def join(self, client: str, request: JoinRequest) -> None:
        """Let a client observe or claim tasks, and send it the keys of those it cannot."""
        self._notify()  # of what it observed before
        find = self._adapter.tasks.get
        if request.is_claim:
            known = [key for key in request.keys if self._has_outcome(find(key))]
            self._on_want(known, client)
        else:
            known = [key for key in request.keys if (ts := find(key)) and self._claims(ts)]
            wanted = self._adapter.clients[client].wants_what
            new = {key for key in known if find(key) not in wanted}
            if new:
                self._observed.setdefault(client, set()).update(new)
            self._want(known, client)
        found = set(known)
        unknown = tuple(key for key in request.keys if key not in found)
        reply = JoinReply(request.request_id, unknown)
        self._adapter.send_to_client(client, stream_message(Operation.JOINED, reply))

    # --- the end of claims -----------------------------------------------------------

    def cancel(self, keys: Iterable[Any]) -> None:
        """Cancel tasks and their dependents, regardless of claims, and notify the clients."""
        to_cancel = self._with_dependents(keys, lambda ts: True)
        self._cancel(to_cancel, CANCELLED_BY_USER, None)

    def release_all(self) -> None:
        """Release all claims, also those on tasks that were to run to their end."""
        for tracked in self._registry.values():
            tracked.runs_to_end = False
        self._adapter.release_all_results()

    def _client_releases(self, keys: Collection[Any], client: str, **kwargs: Any) -> None:
        self._keep_running(keys, self._adapter.clients.get(client))
        self._release(keys=keys, client=client, **kwargs)

    def _client_cancels(
        self,
        keys: Collection[Any],
        client: str,
        force: bool = False,
        reason: str | None = None,
        msg: str | None = None,
        **kwargs: Any,
    ) -> None:
        # Dask's own has no notion of observations and left claims. It also fails on a dropped
        # future in the middle of a chain (distributed 2026.8.0), which ends the connection.
        to_cancel = self._with_dependents(keys, lambda ts: force or not self._others(ts, client))
        self._cancel(to_cancel, reason, msg)

    def _cancel(
        self, to_cancel: Collection[DaskTaskState], reason: str | None, message: str | None
    ) -> None:
        names = [ts.key for ts in to_cancel]
        tracked = [self._registry[key] for key in names if key in self._registry]
        for each in tracked:
            each.runs_to_end, each.is_cancelled = False, True
        for cs in {cs for ts in to_cancel for cs in ts.who_wants or ()}:
            self._release(keys=names, client=cs.client_key)
        for each in tracked:
            each.is_cancelled = False  # those that another client's task needs continue
        self._adapter.report_cancelled(names, reason, message)

    def _on_want(self, keys: Collection[Any], client: str) -> None:
        """Handle a claim: a client submits tasks, or got futures of them from another client."""
        self._forget_observations(keys, client)
        self._want(keys=keys, client=client)

    def _on_release(self, keys: Collection[Any], cs: ClientState, recommendations: Any) -> None:
        """Handle the release of tasks by a client that is connected, or by any other name."""
        name = cs.client_key
        if name not in self._connected and name != FIRE_AND_FORGET:
            self._keep_running(keys, cs)
        self._forget_observations(keys, name)
        self._let_go(keys=keys, cs=cs, recommendations=recommendations)
        if self._observed:
            self._release_observed(keys, recommendations)

    def _keep_running(self, keys: Collection[Any], cs: ClientState | None) -> None:
        """Before a client releases tasks: let those run to their end that are to."""
        held = []
        for key in keys:
            tracked = self._registry.get(key)
            if tracked is not None and tracked.runs_to_end and not self._is_finished(tracked):
                ts = self._adapter.tasks[key]
                if self._claims(ts) == [cs]:
                    held.append(ts)
        if held:
            self._adapter.hold(held, FIRE_AND_FORGET)  # Dask releases each when it has ended

    def _release_observed(self, keys: Collection[Any], recommendations: Any) -> None:
        """Release the observations of tasks that have no claims."""
        found = filter(None, map(self._adapter.tasks.get, keys))
        unclaimed = [ts.key for ts in found if ts.who_wants and not self._claims(ts)]
        for client in list(self._observed) if unclaimed else ():
            released = [key for key in unclaimed if key in self._observed[client]]
            self._forget_observations(released, client)
            cs = self._adapter.clients[client]
            self._let_go(keys=released, cs=cs, recommendations=recommendations)
            if not self._unreported:
                # After the messages of this transition: a failed task is reported as that first.
                self._adapter.call_soon(self._notify)
            self._unreported.setdefault(client, []).extend(released)

    def _notify(self) -> None:
        """Notify the clients of the observed tasks that were released."""
        unreported, self._unreported = self._unreported, {}
        for client, keys in unreported.items():
            self._adapter.report_cancelled(keys, RELEASED, None, client=client)

    def _forget_observations(self, keys: Iterable[Any], client: str) -> None:
        observed = self._observed.get(client)
        if observed is not None:
            observed.difference_update(keys)
            if not observed:
                del self._observed[client]

    # --- what a task is --------------------------------------------------------------

    def _claims(self, ts: DaskTaskState) -> list[ClientState]:
        """Return who wants a task and does not only observe it."""
        key, observed = ts.key, self._observed
        return [cs for cs in ts.who_wants or () if key not in observed.get(cs.client_key, ())]

    def _others(self, ts: DaskTaskState, client: str) -> set[str]:
        """Return whose claims keep a client from cancelling a task."""
        claims = {cs.client_key for cs in self._claims(ts)}
        if any(cs.client_key == client for cs in ts.who_wants or ()):
            claims -= {client, LEFT_CLAIMS}
            tracked = self._registry.get(ts.key)
            if tracked is not None and tracked.runs_to_end:
                claims.discard(FIRE_AND_FORGET)
        return claims

    def _is_call(self, ts: DaskTaskState) -> bool:
        tracked = self._registry.get(ts.key)
        return tracked is not None and not tracked.is_native

    def _is_finished(self, tracked: TrackedTask) -> bool:
        state = TaskState(self._ledger.columns["state"][tracked.row])
        return state.is_final or tracked.reason == RECOMPUTED

    @staticmethod
    def _has_outcome(ts: DaskTaskState | None) -> bool:
        """Return whether a task has or will have an outcome; Dask keeps some that will not."""
        return ts is not None and bool(ts.state != "released" or ts.who_wants or ts.waiters)

    def _with_dependents(
        self, keys: Iterable[Any], is_included: Callable[[DaskTaskState], bool]
    ) -> list[DaskTaskState]:
        found: dict[Any, DaskTaskState] = {}
        stack = [ts for key in keys if (ts := self._adapter.tasks.get(key)) is not None]
        while stack:
            ts = stack.pop()
            if ts.key not in found and is_included(ts):
                found[ts.key] = ts
                stack += ts.dependents
        return list(found.values())
