"""Policies: what is accepted, how a call meets the manifest, and how terms travel."""

from __future__ import annotations

import doctest
import math
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.errors import PolicyError
from scalable_nb.faults import backoff, fingerprint, policy
from scalable_nb.faults.backoff import Backoff, RetryPolicy, delay_s
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.faults.policy import TaskPolicy, resolve_policy

backoffs = st.builds(
    Backoff,
    base_s=st.floats(0, 1e6),
    factor=st.floats(1, 100),
    max_s=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
)
chances = st.floats(0, 1, exclude_max=True)


def is_flaky(error: BaseException) -> bool:
    return "flaky" in str(error)


def is_plausible(result: object) -> bool:
    return result is not None


# --- waits ---------------------------------------------------------------------


def test_waits_grow_by_the_factor_up_to_the_limit() -> None:
    """Without jitter the waits are base, base*factor, base*factor², ... and then the limit."""
    steady = Backoff(base_s=1, factor=2, max_s=10, jitter=0)
    waits = [delay_s(steady, attempt, lambda: 0.9) for attempt in range(1, 7)]
    assert waits == [1, 2, 4, 8, 10, 10]


@given(backoffs, st.integers(1, 10_000), chances)
def test_wait_lies_between_its_jittered_and_its_full_length(
    waits: Backoff, attempt: int, chance: float
) -> None:
    """Jitter only shortens, by its share at most, so no wait exceeds max_s."""
    full = delay_s(waits, attempt, lambda: 0.0)
    wait = delay_s(waits, attempt, lambda: chance)
    assert 0 <= full <= waits.max_s
    assert full * (1 - waits.jitter) * (1 - 1e-12) <= wait <= full


@given(backoffs, st.integers(1, 200))
def test_waits_never_shrink_without_jitter(waits: Backoff, attempt: int) -> None:
    """A later attempt waits at least as long as the one before."""
    assert delay_s(waits, attempt, lambda: 0.0) <= delay_s(waits, attempt + 1, lambda: 0.0)


@pytest.mark.parametrize(
    ("waits", "expected"),
    [
        (Backoff(factor=10), 60.0),
        (Backoff(base_s=0, factor=10), 0.0),
        (Backoff(factor=1), 1.0),
        (Backoff(base_s=1e300, factor=1e300, max_s=1e6), 1e6),
    ],
)
def test_ten_thousandth_attempt_does_not_overflow(waits: Backoff, expected: float) -> None:
    """However far the power runs away, the wait is a plain number."""
    assert delay_s(waits, 10_000, lambda: 0.0) == expected


def test_attempts_are_counted_from_one() -> None:
    """An attempt number of 0 is a mistake of the caller, and says so."""
    with pytest.raises(ValueError, match="counted from 1"):
        delay_s(Backoff(), 0, lambda: 0.0)


# --- what is accepted ----------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: TaskPolicy(retries=-1), "retries=-1: expected a whole number"),
        (lambda: TaskPolicy(retries=True), "retries=True: expected a whole number"),
        (lambda: TaskPolicy(retries=2.5), "retries=2.5"),
        (lambda: TaskPolicy(retries="3"), "retries='3'"),
        (lambda: TaskPolicy(retries=10**12), "from 0 to 10,000"),
        (lambda: RetryPolicy(-1), "max_retries=-1"),
        (lambda: RetryPolicy(base_s=-1), "base_s=-1: expected seconds"),
        (lambda: RetryPolicy(base_s=math.nan), "base_s=nan"),
        (lambda: RetryPolicy(factor=0.5), "factor=0.5: expected a finite number, 1 or more"),
        (lambda: RetryPolicy(factor=math.inf), "factor=inf"),
        (lambda: RetryPolicy(max_s=math.inf), "max_s=inf"),
        (lambda: RetryPolicy(jitter=1.5), "jitter=1.5: expected a share from 0 to 1"),
        (lambda: RetryPolicy(jitter=True), "jitter=True"),
        (lambda: TaskPolicy(timeout_s=0), "timeout_s=0: expected seconds, more than 0"),
        (lambda: TaskPolicy(timeout_s=-5), "timeout_s=-5"),
        (lambda: TaskPolicy(timeout_s=math.nan), "timeout_s=nan"),
        (lambda: TaskPolicy(timeout_s="300s"), "timeout_s='300s'"),
        (lambda: TaskPolicy(worker_losses=-1), "worker_losses=-1"),
        (lambda: TaskPolicy(idempotent="no"), "idempotent='no': expected True or False"),
        (lambda: TaskPolicy(validate=3), "validate=3: expected a function of the result"),
        (lambda: TaskPolicy(retry_on=3), "retry_on=3: expected exception types"),
        (lambda: TaskPolicy(retry_on=[int]), "retry_on=<class 'int'>"),
        (lambda: TaskPolicy(give_up_on=("not a name",)), "give_up_on='not a name'"),
        (lambda: TaskPolicy(backoff=2), "backoff=2: expected a Backoff"),
        (lambda: TaskPolicy(backoff=RetryPolicy(3)), "how often is said by retries="),
        (lambda: TaskPolicy(retries=RetryPolicy(3), backoff=Backoff()), "say them once"),
        (lambda: TaskPolicy(retries=3, idempotent=False), "never called a second time"),
        (lambda: TaskPolicy(retries=RetryPolicy(1), idempotent=False), "idempotent=False"),
        (lambda: resolve_policy(retries=-1), "retries=-1"),
        (lambda: resolve_policy(policy=3), "policy=3: expected a TaskPolicy"),
        (lambda: PolicyTerms(timeout_s=0), "timeout_s=0"),
        (lambda: PolicyTerms.from_wire({"retries": -1}), "retries=-1"),
    ],
)
def test_nonsense_is_refused_with_the_value_and_what_was_expected(
    make: Callable[[], Any], names: str
) -> None:
    """A wrong value names itself, and its message shows how to write a right one."""
    with pytest.raises(PolicyError) as caught:
        make()
    assert names in str(caught.value)
    assert "=" in str(caught.value).partition(names)[2] or "e.g." in str(caught.value)


