"""Private API of Dask is used in `scalable_nb.dask_adapter` only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from distributed import Client, Nanny

import scalable_nb
from scalable_nb.client.client import ScalableClient
from scalable_nb.dask_adapter.client_hooks import ClientHooks
from scalable_nb.dask_adapter.compatibility import DASHBOARD, JOBS, NAMES, WORKER_COMMAND
from scalable_nb.dask_adapter.worker_hooks import NannyHooks
from scalable_nb.worker.nanny import ScalableNanny

PACKAGE: Final = Path(scalable_nb.__file__).parent

#: Names of the compatibility check that are documented by Dask, or are words that our own classes
#: use too. The others are Dask's alone.
ORDINARY: Final = {
    # Documented: attributes of tasks, clients and workers that plugins get.
    "ClientState", "aliases", "annotations", "client_key", "clients", "exception", "get_nbytes",
    "metadata", "metrics", "processing", "processing_on", "run_id", "run_spec", "server_id",
    "state", "tasks", "waiters", "waiting_on", "wants_what", "who_wants", "workers",
    # Documented: of clients, futures and graphs.
    "__dask_graph__", "args", "dependencies", "done", "func", "futures", "futures_of", "status",
    "target",
    # Documented: of scheduler, clusters, nannies and jobs.
    "close", "close_gracefully", "handlers", "instantiate", "job_file", "job_script", "kill",
    "log_event", "memory_limit",
    "memory_manager", "pid", "start", "submit_command", "transition", "worker_spec",
    # Names in our own classes, too.
    "_exception", "_handlers", "_start", "_state", "callback", "cancel", "connect", "finish", "put",
    "queued", "report", "retry", "rpc", "set", "Task", "wait",
}  # fmt: skip

#: Private attributes of other packages, each with a reason where it is used.
OTHERS: Final = {
    "_config",  # plotly
    "_reply_subshell_for",  # ipykernel
    "_repr_mimebundle_",  # IPython
    "_send_relayout_msg",  # plotly
}


def modules() -> list[Path]:
    """All modules outside the room."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "dask_adapter"]


def checked_names() -> set[str]:
    """Names of the attributes in the tables of the compatibility check."""
    names = set()
    for entry in (*NAMES, *DASHBOARD, *JOBS, *WORKER_COMMAND):
        path, _, set_attribute = entry.partition(" sets ")
        names.add(set_attribute or path.partition("(")[0].rpartition(":")[2].rpartition(".")[2])
    return names


def used_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of attributes, imports and functions, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("d"):
            yield from ((alias.name, node.lineno) for alias in node.names)


def defined_names(tree: ast.AST) -> set[str]:
    """Names that a module gives to functions and attributes itself."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.AST]:
    """The syntax trees of all modules outside the room."""
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in modules()}


def test_no_module_imports_private_modules_of_dask(trees: dict[str, ast.AST]) -> None:
    """`dask._expr` and its like are imported in the room only."""
    found = [
        f"{path}:{node.lineno} {module}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        for module in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        if module.startswith(("dask", "distributed")) and "._" in module
    ]
    assert found == []


def test_no_module_uses_names_of_the_compatibility_check(trees: dict[str, ast.AST]) -> None:
    """Names that the check lists as private are used in the room only."""
    private = checked_names() - ORDINARY
    found = [
        f"{path}:{line} {name}"
        for path, tree in trees.items()
        for name, line in used_names(tree)
        if name in private
    ]
    assert found == []


def test_no_module_uses_private_attributes_of_others(trees: dict[str, ast.AST]) -> None:
    """Each attribute with an underscore is defined in this package."""
    own = OTHERS.union(*map(defined_names, trees.values()))
    found = [
        f"{path}:{node.lineno} {node.attr}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        if node.attr.startswith("_") and not node.attr.startswith("__") and node.attr not in own
    ]
    assert found == []


@pytest.mark.parametrize(
    ("ours", "hooks", "dask"),
    [(ScalableClient, ClientHooks, Client), (ScalableNanny, NannyHooks, Nanny)],
)
def test_subclasses_override_public_hooks_only(ours: type, hooks: type, dask: type) -> None:
    """Only the room overrides private methods, and a hook is no method of Dask."""
    private = {name for name in dir(dask) if name.startswith("_") and not name.endswith("_")}
    assert issubclass(ours, hooks)
    assert private.isdisjoint(vars(ours))
    assert {name for name in vars(hooks) if not name.startswith("_")}.isdisjoint(dir(dask))


def test_ordinary_names_are_all_checked() -> None:
    """The list of exceptions has no entry that means nothing."""
    assert checked_names() >= ORDINARY
