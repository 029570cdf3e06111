"""Functions that leave a mark on disk for every time they are called."""

from __future__ import annotations

from collections.abc import Callable
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
