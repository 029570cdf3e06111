"""A function that must not be called twice has one ticket."""

from __future__ import annotations

from scalable_nb.host.tasks.at_most_once import Tickets

FIRST, SECOND = "tls://127.0.0.1:40001", "tls://127.0.0.1:40002"


def test_a_ticket_is_given_once() -> None:
    """The second who asks does not get it, whoever it is, and is told who had it."""
    tickets = Tickets()
    assert tickets.take("payment-1", FIRST, 7)
    assert not tickets.take("payment-1", SECOND, 8)
    assert not tickets.take("payment-1", FIRST, 9)
    assert tickets.is_held_by("payment-1", FIRST)
    assert not tickets.is_held_by("payment-1", SECOND)
    assert FIRST in tickets.in_words("payment-1")


def test_every_task_has_its_own() -> None:
    """One payment does not keep another from being made."""
    tickets = Tickets()
    assert tickets.take("payment-1", FIRST, 7)
    assert tickets.take("payment-2", FIRST, 8)


def test_the_attempt_that_has_it_may_ask_again() -> None:
    """The answer was lost with a connection; nothing was called in the meantime."""
    tickets = Tickets()
    assert tickets.take("payment-1", FIRST, 7)
    assert tickets.take("payment-1", FIRST, 7)
    assert not tickets.take("payment-1", SECOND, 7)


def test_a_renewed_ticket_is_given_again() -> None:
    """Once more, not for ever."""
    tickets = Tickets()
    tickets.take("payment-1", FIRST, 7)
    tickets.renew("payment-1")
    tickets.renew("payment-2")  # nobody has had it
    assert not tickets.is_held_by("payment-1", FIRST)
    assert tickets.take("payment-1", SECOND, 8)
    assert not tickets.take("payment-1", FIRST, 9)
