"""The wait of `%scalable resubmit`: what it prints, and that it can be interrupted."""

from __future__ import annotations

import io
from typing import Any

import pytest

from scalable_nb.errors import HostDiedError
from scalable_nb.magics import wait
from scalable_nb.magics.wait import WaitInterrupted, wait_for
from scalable_nb.widgets import progress as one_line
from scalable_nb.widgets.progress import count_line


class Step:
    """Stands in for a future that ends the n-th time somebody asks whether it is done."""

    def __init__(self, end: str, asks: int = 1) -> None:
        self.end, self.left = end, asks

    def done(self) -> bool:
        self.left -= 1
        return self.left <= 0

    @property
    def status(self) -> str:
        return "pending" if self.left > 0 else self.end


def alive() -> None:
    """A host that is well."""


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look without pause."""
    monkeypatch.setattr(wait, "_POLL_S", 0.0)
    monkeypatch.setattr(wait, "_PRINT_EVERY_S", 0.0)


def test_counts_are_printed_as_they_change() -> None:
    """One line, written over while it changes and ended at the end, never the same twice."""
    futures: list[Any] = [Step("finished"), Step("error", 3), Step("finished", 6)]
    stream = io.StringIO()
    wait_for(futures, stream, alive)
    assert stream.getvalue().split("\r") == [
        "",
        "1 of 3 done: 1 succeeded",
        "2 of 3 done: 1 succeeded, 1 failed",
        "3 of 3 done: 2 succeeded, 1 failed\n",
    ]


def test_shorter_text_leaves_nothing_of_the_longer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text covers the whole of the one before."""
    texts = iter(["a longer one", "short"])
    monkeypatch.setattr(one_line, "count_line", lambda futures: next(texts))
    stream = io.StringIO()
    wait_for([Step("finished", 2)], stream, alive)  # type: ignore[list-item]
    assert stream.getvalue() == "\ra longer one\rshort       \n"


def test_quiet_wait_prints_nothing() -> None:
    """Without a stream the wait is silent, and still waits."""
    future: Any = Step("finished", 5)
    wait_for([future], None, alive)
    assert future.status == "finished"


def test_nothing_to_wait_for_returns_at_once() -> None:
    """An empty list is done."""
    stream = io.StringIO()
    wait_for([], stream, alive)
    assert stream.getvalue() == "\r0 of 0 done\n"


def test_wait_ends_when_the_host_is_gone() -> None:
    """Futures that nobody will ever finish are not waited for."""

    def dead() -> None:
        raise HostDiedError("the host is gone")

    with pytest.raises(HostDiedError, match="the host is gone"):
        wait_for([Step("finished", 10**9)], None, dead)  # type: ignore[list-item]


def test_interrupt_ends_the_line() -> None:
    """What is printed after an interrupt begins on a line of its own."""
    asked = 0

    def interrupted_at_second_look() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise KeyboardInterrupt

    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        wait_for([Step("finished", 10**9)], stream, interrupted_at_second_look)  # type: ignore[list-item]
    assert stream.getvalue() == "\r0 of 1 done\n"


def test_interrupt_shows_a_sentence_in_place_of_frames() -> None:
    """IPython prints the sentence, and the cell counts as interrupted."""
    error = WaitInterrupted("stopped waiting")
    assert error._render_traceback_() == ["KeyboardInterrupt: stopped waiting"]
    assert isinstance(error, KeyboardInterrupt)


def test_large_numbers_and_all_endings_are_readable() -> None:
    """Every way in which a future can end is counted in words."""
    ends = ["finished"] * 1200 + ["error", "cancelled", "lost"]
    futures: list[Any] = [Step(end, 0) for end in ends] + [Step("finished", 9)]
    assert count_line(futures) == (
        "1,203 of 1,204 done: 1,200 succeeded, 1 failed, 1 cancelled, 1 lost"
    )
