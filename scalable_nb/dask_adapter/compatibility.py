"""Checks at the start of kernel, host and workers that Dask has what this package uses of it.

Private API has no deprecation policy. A release that moved something must not end in an
`AttributeError` deep in a handler, hours after the start.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from importlib import metadata
from operator import attrgetter
from typing import Any, Final

from scalable_nb.errors import DaskVersionError

#: Releases on which everything was verified, by distribution; as in ``pyproject.toml``.
TESTED: Final = {
    "dask": ">=2026.8.0,<2027",
    "distributed": ">=2026.8.0,<2027",
    "dask-jobqueue": ">=0.9",
    "tornado": ">=6.4",
}

_VARIABLE: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

# Each table lists attributes as `module:attribute`. In parentheses are the parameters that are
# passed to a function, or that an override of it takes; it may require no others, unless the list
# ends with `...`. Instance attributes are listed with the method that sets them.

_CLIENT: Final = (
    "dask._expr:LLGExpr(_determ_token)",
    "dask._expr:LLGExpr.__dask_graph__()",
    "dask._task_spec:Task(key, func)",
    "dask._task_spec:Task.args",
    "dask._task_spec:Task.dependencies",
    "dask._task_spec:Task.func",
    "dask._task_spec:Alias.target",
    "dask._task_spec:parse_input(obj)",
    "distributed.client:Client.__init__ sets _refcount_lock",
    "distributed.client:Client.__init__ sets _stream_handlers",
    "distributed.client:Client.__init__ sets futures",
    "distributed.client:Client._close(fast)",
    "distributed.client:Client._gather(futures, errors, direct, local_worker)",
    "distributed.client:Client._graph_to_futures(expr, keys, span_metadata, workers, "
    "allow_other_workers, internal_priority, user_priority, resources, fifo_timeout)",
    "distributed.client:Client._handle_cancelled_keys(keys, reason, msg)",
    "distributed.client:Client._publish_dataset()",
    "distributed.client:Client._reconnect()",
    "distributed.client:Client._release_key(key)",
    "distributed.client:Client._send_to_scheduler(msg)",
    "distributed.client:Client._start()",
    "distributed.client:Future.__init__ sets _state",
    "distributed.client:Future._exception()",
    "distributed.client:Future._result()",
    "distributed.client:FutureState(key)",
    "distributed.client:FutureState._event",
    "distributed.client:FutureState._get_event()",
    "distributed.client:FutureState.cancel(reason, msg)",
    "distributed.client:FutureState.done()",
    "distributed.client:FutureState.finish()",
    "distributed.client:FutureState.retry()",
    "distributed.client:FutureState.set_error(exception, traceback)",
    "distributed.client:FutureState.status",
    "distributed.client:FutureState.wait()",
    "distributed.client:SpanMetadata",
    "distributed.client:_wait(fs, timeout, return_when)",
    "distributed.client:futures_of(o)",
    "distributed.queues:QueueExtension.put(key)",
    "distributed.variable:VariableExtension.set(key)",
)

_SCHEDULER: Final = (
    "distributed.comm.tcp:BaseTCPListener.__init__ sets tcp_server",
    "distributed.core:Server.__init__ sets handlers",
    "distributed.core:Server.__init__ sets listeners",
    "distributed.core:Server.__init__ sets rpc",
    "distributed.core:Server.__init__ sets stream_handlers",
    "distributed.http.routing:RoutingApplication.find_handler(request)",
    "distributed.node:ServerNode.start_http_server sets http_application",
    "distributed.node:ServerNode.start_http_server sets http_server",
    "distributed.scheduler:ClientState(client)",
    "distributed.scheduler:ClientState.client_key",
    "distributed.scheduler:ClientState.wants_what",
    "distributed.scheduler:Scheduler.__init__ sets client_comms",
    "distributed.scheduler:Scheduler.__init__ sets stream_comms",
    "distributed.scheduler:Scheduler._client_releases_keys(keys, cs, recommendations)",
    "distributed.scheduler:Scheduler.broadcast(msg, workers, on_error)",
    "distributed.scheduler:Scheduler.client_desires_keys(keys, client)",
    "distributed.scheduler:Scheduler.client_releases_keys(keys, client)",
    "distributed.scheduler:Scheduler.handle_long_running(key, worker, ...)",
    "distributed.scheduler:Scheduler.handle_task_erred(key, ...)",
    "distributed.scheduler:Scheduler.handle_worker_status_change(status, worker, stimulus_id)",
    "distributed.scheduler:Scheduler.register_worker_plugin(comm, plugin, name, idempotent)",
    "distributed.scheduler:Scheduler.report(msg, client)",
    "distributed.scheduler:Scheduler.retire_workers(workers, close_workers)",
    "distributed.scheduler:Scheduler.stimulus_cancel(keys, client, ...)",
    "distributed.scheduler:Scheduler.stimulus_queue_slots_maybe_opened(stimulus_id)",
    "distributed.scheduler:Scheduler.transition(key, finish, stimulus_id)",
    "distributed.scheduler:Scheduler.transitions(recommendations, stimulus_id)",
    "distributed.scheduler:Scheduler.worker_send(worker, msg)",
    "distributed.scheduler:SchedulerState.aliases",
    "distributed.scheduler:SchedulerState.clients",
    "distributed.scheduler:SchedulerState.queued",
    "distributed.scheduler:SchedulerState.tasks",
    "distributed.scheduler:SchedulerState.unrunnable",
    "distributed.scheduler:SchedulerState.workers",
    "distributed.scheduler:TaskState.exception",
    "distributed.scheduler:TaskState.exception_blame",
    "distributed.scheduler:TaskState.exception_text",
    "distributed.scheduler:TaskState.get_nbytes()",
    "distributed.scheduler:TaskState.host_restrictions",
    "distributed.scheduler:TaskState.processing_on",
    "distributed.scheduler:TaskState.resource_restrictions",
    "distributed.scheduler:TaskState.run_id",
    "distributed.scheduler:TaskState.run_spec",
    "distributed.scheduler:TaskState.state",
    "distributed.scheduler:TaskState.suspicious",
    "distributed.scheduler:TaskState.waiters",
    "distributed.scheduler:TaskState.waiting_on",
    "distributed.scheduler:TaskState.who_wants",
    "distributed.scheduler:TaskState.worker_restrictions",
    "distributed.scheduler:WorkerState.processing",
    "distributed.scheduler:WorkerState.server_id",
    "distributed.stealing:WorkStealing.move_task_confirm(key, state, stimulus_id, worker)",
    "distributed.worker_state_machine:TaskErredMsg.run_id",
    "tornado.http1connection:HTTP1Connection.__init__ sets stream",
    "tornado.tcpserver:TCPServer.__init__ sets _handlers",
    "tornado.tcpserver:TCPServer.__init__ sets _sockets",
    "tornado.tcpserver:TCPServer._handle_connection(connection, address)",
)

_CLUSTER_AND_WORKERS: Final = (
    "distributed.core:Server.__init__ sets periodic_callbacks",
    "distributed.deploy.spec:ProcessInterface.__init__ sets _event_finished",
    "distributed.deploy.spec:SpecCluster.__init__ sets worker_spec",
    "distributed.deploy.spec:SpecCluster.__init__ sets workers",
    "distributed.deploy.spec:SpecCluster._correct_state()",
    "distributed.nanny:Nanny.__init__ sets memory_manager",
    "distributed.nanny:Nanny._on_worker_exit(exitcode)",
    "distributed.nanny:Nanny._on_worker_exit_sync(exitcode)",
    "distributed.nanny:Nanny.close(timeout, reason)",
    "distributed.nanny:Nanny.close_gracefully(reason)",
    "distributed.nanny:Nanny.instantiate()",
    "distributed.nanny:Nanny.kill(timeout, reason)",
    "distributed.nanny:Nanny.log_event(topic, msg)",
    "distributed.nanny:Nanny.pid",
    "distributed.worker:Worker.__init__ sets memory_manager",
    "distributed.worker:Worker.__init__ sets metrics",
    "distributed.worker:Worker.batched_send(msg)",
    "distributed.worker_memory:NannyMemoryManager.__init__ sets _last_terminated_pid",
    "distributed.worker_memory:NannyMemoryManager.__init__ sets memory_limit",
    "distributed.worker_memory:WorkerMemoryManager.__init__ sets memory_limit",
    "distributed.worker_state_machine:BaseWorker.__init__ sets state",
    "distributed.worker_state_machine:TaskState.annotations",
    "distributed.worker_state_machine:TaskState.metadata",
    "distributed.worker_state_machine:TaskState.run_id",
    "distributed.worker_state_machine:TaskState.state",
    "distributed.worker_state_machine:WorkerState.tasks",
)

#: What `import distributed` loads.
NAMES: Final = (*_CLIENT, *_SCHEDULER, *_CLUSTER_AND_WORKERS)

# Of modules that are loaded where they are used only.
DASHBOARD: Final = (
    "distributed.dashboard.scheduler:connect(application, http_server, scheduler, prefix)",
)
JOBS: Final = (
    "dask_jobqueue.core:Job.close()",
    "dask_jobqueue.core:Job.job_file()",
    "dask_jobqueue.core:Job.job_script()",
    "dask_jobqueue.core:Job.start()",
    "dask_jobqueue.core:Job.submit_command",
)
WORKER_COMMAND: Final = (
    "distributed.cli.dask_worker:_apportion_ports(worker_port, nanny_port, n_workers, nanny)",
    "distributed.cli.dask_worker:main.callback(scheduler, host, listen_address, nanny_port, "
    "n_workers, name, nthreads, resources, tls_ca_file, tls_cert, tls_key, worker_port, ...)",
    "distributed.cli.dask_worker:main.make_context(info_name, args)",
)


def check(names: Iterable[str] = NAMES) -> None:
    """Check that Dask has the attributes and parameters of a table.

    Parameters
    ----------
    names : iterable of str

    Raises
    ------
    DaskVersionError
        If one is missing; names the first.
    """
    for name in names:
        problem = find_problem(name)
        if problem:
            raise incompatible(name.partition(":")[0], problem)


def incompatible(module: str, problem: str) -> DaskVersionError:
    """Return the error for a change of a module of Dask: problem, version, tested versions."""
    package = module.partition(".")[0]
    distribution = package.replace("_", "-")
    found = metadata.version(distribution)
    tested = f"{distribution}{TESTED[distribution]}"
    return DaskVersionError(
        f"{problem} in {distribution} {found}; tested with {tested}: run `pip install '{tested}'`"
    )


def find_problem(name: str) -> str:
    """Return what is wrong with an entry of a table, without the version; empty if nothing is."""
    path, _, set_attribute = name.partition(" sets ")
    path, _, parameters = path.partition("(")
    module, _, attribute = path.partition(":")
    dotted = f"{module}.{attribute}"
    try:
        found = attrgetter(attribute)(importlib.import_module(module))
    except (ImportError, AttributeError):
        return f"{dotted} is missing"
    if set_attribute:
        # Only instances have it: the names in the method's code must do.
        is_set = set_attribute in inspect.unwrap(found).__code__.co_names
        owner = dotted.rpartition(".")[0]
        return "" if is_set else f"{owner}.{set_attribute} is missing"
    return _find_changed_parameter(dotted, found, parameters) if "(" in name else ""


def _find_changed_parameter(dotted: str, function: Callable[..., Any], listed: str) -> str:
    expected = [name for name in listed.rstrip(")").split(", ") if name]
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop("self", None)
    for name in expected:
        if name not in parameters and name != "...":
            return f"parameter {name!r} of {dotted} is missing"
    if "..." in expected:
        return ""
    for name, parameter in parameters.items():
        is_optional = parameter.default is not parameter.empty or parameter.kind in _VARIABLE
        if name not in expected and not is_optional:
            return f"parameter {name!r} of {dotted} is new and required"
    return ""
