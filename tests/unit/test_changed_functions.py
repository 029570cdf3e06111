"""A notice names recorded functions only if they would run other code now."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from scalable_nb.cache.hashing.function_identity import identity_of
from scalable_nb.client.call_log import RecordedBatch, RecordedTask
from scalable_nb.resubmission.changed_functions import changed_functions

IMPORTING = "def weigh(x):\n    import balance\n    return balance.pounds(x)\n"


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return a function that runs a cell that defines `weigh` in ``__main__``."""
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "weigh", None, raising=False)

    def run(source: str) -> Any:
        scope: dict[str, Any] = {"__name__": "__main__"}
        exec(source, scope)
        monkeypatch.setattr(main, "weigh", scope["weigh"])
        return scope["weigh"]

    return run


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on `sys.path`."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def recorded(function: Any, modules: tuple[str, bytes] = ("", b"")) -> RecordedTask:
    """The task that a submission of the function records."""
    batch = RecordedBatch("b1", "sweep", "weigh", identity=identity_of(function).hex())
    pickled = cloudpickle.dumps(function)
    return RecordedTask("k1", batch, pickled, b"", modules, b"", "", (), "1")


def test_a_function_that_is_the_same_is_not_named(cell: Callable[[str], Any]) -> None:
    """A cell that was only run again changes nothing."""
    task = recorded(cell("def weigh(x):\n    return x\n"))
    cell("def weigh(x):\n    return x\n")
    assert changed_functions([task]) == {}


def test_a_function_that_was_edited_is_named(cell: Callable[[str], Any]) -> None:
    """The notice has the option that runs the new code."""
    task = recorded(cell("def weigh(x):\n    return x\n"))
    cell("def weigh(x):\n    return 2 * x\n")
    assert "`func=weigh`" in changed_functions([task])["weigh"]


def test_a_module_that_was_missing_is_no_change(beside: Path, cell: Callable[[str], Any]) -> None:
    """The recorded function imports the module that was written since, as the current one does."""
    task = recorded(cell(IMPORTING))
    (beside / "balance.py").write_text("def pounds(x):\n    return 2.2 * x\n")
    importlib.invalidate_caches()
    assert changed_functions([task]) == {}


def test_a_recorded_module_that_was_edited_is_a_change(
    beside: Path, cell: Callable[[str], Any]
) -> None:
    """The recorded function runs with the source that was recorded."""
    (beside / "balance.py").write_text("def pounds(x):\n    return 2 * x\n")
    task = recorded(cell(IMPORTING), modules=("digest", b"sources"))
    (beside / "balance.py").write_text("def pounds(x):\n    return 2.2 * x\n")
    importlib.invalidate_caches()
    assert list(changed_functions([task])) == ["weigh"]
