"""The audit after a storm finds what does not agree; an audit that finds nothing proves nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from chaos.audit import Evidence, audit
from chaos.workload import Expectation, Mark


def failed(attempt: int, category: str = "transient", **values: Any) -> dict[str, Any]:
    return {"task_id": "a", "attempt": attempt, "category": category, "message": "it broke",
            "failure_class": "ConnectionError", "timestamp": "2001", "started_at": None,
            "worker": "w", **values}  # fmt: skip


def runs(count: int) -> list[Mark]:
    return [Mark(1e9 + number, 4711, number) for number in range(count)]


def ended(attempts: int, state: str = "succeeded", task_id: str = "a") -> dict[str, Any]:
    return {"task_id": task_id, "attempts": attempts, "state": state, "timestamp": "2001",
            "started_at": None, "worker": "w", "pid": 4711}  # fmt: skip


#: A task that failed once, was lost once with its worker, and succeeded.
GOOD = Evidence(
    expected={"a": Expectation(7)},
    outcomes={"a": 7},
    executions={"a": runs(3)},
    failures=[failed(1), failed(2, "infrastructure")],
    tasks=[ended(3)],
    counts={"succeeded": 1, "failed": 0},
)


@pytest.mark.parametrize("executions", [3, 2])
def test_records_that_agree_have_no_faults(executions: int) -> None:
    """A lost attempt may have been killed before the first line of its function."""
    finding = audit(replace(GOOD, executions={"a": runs(executions)}))
    assert finding.faults == []
    assert finding.sums["attempts in the journal"] == 3


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"outcomes": {"a": 8}}, "gave 8 instead of 7"),
        ({"executions": {"a": runs(4)}}, "ran 4 times, but has 3 attempts"),
        ({"executions": {"a": runs(1)}}, "ran 1 times, but has 3 attempts"),
        (
            {
                "executions": {"a": runs(2)},
                "failures": [
                    failed(1),
                    failed(2, "infrastructure", message="lost, after the function had ended"),
                ],
            },
            "ran 2 times, but has 3 attempts and ran 3 at least",
        ),
        ({"failures": [failed(1)]}, "has rows for the attempts [1, 3]"),
        ({"failures": [failed(1), failed(1), failed(2)]}, "has rows for the attempts [1, 1, 2, 3]"),
        ({"tasks": []}, "has no row in tasks.jsonl"),
        ({"tasks": [ended(3), ended(1, task_id="b")]}, "b: in the journal"),
        ({"counts": {"failed": 1}}, "the ledger counts"),
        ({"expected": {"a": Expectation(7, is_once=True)}}, "must not run twice and ran 3 times"),
        ({"expected": {"a": Expectation(None)}}, "should have failed with its own error"),
    ],
)
def test_what_does_not_agree_is_found(change: dict[str, Any], fault: str) -> None:
    """A wrong result, an execution too many or too few, a missing row, a stranger, a wrong sum."""
    assert any(fault in found for found in audit(replace(GOOD, **change)).faults)


def test_a_fault_comes_with_the_whole_history_of_its_task() -> None:
    """Rows and executions in order of time, so that the cause can be looked for."""
    (fault,) = audit(replace(GOOD, executions={"a": runs(4)})).faults
    _, *lines = fault.splitlines()
    assert len(lines) == 3 + 4
    assert "attempt 2 infrastructure: it broke" in fault
    assert "succeeded after 3 attempts" in fault
    assert "2001-09-09T01:46:40.000+00:00  ran in process 4711, Dask's run 0" in fault
