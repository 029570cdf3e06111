"""Dask's scheduler as the host uses it, private interface included.

Dask offers no public way to delay, fail, move or hold back a single task, and none to replace
what the scheduler does with a message. The links lead to distributed 2026.8.0.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from time import time
from typing import Any, Final

from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin
from distributed.protocol import pickle as dask_pickle
from distributed.scheduler import ClientState, Scheduler, TaskState, WorkerState

from scalable_nb.dask_adapter.compatibility import incompatible
from scalable_nb.dask_adapter.rerun_transitions import rerun

Handler = Callable[..., Any]

#: Messages to the scheduler whose handlers the host replaces.
TASK_ERRED: Final = "task-erred"
LONG_RUNNING: Final = "long-running"
STEAL_RESPONSE: Final = "steal-response"
WORKER_STATUS_CHANGE: Final = "worker-status-change"
CLIENT_DESIRES_KEYS: Final = "client-desires-keys"
CLIENT_RELEASES_KEYS: Final = "client-releases-keys"
CANCEL_KEYS: Final = "cancel-keys"

#: Dask's own name, without a connection, that wants tasks until they have ended.
FIRE_AND_FORGET: Final = "fire-and-forget"


class SchedulerAdapter:
    """The scheduler of this process.

    Parameters
    ----------
    scheduler : distributed.Scheduler

    Attributes
    ----------
    tasks : dict of key to TaskState
    workers : dict of str to WorkerState
        By address.
    clients : dict of str to ClientState
        By name, including the names under which variables, queues and datasets hold tasks.
    aliases : dict of name to str
        Addresses of workers by their names.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        # The scheduler never replaces these dictionaries.
        self.tasks: dict[Any, TaskState] = scheduler.tasks
        self.workers: Mapping[str, WorkerState] = scheduler.workers
        self.clients: dict[str, ClientState] = scheduler.clients
        self.aliases: Mapping[Any, str] = scheduler.aliases

    @property
    def address(self) -> str:
        """The address that clients and workers connect to."""
        return self._scheduler.address

    @property
    def http_port(self) -> int:
        """The port of the HTTP pages."""
        port: int = self._scheduler.http_server.port  # type: ignore[attr-defined]
        return port

    # --- plugins and messages ----------------------------------------------------------

    def add_plugin(self, plugin: SchedulerPlugin) -> None:
        """Register a plugin of the scheduler."""
        self._scheduler.add_plugin(plugin)

    def remove_plugin(self, name: str) -> None:
        """Remove a plugin of the scheduler."""
        self._scheduler.remove_plugin(name)

    async def add_worker_plugin(self, plugin: WorkerPlugin, name: str) -> None:
        """Register a plugin for current and future workers."""
        # Public only on a client, which the host does not have. The same call as a client's.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L8130
        await self._scheduler.register_worker_plugin(
            comm=None, plugin=pickle.dumps(plugin), name=name, idempotent=True
        )

    def register_handlers(self, handlers: Mapping[str, Handler]) -> None:
        """Register functions that clients, workers and nannies call and await."""
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L4142
        self._scheduler.handlers.update(handlers)

    def register_stream_handlers(self, handlers: Mapping[str, Handler]) -> None:
        """Register functions for messages of clients and workers that expect no answer."""
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L4116
        self._scheduler.stream_handlers.update(handlers)

    def replace_stream_handler(self, message: str, handler: Handler) -> Handler:
        """Replace the handler of one of Dask's own messages and return the replaced one.

        Plugins learn of a message only by its effects: an attempt that failed with `retries`
        left, a task that left its thread and a released future have none.

        Raises
        ------
        DaskVersionError
            If Dask has no such message.
        """
        handlers = self._scheduler.stream_handlers
        if message not in handlers:
            raise incompatible("distributed", f"the scheduler's handler of {message!r} is missing")
        replaced: Handler = handlers[message]
        handlers[message] = handler
        return replaced

    def replace_want(self, handler: Handler) -> Handler:
        """Replace the function that makes a client want tasks; return the replaced one.

        Unlike the handler of the message, it also runs for graphs, variables, queues and datasets.
        """
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L5803
        replaced: Handler = self._scheduler.client_desires_keys
        self._scheduler.client_desires_keys = handler  # type: ignore[method-assign]
        self.replace_stream_handler(CLIENT_DESIRES_KEYS, handler)
        return replaced

    def replace_release(self, handler: Handler) -> Handler:
        """Replace the function that removes a client's interest in tasks; return the replaced one.

        Unlike the handler of the message, it also runs for variables, queues and datasets.
        """
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L3555
        replaced: Handler = self._scheduler._client_releases_keys
        self._scheduler._client_releases_keys = handler  # type: ignore[method-assign]
        return replaced

    def log_event(self, topic: str, message: Any) -> None:
        """Publish an event; clients that subscribed to the topic receive it."""
        self._scheduler.log_event(topic, message)

    # --- the event loop ----------------------------------------------------------------

    def call_soon(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function, or run a coroutine function, in the next turn of the event loop."""
        self._scheduler.loop.add_callback(function, *args)

    def call_later(
        self, delay_s: float, function: Callable[..., Any], *args: Any
    ) -> asyncio.TimerHandle:
        """Call a function after a delay."""
        loop: asyncio.AbstractEventLoop = self._scheduler.loop.asyncio_loop  # type: ignore[attr-defined]
        return loop.call_later(delay_s, function, *args)

    # --- tasks -------------------------------------------------------------------------

    def release(self, key: Any, cause: str) -> None:
        """Take a task back from its worker or queue; if it is still wanted, it is queued again."""
        # Public calls know cancelling (for good) and retrying (of failed tasks) only.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L8221
        self._scheduler.transitions({key: "released"}, _stimulus(cause))

    def fail(self, key: Any, error: Exception | bytes) -> None:
        """End a task with an error, given as an exception or as Dask pickled it."""
        ts = self.tasks[key]
        pickled: Any = error if isinstance(error, bytes) else dask_pickle.dumps(error)
        text = "" if isinstance(error, bytes) else repr(error)
        values: dict[str, Any] = {}
        if ts.state in ("waiting", "released"):
            # From there Dask takes no error, it looks for that of the task to blame.
            # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L2606
            ts.exception, ts.exception_text, ts.exception_blame = pickled, text, ts
        else:
            values = {
                "exception": pickled,
                "cause": key,
                "exception_text": text,
                "traceback_text": "",
            }
        stimulus = _stimulus("fail")
        recommendations = self._scheduler.transition(key, "erred", stimulus_id=stimulus, **values)
        self._scheduler.transitions(recommendations, stimulus)
        self._scheduler.stimulus_queue_slots_maybe_opened(stimulus_id=stimulus)

    def rerun(self, keys: Iterable[Any]) -> None:
        """Run failed tasks again, and what had failed because of them; see `rerun`."""
        rerun(self._scheduler, keys)

    def fill_slots(self) -> None:
        """Send queued tasks to workers with idle threads.

        Dask does it after each message of a worker, but not when a task goes to ``no-worker``.
        """
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L5361
        self._scheduler.stimulus_queue_slots_maybe_opened(stimulus_id=_stimulus("park"))

    def resources_of(self, key: Any) -> dict[str, float] | None:
        """Return the resources that a task requires of its worker."""
        return self.tasks[key].resource_restrictions

    def require_resources(self, key: Any, resources: dict[str, float] | None) -> None:
        """Set the resources that a task requires of its worker.

        Call it only while the task is not ``processing``: when a task leaves its worker, the
        scheduler subtracts what it requires then from what the worker has in use.
        """
        # Public only on submission. `Scheduler.set_restrictions` sets workers, not resources.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L3266
        self.tasks[key].resource_restrictions = resources

    def follow_worker(self, ws: WorkerState, former: Collection[str]) -> None:
        """Let tasks that were to run on a worker run on the new process of that worker.

        Dask resolves the name of a worker when a task is submitted. It takes a name that it does
        not know then, as of a worker that is restarting, for that of a machine.

        Parameters
        ----------
        ws : WorkerState
            The new process.
        former : collection of str
            Addresses of its earlier processes.
        """
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L5285
        name = str(ws.name)
        for ts in self.tasks.values():
            workers, hosts = ts.worker_restrictions or set(), ts.host_restrictions or set()
            if name in hosts or not workers.isdisjoint(former):
                ts.worker_restrictions = workers.difference(former) | {ws.address}
                ts.host_restrictions = hosts - {name} or None

    def forget_losses(self, ts: TaskState) -> None:
        """Reset how many workers were lost while they executed a task.

        Dask counts them in ``suspicious`` and never resets it, so that a resubmitted task would
        be killed by its first loss.
        """
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L5638
        ts.suspicious = 0

    def blamed_for(self, key: Any) -> Any:
        """Return the key of the task whose error a failed task has, or None."""
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L1328
        blame = self.tasks[key].exception_blame
        return None if blame is None else blame.key

    def count_runnable(self) -> int:
        """Return how many tasks are on workers or could run if there were a worker."""
        # `Scheduler.adaptive_target` returns workers of one kind, not tasks.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L1763
        on_workers = sum(len(ws.processing) for ws in self.workers.values())
        return on_workers + len(self._scheduler.queued) + len(self._scheduler.unrunnable)

    # --- clients -----------------------------------------------------------------------

    def has_clients(self) -> bool:
        """Return whether any client is connected."""
        # `Scheduler.clients` also holds names without connection.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L4078
        return bool(self._scheduler.client_comms)

    def hold(self, tasks: Iterable[TaskState], name: str) -> None:
        """Make a client without a connection want tasks, so that the scheduler keeps them."""
        # `Scheduler.client_desires_keys` also reports the tasks to all other clients.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L5803
        cs = self.clients.setdefault(name, ClientState(name))
        for ts in tasks:
            if ts.who_wants is None:
                ts.who_wants = set()
            ts.who_wants.add(cs)
            cs.wants_what.add(ts)

    def let_go(self, keys: Iterable[Any], name: str) -> None:
        """End what `hold` did for these tasks."""
        self._scheduler.client_releases_keys(list(keys), client=name)

    def send_to_client(self, client: str, message: dict[str, Any]) -> None:
        """Send a client a message, in order with the states of its tasks."""
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L5861
        self._scheduler.report(message, client=client)

    def release_all_results(self) -> None:
        """Make no client want anything."""
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L5824
        for client, cs in list(self.clients.items()):
            self._scheduler.client_releases_keys([ts.key for ts in cs.wants_what], client=client)

    def report_cancelled(
        self, keys: list[Any], reason: str | None, message: str | None, client: str | None = None
    ) -> None:
        """Notify a client, or all of them, that tasks were cancelled."""
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L5861
        self._scheduler.report(
            {"op": "cancelled-keys", "keys": keys, "reason": reason, "msg": message},
            client=client,
        )

    # --- workers -----------------------------------------------------------------------

    def pause_worker(self, worker: str, cause: str) -> None:
        """Send no more tasks to a worker."""
        # A worker pauses itself for lack of memory; no public call does.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L6097
        self._scheduler.handle_worker_status_change("paused", worker, _stimulus(cause))

    def resume_worker(self, worker: str, cause: str) -> None:
        """Send tasks to a paused worker again, and tell it so."""
        stimulus = _stimulus(cause)
        if worker in self._scheduler.stream_comms:
            self._scheduler.stream_comms[worker].send(
                {"op": WORKER_STATUS_CHANGE, "status": "running", "stimulus_id": stimulus}
            )
        self._scheduler.handle_worker_status_change("running", worker, stimulus)

    def request_return(self, worker: str, key: Any, cause: str) -> bool:
        """Request a task back that a worker may not have started; return whether it was sent.

        The answer is a message `STEAL_RESPONSE`. Only work stealing asks so, and it chooses
        tasks and workers by itself.
        """
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/stealing.py#L334
        comm = self._scheduler.stream_comms.get(worker)
        if comm is None:
            return False
        comm.send({"op": "steal-request", "key": key, "stimulus_id": _stimulus(cause)})
        return True

    def send_to_worker(self, worker: str, message: dict[str, Any]) -> None:
        """Send a worker a message for one of its stream handlers, if it is connected."""
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L6271
        if worker in self.workers:
            self._scheduler.worker_send(worker, message)

    def call_nanny(self, nanny: str, handler: str, **values: Any) -> Awaitable[Any]:
        """Call a handler of the nanny with this address."""
        called: Awaitable[Any] = getattr(self._scheduler.rpc(nanny), handler)(**values)
        return called

    async def run_on_worker(self, worker: str, function: Callable[..., Any], *args: Any) -> None:
        """Run a function on a worker; its result stays there, and errors are ignored.

        `Client.run` unpickles results, which are the user's objects.
        """
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/scheduler.py#L6657
        message = {"op": "run", "function": pickle.dumps(function), "args": pickle.dumps(args)}
        await self._scheduler.broadcast(msg=message, workers=[worker], on_error="ignore")

    def close_worker(self, worker: str) -> None:
        """Close a worker and its nanny as soon as the worker is connected."""
        # Retiring removes the worker at once, which fails while it registers.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/worker.py#L692
        self.send_to_worker(worker, {"op": "close", "reason": "scalable-refused"})

    async def retire(self, workers: Collection[str]) -> set[str]:
        """Close workers after moving their results to others; return those that were closed."""
        retired = await self._scheduler.retire_workers(workers=list(workers), close_workers=True)
        return set(retired)


def _stimulus(cause: str) -> str:
    """Return an identifier for Dask's log of transitions."""
    return f"scalable-{cause}-{time()}"
