"""Options of calls that are submitted again while their futures are held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_client import FakeClient

from scalable_nb.client.call_options import CallOptions
from scalable_nb.client.context import ClientContext
from scalable_nb.client.held_terms import HeldTerms
from scalable_nb.client.submission import SchedulingOptions, Submission
from scalable_nb.errors import SubmitError
from scalable_nb.faults.backoff import RetryPolicy
from scalable_nb.faults.policy import TaskPolicy
from scalable_nb.manifest.load import load_manifest

MANIFEST = """\
version: 1
project: {name: demo}
targets:
  local: {provider: local, max_workers: 1}
components:
  small: {cpus: 1}
  big: {cpus: 4}
tasks:
  stored: {keep_results: true}
  careful: {idempotent: false}
"""


def simulate(scenario: int) -> int:
    return scenario


Resubmit = Callable[..., None]


@pytest.fixture
def resolve(tmp_path: Path) -> Callable[..., CallOptions]:
    """Resolves options of a call."""
    path = tmp_path / "scalable.yaml"
    path.write_text(MANIFEST)
    context = ClientContext(load_manifest(path), tmp_path / "results")
    return lambda **options: CallOptions.resolve(context, simulate, **options)


@pytest.fixture
def resubmit(resolve: Callable[..., CallOptions]) -> Resubmit:
    """Checks a call in a state, with its first and its later options."""

    def resubmit(state: str, first: dict[str, Any], later: dict[str, Any]) -> None:
        client, terms = FakeClient(), HeldTerms()
        (future,) = client.submitted("simulate-1")
        if state == "finished":
            client.succeed("simulate-1", 1)
        elif state == "failed":
            client.fail("simulate-1", ValueError("1"))
        options = resolve(**first)
        submission = Submission(
            options.batch("", simulate), wire=options.wire, scheduling=SchedulingOptions()
        )
        terms.note(submission, ["simulate-1"])
        terms.check({"simulate-1": future}, resolve(**later))

    return resubmit


RULES = {"policy": TaskPolicy(retry_on=lambda error: "busy" in str(error))}
SAME_RULES = {"policy": TaskPolicy(retry_on=lambda error: "busy" in str(error))}
OTHER_RULES = {"policy": TaskPolicy(retry_on=lambda error: "full" in str(error))}
ONCE = {"policy": TaskPolicy(idempotent=False)}


@pytest.mark.parametrize("state", ["pending", "finished", "failed"])
@pytest.mark.parametrize(
    ("first", "later"),
    [
        ({}, {}),
        ({"retries": 3}, {"retries": 3}),
        ({"retries": 3}, {}),
        ({"policy": TaskPolicy(timeout_s=5, retries=1)}, {"retries": 1}),
        ({}, {"retries": 0}),
        (RULES, SAME_RULES),
        ({"task": "stored"}, {"task": "stored"}),
        (ONCE, ONCE),
        (ONCE, {"task": "careful"}),
        ({"tag": "big"}, {"tag": "big"}),
        ({"tag": "big"}, {}),
    ],
)
def test_equal_options_are_accepted(
    resubmit: Resubmit, state: str, first: dict[str, Any], later: dict[str, Any]
) -> None:
    """Options that a call has already, or that the new one does not set, are no change."""
    resubmit(state, first, later)


@pytest.mark.parametrize(
    ("state", "first", "later", "wanted"),
    [
        ("pending", {}, {"retries": 3}, "`retries=0`, which cannot become 3"),
        ("pending", {"retries": 3}, {"retries": RetryPolicy(3, base_s=9)}, "`base_s="),
        ("pending", {}, {"policy": TaskPolicy(timeout_s=5)}, "`timeout_s=None`, .* become 5.0"),
        ("pending", RULES, OTHER_RULES, "its policy has other rules"),
        ("pending", {}, RULES, "its policy has other rules"),
        ("pending", {}, {"tag": "big"}, "`tag=''`, which cannot become 'big'"),
        ("pending", {}, ONCE, "waiting or running: it has `idempotent=True`"),
        ("finished", {}, ONCE, "has its result already: it has `idempotent=True`"),
        ("finished", {}, {"task": "stored"}, "`keep_results=False`, which cannot become True"),
        ("failed", {"is_named": True}, {"task": "stored"}, "failed: it has `keep_results=False`"),
    ],
)
def test_options_that_cannot_be_applied_are_refused(
    resubmit: Resubmit, state: str, first: dict[str, Any], later: dict[str, Any], wanted: str
) -> None:
    """The error names the option with both values, and the ways out."""
    with pytest.raises(SubmitError, match=f"{wanted}.*pure=False"):
        resubmit(state, first, later)


@pytest.mark.parametrize(
    ("state", "later"),
    [
        ("finished", {"retries": 3}),
        ("finished", {"policy": TaskPolicy(timeout_s=5, idempotent=True)}),
        ("finished", {"tag": "big"}),
        ("failed", {"retries": 3}),
        ("failed", ONCE),
        ("failed", {"tag": "big"}),
    ],
)
def test_options_that_are_satisfied_or_applied_are_accepted(
    resubmit: Resubmit, state: str, later: dict[str, Any]
) -> None:
    """A result needs no more retries, and a failed call runs again on the new terms."""
    resubmit(state, {}, later)


@pytest.mark.parametrize(("first", "expected"), [({}, ["key"]), ({"is_named": True}, [])])
def test_held_calls_are_stored_once_they_have_a_name(
    resolve: Callable[..., CallOptions], first: dict[str, Any], expected: list[str]
) -> None:
    """Calls that were submitted with a name store their results themselves; others are noted."""
    terms, options, named = HeldTerms(), resolve(**first), resolve(is_named=True)
    submission = Submission(
        options.batch("", simulate), wire=options.wire, scheduling=SchedulingOptions()
    )
    terms.note(submission, ["key"])
    assert terms.unstored(["key", "unknown"], named) == expected
    assert terms.unstored(["key"], options) == []
    terms.note_stored(expected, named)
    assert terms.unstored(["key"], named) == []


def test_released_calls_may_have_any_options(resolve: Callable[..., CallOptions]) -> None:
    """The terms go with the last future."""
    terms, options = HeldTerms(), resolve()
    submission = Submission(
        options.batch("", simulate), wire=options.wire, scheduling=SchedulingOptions()
    )
    terms.note(submission, ["simulate-1"])
    terms.forget("simulate-1")
    (future,) = FakeClient().submitted("simulate-1")
    terms.check({"simulate-1": future}, resolve(**ONCE))


def test_a_failed_call_that_runs_again_has_its_new_terms(
    resolve: Callable[..., CallOptions],
) -> None:
    """A third submission is compared with the second."""
    terms, options = HeldTerms(), resolve()
    submission = Submission(
        options.batch("", simulate), wire=options.wire, scheduling=SchedulingOptions()
    )
    terms.note(submission, ["simulate-1"])
    terms.note_reopened(["simulate-1"], resolve(retries=3))
    (future,) = FakeClient().submitted("simulate-1")
    terms.check({"simulate-1": future}, resolve(retries=3))
    with pytest.raises(SubmitError, match="`retries=3`, which cannot become 1"):
        terms.check({"simulate-1": future}, resolve(retries=1))
