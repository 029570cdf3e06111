"""The one-line form in a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from scalable_nb.widgets import progress


class Step:
    """Stands in for a future that ends the n-th time somebody looks."""

    def __init__(self, end: str, looks: int = 1) -> None:
        self.end, self.left = end, looks

    @property
    def status(self) -> str:
        self.left -= 1
        return "pending" if self.left > 0 else self.end


def test_the_bar_goes_on_after_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """All futures are waited for, whatever became of the others, and the counts are told."""
    monkeypatch.setattr(progress, "_POLL_S", 0.0)
    futures: list[Any] = [Step("error"), Step("finished", 4), Step("cancelled", 2)]
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=False, width=120)
    progress.draw(futures, "sweep [red]", console)
    last = screen.getvalue().strip().splitlines()[-1]
    for word in ("sweep [red]", "3/3", "1 succeeded, 1 failed, 1 cancelled"):
        assert word in last
