"""The check that Dask has what is used of it: each entry removed, each parameter changed."""

from __future__ import annotations

import importlib
import inspect
import tomllib
from collections.abc import Iterator
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from types import CellType, FunctionType, SimpleNamespace
from typing import Any

import distributed
import pytest
from distributed.cli import dask_worker
from packaging.requirements import Requirement

from scalable_nb.dask_adapter import compatibility
from scalable_nb.dask_adapter.compatibility import (
    DASHBOARD,
    JOBS,
    NAMES,
    TESTED,
    WORKER_COMMAND,
    check,
    find_problem,
)
from scalable_nb.dask_adapter.scheduler import TASK_ERRED, SchedulerAdapter
from scalable_nb.errors import DaskVersionError
from scalable_nb.manifest.job_options import job_class
from scalable_nb.worker import command
from scalable_nb.worker.plugin import ScalableWorkerPlugin

ALL = (*NAMES, *DASHBOARD, *JOBS, *WORKER_COMMAND)


@pytest.fixture(scope="module", autouse=True)
def _jobqueue() -> None:
    job_class("slurm")  # its import replaces the handler of SIGINT, which this undoes


def place_of(name: str) -> tuple[Any, str, str]:
    """Owner and name of an attribute, and the dotted path to be named."""
    path = name.partition(" sets ")[0].partition("(")[0]
    module, _, attribute = path.partition(":")
    owner_path, _, last = attribute.rpartition(".")
    owner = importlib.import_module(module)
    if owner_path:
        owner = attrgetter(owner_path)(owner)
    return owner, last, f"{module}.{attribute}"


def remove(monkeypatch: pytest.MonkeyPatch, owner: Any, attribute: str) -> None:
    """Remove an attribute from a module, or from a class and what it inherits from."""
    classes = inspect.getmro(owner if inspect.isclass(owner) else type(owner))
    for holder in {owner, *classes}:
        if attribute in vars(holder):
            monkeypatch.delattr(holder, attribute)


def without_mention(function: Any, attribute: str) -> Any:
    """A function that sets another attribute instead of one."""
    code = inspect.unwrap(function).__code__
    names = tuple("other" if name == attribute else name for name in code.co_names)
    closure = tuple(CellType() for _ in code.co_freevars)
    return FunctionType(code.replace(co_names=names), {}, closure=closure)


def parameters() -> Iterator[tuple[str, str]]:
    """Each entry with each parameter that it lists."""
    for name in ALL:
        listed = name.partition("(")[2].rstrip(")")
        yield from ((name, each) for each in listed.split(", ") if each not in ("", "..."))


def without(function: Any, parameter: str) -> Any:
    """A function that lacks one parameter of another."""

    def changed() -> None:
        """Never called."""

    signature = inspect.signature(function)
    kept = [each for each in signature.parameters.values() if each.name != parameter]
    changed.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return changed


def with_further(function: Any) -> Any:
    """A function that requires one parameter more than another."""

    def changed() -> None:
        """Never called."""

    signature = inspect.signature(function)
    further = inspect.Parameter("further", inspect.Parameter.KEYWORD_ONLY)
    listed = list(signature.parameters.values())
    variable = [each for each in listed if each.kind is inspect.Parameter.VAR_KEYWORD]
    listed = [*(each for each in listed if each not in variable), further, *variable]
    changed.__signature__ = signature.replace(parameters=listed)  # type: ignore[attr-defined]
    return changed


def replace(monkeypatch: pytest.MonkeyPatch, name: str, change: Any, *args: Any) -> str:
    """Replace a function or class of an entry by a changed one; gives its dotted path."""
    owner, attribute, dotted = place_of(name)
    changed = change(getattr(owner, attribute), *args)
    monkeypatch.setattr(owner, attribute, changed)
    return dotted


def test_installed_dask_is_compatible() -> None:
    """All tables pass, including those of modules that are loaded late."""
    check(ALL)


