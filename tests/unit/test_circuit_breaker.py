"""When a batch is paused because its tasks fail in the same way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.faults.circuit_breaker import CircuitBreaker

OUTCOMES = st.lists(st.sampled_from(["success", "a", "b"]), max_size=60)


def last_run(outcomes: list[str]) -> int:
    """Return how many of the last outcomes are the same failure."""
    count = 0
    while count < len(outcomes) and outcomes[-1 - count] == outcomes[-1] != "success":
        count += 1
    return count


@given(OUTCOMES, st.integers(1, 8), st.integers(1, 60))
def test_it_pauses_once_in_each_run_of_failures(outcomes: list[str], limit: int, size: int) -> None:
    """The run reaches the limit and, after a success, exceeds a quarter of the batch."""
    breaker = CircuitBreaker(limit, size)
    for index, outcome in enumerate(outcomes):
        if outcome == "success":
            breaker.succeed()
            continue
        until_now = outcomes[: index + 1]
        needed = max(limit, size // 4 + 1) if "success" in until_now else limit
        assert breaker.fail(outcome) is (last_run(until_now) == needed)


def test_sorted_parameters_do_not_pause_a_batch() -> None:
    """Twenty neighbours fail after forty have succeeded: others may succeed."""
    breaker = CircuitBreaker(20, size=100)
    for _ in range(40):
        breaker.succeed()
    assert not any(breaker.fail("no solution") for _ in range(25))
    assert breaker.fail("no solution")  # more than a quarter


def test_a_limit_of_zero_never_pauses() -> None:
    """0 switches the circuit breaker off."""
    breaker = CircuitBreaker(0, size=100)
    assert not any(breaker.fail("a") for _ in range(100))


def test_a_released_breaker_stays_released() -> None:
    """Once the user has resumed the batch, it is not paused again."""
    breaker = CircuitBreaker(2, size=20)
    assert [breaker.fail("a"), breaker.fail("a")] == [False, True]
    breaker.release()
    assert not any(breaker.fail("a") for _ in range(10))
