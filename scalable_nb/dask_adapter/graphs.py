"""Graphs of our calls, and what a graph or a task contains.

`dask.delayed` and `Client.submit` build such graphs, but pack the function and its arguments in
their own way. Ours travel as opaque bytes that the scheduler does not unpickle. The links lead to
dask 2026.8.0.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from distributed import Future

with suppress(ImportError):  # `compatibility.check` reports it
    from dask._expr import LLGExpr
    from dask._task_spec import Alias, Task, parse_input
    from distributed.client import futures_of

__all__ = [
    "Task",
    "arguments_of",
    "expression_of",
    "input_keys_of",
    "keys_in",
    "make_task",
]


def make_task(
    key: Any, function: Callable[..., Any], *args: Any, inputs: Iterable[Future[Any]]
) -> Task:
    """Return a task that calls ``function(*args, *inputs)`` with the results of the inputs."""
    # https://github.com/dask/dask/blob/2026.8.0/dask/_task_spec.py#L636
    return Task(key, function, *args, *map(parse_input, inputs))


def expression_of(graph: Mapping[Any, Task]) -> LLGExpr:
    """Return a graph in the form that a client sends."""
    # Without a token Dask hashes all tasks.
    # https://github.com/dask/dask/blob/2026.8.0/dask/_expr.py#L962
    return LLGExpr(dict(graph), _determ_token=uuid.uuid4().hex)


def keys_in(expression: Any) -> set[Any]:
    """Return the keys of the tasks that a graph takes results of, and of its own."""
    graph = expression.__dask_graph__()
    return {key for task in graph.values() for key in getattr(task, "dependencies", ())} | {
        future.key for future in futures_of(list(graph.values()))
    }


def arguments_of(run_spec: Any) -> tuple[Any, ...]:
    """Return the positional arguments of a task; none if it calls no function."""
    args: tuple[Any, ...] = getattr(run_spec, "args", ())
    return args


def input_keys_of(run_spec: Any) -> list[Any]:
    """Return the keys of the inputs of a task that `make_task` made, in order."""
    # https://github.com/dask/dask/blob/2026.8.0/dask/_task_spec.py#L512
    return [part.target for part in arguments_of(run_spec) if isinstance(part, Alias)]
