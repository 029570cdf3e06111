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
    plan_resubmission,
    with_estimate,
)

#: Key -> what is known of the task.
OUTCOME_OF: dict[Any, TaskOutcome] = {
    "memory": TaskOutcome.ATTEMPTED,
    "fine": TaskOutcome.SUCCEEDED,
    "timeout": TaskOutcome.ATTEMPTED,
    "running": TaskOutcome.UNFINISHED,
    "gone": TaskOutcome.CANCELLED,
    ("block", 1): TaskOutcome.ATTEMPTED,
    "downstream": TaskOutcome.ATTEMPTED,
    "also-fine": TaskOutcome.SUCCEEDED,
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


def planned(outcomes: dict[Any, TaskOutcome], only: Any) -> ResubmitPlan:
    """The plan for inputs that share no tasks."""
    tasks = [RecordedOutcome(key, outcome) for key, outcome in outcomes.items()]
    return plan_resubmission(list(outcomes), tasks, ROWS, only)


def is_slow(row: Any) -> bool:
    return bool(row["duration_s"] > 10)


def test_only_failed_tasks_run_again() -> None:
    """Results stay, what still runs is left alone, what a person cancelled stays cancelled."""
    plan = planned(OUTCOME_OF, None)
    assert (plan.succeeded, plan.unfinished, plan.total) == (2, 1, len(OUTCOME_OF))
    assert (plan.to_run, plan.left_out) == (FAILED, {"gone": "cancelled"})
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
    plan = planned(OUTCOME_OF, only)
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
        planned(OUTCOME_OF, ["timeout", word])
    message = str(caught.value)
    assert message.startswith(f"no failure named {word!r}.")
    assert message.endswith(
        "Known: MemoryError, TaskTimeoutError, ValueError, permanent, resource, timeout. "
        "Nothing was run."
    )
    assert ("Did you mean 'MemoryError'?" in message) is (word == "MemoryEror")


def test_without_failures_there_is_nothing_to_choose() -> None:
    """A word is unknown where nothing failed, or only what took a failed result."""
    for key in ("fine", "downstream"):
        outcomes = {key: OUTCOME_OF[key]}
        with pytest.raises(UnknownNameError, match=r"Known: none is defined\. Nothing was run\."):
            planned(outcomes, ["ValueError"])
        assert planned(outcomes, [is_slow]).to_run == []


@pytest.mark.parametrize("filter_", [7, None, ValueError("x"), ["MemoryError"]])
def test_a_filter_is_a_name_or_a_function(filter_: Any) -> None:
    """Anything else is refused, with examples of what is meant."""
    with pytest.raises(SubmitError) as caught:
        planned(OUTCOME_OF, [filter_])
    assert str(caught.value) == (
        f"only={filter_!r} is neither a name nor a function; expected e.g. "
        "only='TaskTimeoutError' or only=lambda row: row['duration_s'] > 10"
    )


@given(
    outcomes=st.dictionaries(
        st.one_of(st.sampled_from(sorted(ROWS)), st.tuples(st.just("block"), st.integers(0, 2))),
        st.sampled_from(list(TaskOutcome)),
    ),
    chosen=st.none() | st.sets(st.sampled_from(sorted(ROWS))),
)
def test_every_task_is_in_one_group(
    outcomes: dict[Any, TaskOutcome], chosen: set[str] | None
) -> None:
    """The groups of a plan are disjoint and add up; only failed tasks are ever run again."""
    only = None if chosen is None else [lambda row: row["task_id"] in chosen]
    plan = planned(outcomes, only)
    assert plan.total == len(outcomes)
    assert set(plan.to_run).isdisjoint(plan.left_out)
    assert all(outcomes[key].has_no_result for key in plan.to_run)
    assert [key for key in outcomes if key in plan.to_run] == plan.to_run


def test_an_empty_list_needs_no_host() -> None:
    """Nothing submitted is nothing to run again, also without a session."""
    assert resubmit([]) == []
    assert resubmit([], dry_run=True) == ResubmitPlan(0, 0, [], {})


# --- of a run that is over ------------------------------------------------------------

OUTCOMES = st.sampled_from(list(TaskOutcome))


@given(
    tasks=st.lists(
        st.tuples(OUTCOMES, st.booleans(), st.booleans(), st.integers(0, 9)), max_size=10
    ),
    repeats=st.integers(1, 2),
)
def test_every_input_has_one_place_in_the_plan(
    tasks: list[tuple[TaskOutcome, bool, bool, int]], repeats: int
) -> None:
    """There, to run or left out with a reason; nothing runs whose input does not come."""
    recorded = [
        RecordedOutcome(
            number, outcome, is_idempotent, has_call, (source,) if source < number else ()
        )
        for number, (outcome, is_idempotent, has_call, source) in enumerate(tasks)
    ]
    plan = plan_resubmission([*range(len(tasks))] * repeats, recorded, {}, None)
    assert plan.total == len(tasks) * repeats
    assert plan.to_run == sorted(set(plan.to_run)) * repeats
    for task in recorded:
        if task.key in plan.to_run:
            assert task.outcome.has_no_result
            assert task.is_idempotent
            assert task.has_call
            assert not set(task.input_keys) & plan.left_out.keys()
    assert plan.never_ran == sum(
        recorded[key].outcome is TaskOutcome.NEVER_RAN for key in plan.to_run
    )


def test_a_chosen_task_runs_with_the_inputs_it_needs() -> None:
    """``only=`` chooses what failed so; an input without a result runs with it."""
    tasks = [
        RecordedOutcome("lost", TaskOutcome.ATTEMPTED),
        RecordedOutcome("timeout", TaskOutcome.ATTEMPTED, input_keys=("lost",)),
        RecordedOutcome("memory", TaskOutcome.ATTEMPTED, input_keys=("lost",)),
    ]
    plan = plan_resubmission([task.key for task in tasks], tasks, ROWS, ["timeout"])
    assert plan.to_run == ["lost", "timeout"]
    assert plan.left_out == {"memory": "not chosen by only="}


def test_a_damaged_record_is_left_out_as_lost() -> None:
    """What the record lacks is named, and affects no other input."""
    tasks = [
        RecordedOutcome("a", TaskOutcome.NEVER_RAN, has_call=False, is_damaged=True),
        RecordedOutcome("b", TaskOutcome.ATTEMPTED),
    ]
    plan = plan_resubmission(["a", "b"], tasks, {}, None)
    assert (plan.to_run, plan.left_out) == (["b"], {"a": "lost: record damaged"})


def test_a_plan_tells_counts_and_cost() -> None:
    """As a person asks: what is there, what runs, what it costs."""
    remains = [
        *(RecordedOutcome(f"kept-{n}", TaskOutcome.STORED) for n in range(847)),
        *(RecordedOutcome(f"tried-{n}", TaskOutcome.ATTEMPTED) for n in range(41)),
        *(RecordedOutcome(f"untried-{n}", TaskOutcome.NEVER_RAN) for n in range(12)),
    ]
    plan = plan_resubmission([each.key for each in remains], remains, {}, None)
    assert str(plan) == "847 from cache, 41 to run again, 12 never ran"
    costly = with_estimate(plan, lambda key: "simulate", {"simulate": (7200.0, 2)}, cores=2)
    assert str(costly).endswith("12 never ran, about 106 core-hours")
    assert with_estimate(plan, lambda key: "simulate", {}, cores=2) == plan
