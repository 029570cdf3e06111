"""Functions of the user's modules that are edited and reloaded while their results are held."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import cloudpickle
import pytest

from scalable_nb import ScalableSession

Write = Callable[[str], ModuleType]


@pytest.fixture
def write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into the working directory and imports, or reloads, it."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text: str) -> ModuleType:
        (folder / "edited_model.py").write_text(text)
        importlib.invalidate_caches()
        module = sys.modules.get("edited_model")
        return importlib.reload(module) if module else importlib.import_module("edited_model")

    yield write
    sys.modules.pop("edited_model", None)
    if "edited_model" in cloudpickle.list_registry_pickle_by_value():
        cloudpickle.unregister_pickle_by_value(ModuleType("edited_model"))


def test_a_reloaded_function_runs_its_new_code(
    start: Callable[..., ScalableSession], write: Write
) -> None:
    """Results that are held of the old code stay, and answer no call of the new one."""
    client = start().client
    module = write("def model(x):\n    return 12 / x\n")
    old = client.map(module.model, range(3))
    single = client.submit(module.model, 4)
    assert old.partial().results == [None, 12.0, 6.0]
    assert single.result(timeout=30) == 3.0
    module = write("def model(x):\n    return 120 / (x or 1)\n")
    assert client.map(module.model, range(3)).results() == [120.0, 120.0, 60.0]
    assert client.submit(module.model, 4).result(timeout=30) == 30.0
    assert old.partial().results == [None, 12.0, 6.0]


def test_code_that_is_replaced_in_place_is_new_code(
    start: Callable[..., ScalableSession], write: Write
) -> None:
    """As `%autoreload` does it: the function is the same object and has another code."""
    client = start().client
    function = write("def model(x):\n    return x + 1\n").model
    old = client.map(function, range(2))
    assert old.results() == [1, 2]
    function.__code__ = write("def model(x):\n    return x + 10\n").model.__code__
    assert client.map(function, range(2)).results() == [10, 11]


def test_a_reload_without_a_change_repeats_nothing(
    start: Callable[..., ScalableSession], write: Write
) -> None:
    """The same code has the same keys; comments and layout are no code."""
    client = start().client
    old = client.map(write("def model(x):\n    return x + 1\n").model, range(2))
    new = client.map(write("def model(x):\n    # one more\n    return x + 1\n").model, range(2))
    assert [future.key for future in new] == [future.key for future in old]
