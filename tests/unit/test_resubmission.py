"""Which tasks run again is decided from what became of them, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_rows import failure

from scalable_nb.errors import SubmitError, UnknownNameError
from scalable_nb.resubmission.api import resubmit
from scalable_nb.resubmission.resubmit_plan import (
    RecordedOutcome,
    ResubmitPlan,
    TaskOutcome,
    plan_recorded,
    plan_resubmission,
    with_estimate,
)

#: Key -> status of the future.
STATUSES: dict[Any, str] = {
    "memory": "error",
    "fine": "finished",
    "timeout": "error",
    "running": "pending",
    "gone": "cancelled",
    ("block", 1): "error",
    "downstream": "error",
    "also-fine": "finished",
}
#: Rows of the last failed attempts; "downstream" failed with its input and has none.
ROWS: dict[str, Any] = {
    row["task_id"]: row
    for row in [
        failure(1, task_id="memory", failure_class="MemoryError", category="resource",
                fingerprint="0123456789abcdef", duration_s=180.0),
        failure(2, task_id="timeout", failure_class="TaskTimeoutError", category="timeout",
                fingerprint="fedcba9876543210", duration_s=300.0),
        failure(3, task_id="('block', 1)", failure_class="ValueError", category="permanent",
                fingerprint="0000000000000000", duration_s=0.1),
        failure(4, task_id="fine", failure_class="ConnectionError", category="transient"),
    ]
}  # fmt: skip
FAILED = ["memory", "timeout", ("block", 1), "downstream"]


def is_slow(row: Any) -> bool:
    return bool(row["duration_s"] > 10)


def test_only_failed_tasks_run_again() -> None:
    """Results stay, what still runs is left alone, what a person cancelled stays cancelled."""
    plan = plan_resubmission(STATUSES, ROWS, None)
    assert plan == ResubmitPlan(2, 1, FAILED, {"gone": "cancelled"})
    assert (
        str(plan)
        == repr(plan)
        == ("2 results are there, 4 tasks to run again, 1 still running, 1 left out (cancelled)")
    )


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        (["MemoryError"], ["memory"]),
        (["timeout"], ["timeout"]),
        (["resource", "permanent"], ["memory", ("block", 1)]),
        (["fedcba9876543210"], ["timeout"]),
        (["('block', 1)"], [("block", 1)]),
        (["memory", "MemoryError"], ["memory"]),
        ([is_slow], ["memory", "timeout"]),
        ([is_slow, "ValueError"], ["memory", "timeout", ("block", 1)]),
        ([lambda row: False], []),
        (("MemoryError",), ["memory"]),
        ([], []),
    ],
    ids=["class", "category", "categories", "fingerprint", "key", "twice", "function",
         "function or class", "none", "tuple", "nothing"],
)  # fmt: skip
def test_a_choice_among_the_failed(only: Any, chosen: list[Any]) -> None:
    """Class, category, fingerprint, key or a function of the row choose; input order stays."""
    plan = plan_resubmission(STATUSES, ROWS, only)
    assert plan.to_run == chosen
    assert plan.left_out == {
        **{key: "not chosen by only=" for key in FAILED if key not in chosen},
        "gone": "cancelled",
    }
    assert (plan.succeeded, plan.unfinished) == (2, 1)


@pytest.mark.parametrize("word", ["MemoryEror", "transient", "fine", "", "None"])
def test_a_word_that_names_no_failure_is_an_error(word: str) -> None:
    """A typo runs nothing; failures of tasks that succeeded in the end are no candidates."""
    with pytest.raises(UnknownNameError) as caught:
        plan_resubmission(STATUSES, ROWS, ["timeout", word])
    message = str(caught.value)
    assert message.startswith(f"no failure named {word!r}.")
    assert message.endswith(
        "Known: MemoryError, TaskTimeoutError, ValueError, permanent, resource, timeout. "
        "Nothing was run."
    )
    assert ("Did you mean 'MemoryError'?" in message) is (word == "MemoryEror")


def test_without_failures_there_is_nothing_to_choose() -> None:
    """A word is unknown where nothing failed, or only what took a failed result."""
    for statuses in ({"fine": "finished"}, {"downstream": "error"}):
        with pytest.raises(UnknownNameError, match=r"Known: none is defined\. Nothing was run\."):
            plan_resubmission(statuses, ROWS, ["ValueError"])
        assert plan_resubmission(statuses, ROWS, [is_slow]).to_run == []


@pytest.mark.parametrize("filter_", [7, None, ValueError("x"), ["MemoryError"]])
def test_a_filter_is_a_name_or_a_function(filter_: Any) -> None:
    """Anything else is refused, with examples of what is meant."""
    with pytest.raises(SubmitError) as caught:
        plan_resubmission(STATUSES, ROWS, [filter_])
    assert str(caught.value) == (
        f"only={filter_!r} is neither a name nor a function; expected e.g. "
        "only='TaskTimeoutError' or only=lambda row: row['duration_s'] > 10"
    )


@given(
    statuses=st.dictionaries(
        st.one_of(st.sampled_from(sorted(ROWS)), st.tuples(st.just("block"), st.integers(0, 2))),
        st.sampled_from(["finished", "error", "pending", "cancelled", "lost"]),
    ),
    chosen=st.none() | st.sets(st.sampled_from(sorted(ROWS))),
)
def test_every_task_is_in_one_group(statuses: dict[Any, str], chosen: set[str] | None) -> None:
    """The groups of a plan are disjoint and add up; only failed tasks are ever run again."""
    only = None if chosen is None else [lambda row: row["task_id"] in chosen]
    plan = plan_resubmission(statuses, ROWS, only)
    assert plan.succeeded + plan.unfinished + len(plan.to_run) + len(plan.left_out) == len(statuses)
    assert set(plan.to_run).isdisjoint(plan.left_out)
    assert all(statuses[key] in ("error", "lost") for key in plan.to_run)
    assert [key for key in statuses if key in plan.to_run] == plan.to_run


def test_an_empty_list_needs_no_host() -> None:
    """Nothing submitted is nothing to run again, also without a session."""
    assert resubmit([]) == []
    assert resubmit([], dry_run=True) == ResubmitPlan(0, 0, [], {})


# --- of a run that is over ------------------------------------------------------------

OUTCOMES = st.sampled_from(list(TaskOutcome))


@given(
    tasks=st.lists(
        st.tuples(OUTCOMES, st.booleans(), st.booleans(), st.integers(0, 9)), max_size=10
    )
)
def test_every_recorded_task_has_one_place_in_the_plan(
    tasks: list[tuple[TaskOutcome, bool, bool, int]],
) -> None:
    """Kept, to run or left out with a reason; nothing runs whose input does not come."""
    remains = [
        RecordedOutcome(
            number, outcome, is_idempotent, has_call, (source,) if source < number else ()
        )
        for number, (outcome, is_idempotent, has_call, source) in enumerate(tasks)
    ]
    plan = plan_recorded(remains, {}, None)
    assert plan.from_cache + len(plan.to_run) + len(plan.left_out) == len(tasks)
    assert plan.to_run == sorted(plan.to_run)
    for task in remains:
        if task.key in plan.to_run:
            assert task.outcome in (TaskOutcome.ATTEMPTED, TaskOutcome.NEVER_RAN)
            assert task.is_idempotent
            assert task.has_call
            assert not set(task.input_keys) & plan.left_out.keys()
    assert plan.never_ran == sum(
        remains[key].outcome is TaskOutcome.NEVER_RAN for key in plan.to_run
    )


def test_a_plan_tells_counts_and_cost() -> None:
    """As a person asks: what is there, what runs, what it costs."""
    remains = [
        *(RecordedOutcome(f"kept-{n}", TaskOutcome.STORED) for n in range(847)),
        *(RecordedOutcome(f"tried-{n}", TaskOutcome.ATTEMPTED) for n in range(41)),
        *(RecordedOutcome(f"untried-{n}", TaskOutcome.NEVER_RAN) for n in range(12)),
    ]
    plan = plan_recorded(remains, {}, None)
    assert str(plan) == "847 from cache, 41 to run again, 12 never ran"
    costly = with_estimate(plan, lambda key: "simulate", {"simulate": (7200.0, 2)}, cores=2)
    assert str(costly).endswith("12 never ran, about 106 core-hours")
    assert with_estimate(plan, lambda key: "simulate", {}, cores=2) == plan