def test_no_entry_is_listed_twice() -> None:
    """The tables name each attribute once."""
    assert len(set(ALL)) == len(ALL)


@pytest.mark.parametrize("name", ALL)
def test_removed_attribute_is_named_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is one line: the attribute, the version found, the versions tested."""
    owner, attribute, dotted = place_of(name)
    _, _, set_attribute = name.partition(" sets ")
    if set_attribute:
        replace(monkeypatch, name, without_mention, set_attribute)
        dotted = f"{dotted.rpartition('.')[0]}.{set_attribute}"
    else:
        remove(monkeypatch, owner, attribute)
    package = name.partition(".")[0]
    with pytest.raises(DaskVersionError) as caught:
        check(ALL)
    message = str(caught.value)
    distribution = package.replace("_", "-")
    version = metadata.version(distribution)
    assert f"{dotted} is missing in {distribution} {version}" in message
    assert f"{distribution}{TESTED[distribution]}" in message
    assert "\n" not in message


@pytest.mark.parametrize(("name", "parameter"), list(parameters()))
def test_removed_parameter_is_named(
    name: str, parameter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that takes a parameter no longer is named with it."""
    dotted = replace(monkeypatch, name, without, parameter)
    assert find_problem(name) == f"parameter {parameter!r} of {dotted} is missing"


@pytest.mark.parametrize(
    "name", [name for name in ALL if "(" in name and not name.endswith("...)")]
)
def test_new_required_parameter_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that requires a parameter that is never passed is named with it."""
    dotted = replace(monkeypatch, name, with_further)
    assert find_problem(name) == f"parameter 'further' of {dotted} is new and required"


def test_new_optional_parameter_is_compatible(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter that need not be passed does not matter."""

    def transitions(self: Any, recommendations: Any, stimulus_id: str, further: int = 0) -> None:
        """Never called."""

    monkeypatch.setattr(distributed.Scheduler, "transitions", transitions)
    check()


def test_removed_module_is_named() -> None:
    """A missing module is reported with the attribute that was to be imported from it."""
    assert find_problem("distributed.gone:Thing") == "distributed.gone.Thing is missing"


def test_worker_job_ends_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker environment with another Dask logs the problem and starts no worker."""
    monkeypatch.delattr(dask_worker, "_apportion_ports")
    with pytest.raises(
        SystemExit, match=r"^DaskVersionError: .*_apportion_ports is missing in .*$"
    ):
        command.main()


def test_worker_process_checks_before_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin that each worker process gets raises before it changes anything."""
    monkeypatch.delattr(distributed.Nanny, "instantiate")
    with pytest.raises(DaskVersionError, match=r"Nanny\.instantiate is missing"):
        ScalableWorkerPlugin("/", [], "/s", bytes(32)).setup(None)  # type: ignore[arg-type]


def test_message_that_dask_no_longer_sends_is_named() -> None:
    """A stream handler that the scheduler lacks is an error of the same kind."""
    scheduler: Any = SimpleNamespace(
        tasks={}, workers={}, clients={}, aliases={}, stream_handlers={}
    )
    with pytest.raises(DaskVersionError, match=r"handler of 'task-erred' is missing in dist"):
        SchedulerAdapter(scheduler).replace_stream_handler(TASK_ERRED, print)


def test_tested_versions_are_those_of_the_package() -> None:
    """The bounds in the message are those with which pip installs."""
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text())["project"]
    required = {each.name: each.specifier for each in map(Requirement, project["dependencies"])}
    for distribution, bounds in TESTED.items():
        assert required[distribution] == Requirement(f"{distribution}{bounds}").specifier


def test_check_costs_no_import() -> None:
    """At the start nothing is loaded that `import distributed` does not load."""
    loaded = {name.partition(":")[0] for name in NAMES}
    assert not loaded & {"distributed.cli.dask_worker", "distributed.dashboard.scheduler"}
    assert not any(name.startswith("dask_jobqueue") for name in loaded)
    assert compatibility.find_problem(NAMES[0]) == ""
