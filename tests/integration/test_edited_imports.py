"""Edits, during a session, of modules that functions import by name."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pytest

from scalable_nb import ScalableSession, cacheable
from scalable_nb.cache.store import ResultStore
from scalable_nb.client.user_code import kernel_sources

Start = Callable[..., ScalableSession]


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo the imports and registrations of a test."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(kernel_sources, "_imported", {})
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]
        if name in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.unregister_pickle_by_value(ModuleType(name))


def write(folder: Path, factor: int) -> None:
    """Write the module that the functions import."""
    (folder / "helper.py").write_text(f"def scale(x):\n    return {factor} * x\n")
    importlib.invalidate_caches()


@cacheable
def cached(x: int) -> Any:
    """Import the module inside the function."""
    import helper  # type: ignore[import-not-found]

    return helper.scale(x)


def gated(x: int, gate: str) -> tuple[Any, int]:
    """Import the module once the gate exists."""
    import time

    while not os.path.exists(gate):  # noqa: PTH110
        time.sleep(0.02)
    import helper

    return helper.scale(x), os.getpid()


def test_workers_import_what_the_key_was_made_from(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit changes nothing in a run and everything in the next; no wrong result is stored."""
    monkeypatch.syspath_prepend(folder)
    write(folder, 2)
    session = start()
    client = session.client
    gate = folder / "gate"
    first = client.map(gated, range(4), gate=str(gate))
    write(folder, 50)
    gate.touch()
    assert [value for value, _ in first.results()] == [0, 2, 4, 6]
    assert client.map(cached, [3, 4]).results() == [150, 200]
    second = client.map(gated, range(4, 8), gate=str(gate)).results()
    assert [value for value, _ in second] == [200, 250, 300, 350]
    assert {pid for _, pid in first.results()}.isdisjoint(pid for _, pid in second)
    assert [value for value, _ in first.results()] == [0, 2, 4, 6]  # held by the old processes
    assert session.failures() == []
    write(folder, 2)
    assert client.map(cached, [3, 4]).results() == [6, 8]


def test_an_edit_of_a_reloaded_module_elsewhere_reaches_the_workers(
    start: Start, folder: Path, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Workers compute with the kernel's version of `../src`, stale or reloaded."""
    src = tmp_path_factory.mktemp("src")
    client = start().client
    monkeypatch.syspath_prepend(src)
    write(src, 2)
    helper = importlib.import_module("helper")

    @cacheable
    def by_value(x: int) -> Any:
        return helper.scale(x)

    def results() -> list[Any]:
        return [client.submit(function, 3).result(timeout=30) for function in (by_value, cached)]

    assert results() == [6, 6]
    write(src, 70)
    with pytest.warns(kernel_sources.StaleModuleWarning):
        assert results() == [6, 6]
    importlib.reload(helper)
    assert results() == [210, 210]


def test_a_lasting_difference_costs_one_process_per_worker(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are returned and not stored, with one notice."""
    write(folder, 2)
    (folder / "sitecustomize.py").write_text("import helper\n")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    session = start()
    client = session.client
    monkeypatch.syspath_prepend(folder)
    write(folder, 50)
    results = client.map(gated, range(40), gate=str(folder)).results()
    assert [value for value, _ in results] == [50 * x for x in range(40)]
    assert len({pid for _, pid in results}) <= 2
    assert client.submit(cached, 3).result(timeout=30) == 150
    key = cached.call_keys().key((3,), {})
    assert ResultStore(client.context.cache_dir).contained({key}) == set()
    functions = sorted(notice.partition(":")[0] for notice in session.status().notices)
    assert functions == ["cached", "gated"]
