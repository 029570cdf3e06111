"""When a batch is stopped because it only ever fails in the same way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.faults.circuit_breaker import CircuitBreaker

OUTCOMES = st.lists(st.sampled_from(["success", "a", "b"]), max_size=60)


@given(OUTCOMES, st.integers(1, 8))
def test_it_stops_exactly_when_the_last_failures_are_alike(outcomes: list[str], limit: int) -> None:
    """The brake is pulled when and only when a run of equal failures reaches the limit."""
    breaker = CircuitBreaker(limit)
    for index, outcome in enumerate(outcomes):
        if outcome == "success":
            breaker.succeed()
            continue
        run = outcomes[max(0, index - limit + 1) : index + 1]
        before = outcomes[index - limit] if index >= limit else "success"
        is_due = run == [outcome] * limit and before != outcome
        assert breaker.fail(outcome) is is_due


def test_a_limit_of_zero_never_stops() -> None:
    """0 switches the brake off."""
    breaker = CircuitBreaker(0)
    assert not any(breaker.fail("a") for _ in range(100))


def test_a_released_breaker_stays_released() -> None:
    """Once a person wants to go on, the batch is not stopped again."""
    breaker = CircuitBreaker(2)
    assert [breaker.fail("a"), breaker.fail("a")] == [False, True]
    breaker.release()
    assert not any(breaker.fail("a") for _ in range(10))