def test_huge_wrong_value_does_not_flood_the_message() -> None:
    """An array passed by mistake is shown in a few characters."""
    with pytest.raises(PolicyError) as caught:
        TaskPolicy(retry_on=["x y" * 100_000])
    assert len(str(caught.value)) < 300


def test_numbers_of_numpy_become_plain_ones() -> None:
    """A count or a time computed with NumPy is accepted and travels as Python's own."""
    asked = TaskPolicy(retries=np.int64(3), timeout_s=np.float32(1.5))
    assert type(asked.retries) is int
    assert type(asked.timeout_s) is float
    assert msgpack.unpackb(msgpack.packb(resolve_policy(policy=asked).to_wire())) == {
        "retries": 3,
        "timeout_s": 1.5,
    }


def test_one_rule_needs_no_list() -> None:
    """A single type, name or function is a list of one."""
    assert TaskPolicy(retry_on=ValueError).retry_on == (ValueError,)
    assert TaskPolicy(retry_on="pkg.Error").retry_on == ("pkg.Error",)
    assert TaskPolicy(give_up_on=is_flaky).give_up_on == (is_flaky,)
    assert TaskPolicy(retry_on=[ValueError, "OSError"]).retry_on == (ValueError, "OSError")


def test_policies_pickle_hash_and_compare() -> None:
    """A policy can be sent, kept as a key, and equals its copy."""
    for original in (
        RetryPolicy(3, base_s=0.5),
        TaskPolicy(
            retries=RetryPolicy(3),
            timeout_s=300,
            retry_on=[ValueError, "pkg.Error", is_flaky],
            validate=is_plausible,
        ),
        resolve_policy(retries=3),
    ):
        copy = pickle.loads(pickle.dumps(original))
        assert copy == original
        assert {original: 1}[copy] == 1


def test_rules_travel_pickled_and_only_where_said() -> None:
    """The code of a policy is apart from its numbers, lambdas included."""
    assert TaskPolicy(retries=3).rules == {}
    rules = TaskPolicy(retry_on=lambda error: True, validate=is_plausible).rules
    copy = pickle.loads(cloudpickle.dumps(rules))
    assert copy.keys() == {"retry_on", "validate"}
    assert copy["retry_on"][0](ValueError()) is True


# --- the call and the manifest -------------------------------------------------


def test_call_wins_over_task_and_task_over_defaults() -> None:
    """What a layer does not say, the next one says."""
    task = TaskPolicy(retries=3, timeout_s=300)
    defaults = TaskPolicy(retries=1, backoff=Backoff(base_s=5))
    assert resolve_policy(task=task, defaults=defaults) == PolicyTerms(
        retries=3, timeout_s=300, backoff=Backoff(base_s=5)
    )
    terms = resolve_policy(
        retries=0, policy=TaskPolicy(worker_losses=0), task=task, defaults=defaults
    )
    assert (terms.retries, terms.worker_losses, terms.timeout_s) == (0, 0, 300)
    assert resolve_policy(defaults=defaults).retries == 1
    assert resolve_policy() == PolicyTerms()


