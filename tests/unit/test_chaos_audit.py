"""The audit after a storm finds what does not agree; an audit that finds nothing proves nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from chaos.audit import Evidence, audit
from chaos.workload import Expectation


def failed(attempt: int, category: str = "transient", **values: Any) -> dict[str, Any]:
    return {"task_id": "a", "attempt": attempt, "category": category, "message": "it broke",
            "failure_class": "ConnectionError", **values}  # fmt: skip


def ended(attempts: int, state: str = "succeeded", task_id: str = "a") -> dict[str, Any]:
    return {"task_id": task_id, "attempts": attempts, "state": state}


#: A task that failed once, was lost once with its worker, and succeeded.
GOOD = Evidence(
    expected={"a": Expectation(7)},
    outcomes={"a": 7},
    executions={"a": 3},
    failures=[failed(1), failed(2, "infrastructure")],
    tasks=[ended(3)],
    counts={"succeeded": 1, "failed": 0},
)


@pytest.mark.parametrize("executions", [3, 2])
def test_records_that_agree_have_no_faults(executions: int) -> None:
    """A lost attempt may have been killed before the first line of its function."""
    finding = audit(replace(GOOD, executions={"a": executions}))
    assert finding.faults == []
    assert finding.sums["attempts in the journal"] == 3


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"outcomes": {"a": 8}}, "gave 8 instead of 7"),
        ({"executions": {"a": 4}}, "ran 4 times, but has 3 attempts"),
        ({"executions": {"a": 1}}, "ran 1 times, but has 3 attempts"),
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
