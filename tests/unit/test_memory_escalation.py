"""More memory on the second try: what may be asked for, and what follows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.errors import PolicyError
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.faults.memory_escalation import MemoryEscalation
from scalable_nb.faults.policy import TaskPolicy, resolve_policy


def test_the_policy_travels_as_plain_numbers() -> None:
    """What a person wrote arrives at the host unchanged."""
    terms = resolve_policy(policy=TaskPolicy(escalate={"memory": 2, "max": "64G"}))
    assert PolicyTerms.from_wire(terms.to_wire()).escalation == MemoryEscalation(
        2.0, 64_000_000_000
    )
    assert PolicyTerms.from_wire(resolve_policy().to_wire()).escalation is None


@pytest.mark.parametrize(
    ("size", "expected"), [("2GiB", 2 * 2**30), ("1.5G", 1_500_000_000), (10_000, 10_000)]
)
def test_sizes_are_read_as_in_the_manifest(size: object, expected: int) -> None:
    """`G` is decimal and `GiB` binary."""
    policy = TaskPolicy(escalate={"memory": 2.0, "max": size})
    assert policy.escalate == MemoryEscalation(2.0, expected)


@pytest.mark.parametrize(
    "value",
    [{}, 2.0, {"max": "1G"}, {"memory": 1}, {"memory": True}, {"memory": "2"},
     {"memory": 2, "x": 1}, {"memory": 2, "max": "lots"}, {"memory": 2, "max": 0},
     {"memory": float("nan")}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_an_example(value: Any) -> None:
    """The error shows the value and how it is written."""
    with pytest.raises(PolicyError, match=r'escalate.*escalate=\{"memory": 2\.0, "max": "64G"\}'):
        TaskPolicy(escalate=value)


@given(st.floats(1.01, 100), st.integers(1, 10**12), st.none() | st.integers(1, 10**12))
def test_a_next_attempt_has_more_or_none_is_made(
    factor: float, had: int, largest: int | None
) -> None:
    """Memory only ever grows, and never beyond the limit."""
    wanted = MemoryEscalation(factor, largest).memory_after(had)
    if wanted is not None:
        assert wanted > had
        assert largest is None or wanted <= largest
