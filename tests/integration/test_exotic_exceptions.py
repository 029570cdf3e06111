"""Whatever a task raises is recorded and delivered, and `result()` never hangs."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from scalable_nb import ScalableSession, errors

_CAP_CHARS = 100_000


class TwoArguments(Exception):
    """Cannot be made again from its ``args``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


class WithLock(Exception):
    """Holds what cannot be pickled."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class WithSocket(Exception):
    """Holds a connection, as those of database drivers do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.connection = socket.socket()


class Speechless(Exception):
    """Cannot be written as text."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Treacherous(Exception):
    """Can be pickled, and fails when it is unpickled."""

    def __reduce__(self) -> Any:
        return _explode, ()


class Heavy(Exception):
    """Drags 50 MB of data along."""

    def __init__(self) -> None:
        super().__init__("heavy")
        self.data = bytes(50_000_000)


def _explode() -> None:
    raise ZeroDivisionError("while it was unpickled")


def raise_it(make: Callable[[], BaseException]) -> None:
    """Raise what is made on the worker."""
    raise make()


def chained() -> BaseException:
    """An error whose cause cannot travel."""
    error = ValueError("the outer one")
    error.__cause__ = WithLock("the inner one")
    error.add_note("a note")
    return error


SUBSTITUTES: list[tuple[Callable[[], BaseException], str]] = [
    (lambda: TwoArguments(7, "no seat"), "TwoArguments"),
    (lambda: WithLock("locked"), "WithLock"),
    (lambda: WithSocket("connected"), "WithSocket"),
    (Speechless, "Speechless"),
    (Treacherous, "Treacherous"),
    (Heavy, "Heavy"),
    (lambda: SystemExit(3), "SystemExit"),
    (KeyboardInterrupt, "KeyboardInterrupt"),
    (GeneratorExit, "GeneratorExit"),
    (asyncio.CancelledError, "CancelledError"),
    (lambda: BaseExceptionGroup("all at once", [KeyboardInterrupt()]), "BaseExceptionGroup"),
]
THEMSELVES: list[tuple[Callable[[], BaseException], type[Exception], str]] = [
    (chained, ValueError, "the outer one"),
    (lambda: ExceptionGroup("two", [ValueError("a"), KeyError("b")]), ExceptionGroup, "two"),
    (lambda: OSError(28, "No space left on device", "out.nc"), OSError, "out.nc"),
    (lambda: KeyError(("a", 1)), KeyError, "'a', 1"),
    (lambda: RuntimeError("\ud800 \x00 \x1b[31m"), RuntimeError, "31m"),
]


@pytest.mark.parametrize(("make", "name"), SUBSTITUTES, ids=[name for _, name in SUBSTITUTES])
def test_what_cannot_be_pickled_has_a_substitute(
    shared_session: ScalableSession, make: Callable[[], BaseException], name: str
) -> None:
    """Type name and traceback arrive; `except RemoteError` catches it; it is on record."""
    future = shared_session.client.submit(raise_it, make)
    with pytest.raises(errors.RemoteError) as caught:
        future.result(timeout=60)
    assert caught.value.type_name.rpartition(".")[2] == name
    assert "in raise_it" in caught.value.traceback_text
    (row,) = shared_session.client.attempts(future)
    assert row["failure_class"] == name
    assert row["is_final"]


@pytest.mark.parametrize(
    ("make", "kind", "words"), THEMSELVES, ids=[kind.__name__ for _, kind, _ in THEMSELVES]
)
def test_what_can_travel_arrives_as_itself(
    shared_session: ScalableSession,
    make: Callable[[], BaseException],
    kind: type[Exception],
    words: str,
) -> None:
    """The same type with the same words, whatever hangs on it."""
    future = shared_session.client.submit(raise_it, make)
    with pytest.raises(kind) as caught:
        future.result(timeout=60)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    (row,) = shared_session.client.attempts(future)
    assert row["failure_class"] == kind.__name__


def test_a_message_of_50_megabytes_is_capped(shared_session: ScalableSession) -> None:
    """It arrives shortened, in the error and on record, and quickly."""

    def shout() -> None:
        raise ValueError("x" * 50_000_000)

    future = shared_session.client.submit(shout)
    with pytest.raises(errors.RemoteError) as caught:
        future.result(timeout=60)
    assert len(str(caught.value)) < 2 * _CAP_CHARS
    (row,) = shared_session.client.attempts(future)
    assert row["failure_class"] == "ValueError"
    assert 0 < len(row["message"]) < _CAP_CHARS
    assert len(row["traceback"]) < 2 * _CAP_CHARS


def test_a_group_of_passing_errors_is_retried(shared_session: ScalableSession) -> None:
    """The members of an exception group decide, not its own class."""

    def gather_badly() -> None:
        raise ExceptionGroup("both sites", [ConnectionError("one"), TimeoutError("two")])

    future = shared_session.client.submit(gather_badly, retries=1)
    with pytest.raises(ExceptionGroup):
        future.result(timeout=60)
    rows = shared_session.client.attempts(future)
    assert [row["category"] for row in rows] == ["transient"] * 2
