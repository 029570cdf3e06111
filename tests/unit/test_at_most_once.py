"""A function that must not be called twice has one ticket."""

from __future__ import annotations

from scalable_nb.host.tasks.attempt_failures import AtMostOnceGuard

FIRST, SECOND = "tls://127.0.0.1:40001", "tls://127.0.0.1:40002"


def test_a_permit_is_given_once() -> None:
    """The second who asks does not get it, whoever it is, and is told who had it."""
    at_most_once = AtMostOnceGuard()
    assert at_most_once.acquire("payment-1", FIRST, 7)
    assert not at_most_once.acquire("payment-1", SECOND, 8)
    assert not at_most_once.acquire("payment-1", FIRST, 9)
    assert at_most_once.is_held_by("payment-1", FIRST)
    assert not at_most_once.is_held_by("payment-1", SECOND)
    assert FIRST in at_most_once.refusal_text("payment-1")


def test_every_task_has_its_own() -> None:
    """One payment does not keep another from being made."""
    at_most_once = AtMostOnceGuard()
    assert at_most_once.acquire("payment-1", FIRST, 7)
    assert at_most_once.acquire("payment-2", FIRST, 8)


def test_the_attempt_that_has_it_may_ask_again() -> None:
    """The answer was lost with a connection; nothing was called in the meantime."""
    at_most_once = AtMostOnceGuard()
    assert at_most_once.acquire("payment-1", FIRST, 7)
    assert at_most_once.acquire("payment-1", FIRST, 7)
    assert not at_most_once.acquire("payment-1", SECOND, 7)


def test_a_reset_permit_is_given_again() -> None:
    """Once more, not for ever."""
    at_most_once = AtMostOnceGuard()
    at_most_once.acquire("payment-1", FIRST, 7)
    at_most_once.reset("payment-1")
    at_most_once.reset("payment-2")  # nobody has had it
    assert not at_most_once.is_held_by("payment-1", FIRST)
    assert at_most_once.acquire("payment-1", SECOND, 8)
    assert not at_most_once.acquire("payment-1", FIRST, 9)
