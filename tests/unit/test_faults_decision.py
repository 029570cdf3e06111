"""Which budget pays for a further attempt, and when there is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.faults.backoff import Backoff
from scalable_nb.faults.categories import Category
from scalable_nb.faults.decision import Decision, PolicyTerms, WorkerLossCause, decide

STEADY = Backoff(jitter=0)
FREE = ("preemption", "requeue", "node_failure", "scancel", "scale_down", "neighbour")


def settle(terms: PolicyTerms, category: str = "transient", **values: Any) -> Decision:
    """Decide about the first attempt, unless said otherwise."""
    start = {"attempt": 1, "retries_used": 0, "losses_used": 0}
    return decide(terms, category=category, **start | values)


@pytest.mark.parametrize("category", ["transient", "resource", "timeout", "unknown"])
def test_three_retries_are_four_attempts(category: str) -> None:
    """Failures that may pass use up the retries, with growing waits, and then it is over."""
    terms = PolicyTerms(retries=3, backoff=STEADY)
    decisions = [settle(terms, category, attempt=n + 1, retries_used=n) for n in range(4)]
    assert [decision.retry_in_s for decision in decisions] == [1, 2, 4, None]
    assert [decision.charged for decision in decisions] == ["retries"] * 3 + [None]
    assert [decision.will_retry for decision in decisions] == [True, True, True, False]
    assert "all 3 retries are used" in decisions[-1].reason


def test_permanent_error_is_retried_only_when_the_user_says_so() -> None:
    """A bug fails at once, whatever the retries, unless retry_on names it."""
    terms = PolicyTerms(retries=3)
    assert not settle(terms, "permanent").will_retry
    assert "retry_on" in settle(terms, "permanent").reason
    assert settle(terms, "permanent", verdict="retry_on").charged == "retries"
    assert not settle(terms, "permanent", verdict="retry_on", retries_used=3).will_retry


def test_give_up_on_ends_what_would_be_retried() -> None:
    """An error the user gave up on is final though its category is transient."""
    decision = settle(PolicyTerms(retries=3), verdict="give_up_on")
    assert not decision.will_retry
    assert "give_up_on" in decision.reason


def test_without_retries_an_error_is_final() -> None:
    """The default policy runs a failing task once."""
    decision = settle(PolicyTerms())
    assert decision == Decision(False, None, None, "no retries were asked for")


@pytest.mark.parametrize("loss", ["crash", "out_of_memory", "walltime"])
def test_lost_workers_have_a_budget_of_their_own(loss: str) -> None:
    """A task that ends its worker is tried again three times, without any retries."""
    decisions = [settle(PolicyTerms(), loss=loss, losses_used=n) for n in range(4)]
    assert [decision.charged for decision in decisions] == ["worker_losses"] * 3 + [None]
    assert [decision.retry_in_s for decision in decisions] == [0.0, 0.0, 0.0, None]
    assert "all 3 worker losses are used" in decisions[-1].reason


@pytest.mark.parametrize("loss", FREE)
def test_what_is_not_the_fault_of_the_task_costs_it_nothing(loss: str) -> None:
    """Preemption and its like run the task again for ever, with every budget used up."""
    terms = PolicyTerms(worker_losses=0)
    decision = settle(terms, "infrastructure", loss=loss, losses_used=99, retries_used=99)
    assert (decision.will_retry, decision.retry_in_s, decision.charged) == (True, 0.0, None)


def test_every_loss_is_accounted_for() -> None:
    """No way of losing a worker is without a decision in words."""
    for loss in WorkerLossCause:
        assert settle(PolicyTerms(), loss=loss).reason


def test_attempt_that_had_a_whole_walltime_fails_at_once() -> None:
    """What did not fit into a whole walltime will not fit into the next one."""
    decision = settle(PolicyTerms(retries=3), loss="whole_walltime")
    assert not decision.will_retry
    assert "whole walltime" in decision.reason


def test_unknown_loss_is_an_error_of_the_caller() -> None:
    """A misspelt loss is not taken for a free one."""
    with pytest.raises(ValueError, match="krash"):
        settle(PolicyTerms(), loss="krash")


outcomes = st.tuples(
    st.sampled_from(list(Category)),
    st.sampled_from([None, "retry_on", "give_up_on"]),
    st.none() | st.sampled_from(list(WorkerLossCause)),
)


@given(st.lists(outcomes, max_size=60), st.integers(0, 5), st.integers(0, 5))
def test_no_history_exceeds_its_budgets(
    history: list[tuple[Category, str | None, WorkerLossCause | None]],
    retries: int,
    worker_losses: int,
) -> None:
    """Whatever happens in whatever order, no more is charged than was granted."""
    terms = PolicyTerms(retries=retries, worker_losses=worker_losses)
    charged = {"retries": 0, "worker_losses": 0, None: 0}
    for attempt, (category, verdict, loss) in enumerate(history, start=1):
        decision = decide(
            terms,
            category=category,
            attempt=attempt,
            retries_used=charged["retries"],
            losses_used=charged["worker_losses"],
            verdict=verdict,
            loss=loss,
        )
        assert decision.will_retry == (decision.retry_in_s is not None)
        assert decision.reason
        if not decision.will_retry:
            assert decision.charged is None
            break
        assert 0 <= decision.retry_in_s <= terms.backoff.max_s
        charged[decision.charged] += 1
        if decision.charged is None:
            assert loss in FREE
    assert charged["retries"] <= retries
    assert charged["worker_losses"] <= worker_losses


@given(outcomes)
def test_unsafe_function_is_never_called_again(
    outcome: tuple[Category, str | None, WorkerLossCause | None],
) -> None:
    """Nothing that can happen to a non-idempotent task leads to a second call."""
    category, verdict, loss = outcome
    decision = settle(PolicyTerms(idempotent=False), category, verdict=verdict, loss=loss)
    assert not decision.will_retry
    assert "not idempotent" in decision.reason
