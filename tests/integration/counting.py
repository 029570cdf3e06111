"""Functions that leave a mark on disk for every time they are called."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def mark(folder: Path, name: object) -> int:
    """Note a call; returns how many there were before."""
    path = folder / f"calls-{name}"
    with path.open("ab") as file:
        before = file.tell()
        file.write(b"x")
    return before


def calls(folder: Path, name: object) -> int:
    """How often `mark` was called under this name."""
    path = folder / f"calls-{name}"
    return path.stat().st_size if path.exists() else 0


def failing_first(folder: Path, times: int, error: type[Exception]) -> Callable[[Any], Any]:
    """A function that fails the first ``times`` times for each argument."""

    def function(x: Any) -> Any:
        if mark(folder, x) < times:
            raise error(f"attempt for {x}")
        return x * 2

    return function


def counted(
    folder: Path,
    name: str = "f",
    *,
    errors: Mapping[int, type[Exception]] | None = None,
    gate: str = "",
) -> Callable[[int], int]:
    """Return a function ``f(i) -> i * 10`` that counts its executions on disk.

    Parameters
    ----------
    folder : Path
    name : str
        Of the function, and of its counts.
    errors : mapping, optional
        Input -> what it raises until the file ``fixed`` exists.
    gate : str
        A call waits until a file of this name exists.
    """

    def function(i: int) -> int:
        mark(folder, f"{name}-{i}")
        while gate and not (folder / gate).exists():
            time.sleep(0.01)
        if errors and i in errors and not (folder / "fixed").exists():
            raise errors[i](f"number {i}")
        return i * 10

    function.__name__ = function.__qualname__ = name
    return function


def executions(folder: Path, inputs: Iterable[object], name: str = "f") -> list[int]:
    """Return how often a counted function was called for each input."""
    return [calls(folder, f"{name}-{i}") for i in inputs]