def test_retry_policy_says_the_waits_too() -> None:
    """A RetryPolicy replaces the manifest's waits; a plain number leaves them."""
    task = TaskPolicy(retries=1, backoff=Backoff(base_s=5))
    assert resolve_policy(retries=RetryPolicy(3), task=task).backoff == Backoff()
    assert resolve_policy(retries=3, task=task).backoff == Backoff(base_s=5)
    waits = TaskPolicy(backoff=RetryPolicy(base_s=7))
    assert resolve_policy(policy=waits, task=task) == PolicyTerms(
        retries=1, backoff=Backoff(base_s=7)
    )


def test_retries_of_the_call_override_those_of_its_policy() -> None:
    """``retries=`` beside ``policy=`` changes how often, and the rest of the policy stays."""
    shared = TaskPolicy(retries=RetryPolicy(5, base_s=7), timeout_s=9)
    assert resolve_policy(retries=1, policy=shared) == PolicyTerms(
        retries=1, backoff=Backoff(base_s=7), timeout_s=9
    )
    own = resolve_policy(retries=RetryPolicy(1), policy=TaskPolicy(backoff=Backoff(base_s=7)))
    assert own == PolicyTerms(retries=1)


def test_infinite_timeout_takes_the_manifest_limit_away() -> None:
    """``math.inf`` is how a call says that there is no limit."""
    task = TaskPolicy(timeout_s=300)
    assert resolve_policy(policy=TaskPolicy(timeout_s=math.inf), task=task).timeout_s is None
    assert resolve_policy(policy=TaskPolicy(retries=1), task=task).timeout_s == 300


def test_unsafe_function_is_never_given_retries() -> None:
    """Retries addressed to a non-idempotent task are an error; the manifest's defaults pass it."""
    once = TaskPolicy(idempotent=False)
    defaults = TaskPolicy(retries=3)
    terms = resolve_policy(policy=once, defaults=defaults)
    assert (terms.retries, terms.idempotent) == (0, False)
    with pytest.raises(PolicyError, match="never called a second time"):
        resolve_policy(retries=2, task=once)
    with pytest.raises(PolicyError, match="retries=3 with idempotent=False"):
        resolve_policy(policy=once, task=TaskPolicy(retries=3))
    assert resolve_policy(retries=0, policy=once, task=TaskPolicy(retries=3)).retries == 0
    # A policy about something else leaves the manifest's word on idempotence standing.
    assert not resolve_policy(policy=TaskPolicy(timeout_s=5), task=once).idempotent
    assert resolve_policy(retries=2, policy=TaskPolicy(idempotent=True), task=once).idempotent


# --- the wire ------------------------------------------------------------------


@given(
    st.builds(
        PolicyTerms,
        retries=st.integers(0, 10_000),
        backoff=backoffs,
        timeout_s=st.none() | st.floats(0, 1e9, exclude_min=True),
        worker_losses=st.integers(0, 10_000),
        code=st.binary(max_size=20),
    )
)
def test_terms_survive_the_wire(terms: PolicyTerms) -> None:
    """What msgpack carries is all there is, and everything comes back."""
    wire = msgpack.unpackb(msgpack.packb(terms.to_wire()))
    assert PolicyTerms.from_wire(wire) == terms


def test_defaults_cost_nothing_on_the_wire() -> None:
    """A task without a policy carries none, and names of other versions do no harm."""
    assert PolicyTerms().to_wire() == {}
    assert PolicyTerms.from_wire({"batch": "b1"}) == PolicyTerms()
    assert PolicyTerms(idempotent=False).to_wire() == {"idempotent": False}


def test_changes_undo_what_was_said_before() -> None:
    """A resubmission without retries or limit overwrites terms that had them."""
    before = PolicyTerms(retries=3, timeout_s=300, backoff=Backoff(base_s=5))
    changes = TaskPolicy(retries=0, timeout_s=math.inf).changes()
    after = PolicyTerms.from_wire({**before.to_wire(), **changes})
    assert after == PolicyTerms(backoff=Backoff(base_s=5))
    assert TaskPolicy().changes() == {}
    assert TaskPolicy(retries=RetryPolicy(2)).changes()["base_s"] == 1.0


@pytest.mark.parametrize("module", [backoff, policy, fingerprint])
def test_examples_in_the_documentation_are_true(module: Any) -> None:
    """Every example in a docstring gives what it shows."""
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
