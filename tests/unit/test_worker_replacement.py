"""What counts against a component's jobs, and against the budget."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from waiting import until

from scalable_nb.host.workers.replacement import ReplacementLimits, WorkerReplacement
from scalable_nb.targets.fleet import WorkerGroup, WorkerKind

KIND = WorkerKind("big", {}, cores=4)


def replacement(
    entries: list[WorkerGroup], how: str | None = None, **rules: Any
) -> tuple[WorkerReplacement, list[str]]:
    """The account of these entries, all of which ended in the same way, and what it told."""
    reported: list[str] = []
    fleet = SimpleNamespace(
        entries={entry.name: entry for entry in entries},
        kinds={KIND.name: KIND},
        how_ended=lambda entry: how,
        log_excerpt=lambda entry: "no such file",
    )
    limits = {"max_replacements": None, "max_core_hours": None, "pending_timeout_s": None}
    notices: Any = SimpleNamespace(notify=reported.append)
    return WorkerReplacement(
        fleet,  # type: ignore[arg-type]
        ReplacementLimits(**{**limits, "fallback": {}, **rules}),
        notices,
    ), reported


@pytest.mark.parametrize(
    ("how", "may_go_on"),
    [("FAILED", False), ("UNKNOWN", False), ("TIMEOUT", False)]
    + [(state, True) for state in ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "CANCELLED")],
)
def test_only_what_the_script_may_be_to_blame_for_stops_a_component(
    how: str, may_go_on: bool
) -> None:
    """Three jobs in a row that ended before they had a worker, unless their nodes failed or
    somebody took them away."""
    account, reported = replacement(
        [WorkerGroup(f"big-{n}", KIND, job_id=str(n)) for n in range(3)], how
    )
    assert len(account.find_ended()) == 3
    assert account.may_open(KIND) is may_go_on
    assert bool(reported) is not may_go_on


def test_a_job_costs_core_hours_before_it_has_a_worker() -> None:
    """A job that runs, with a long prologue or in vain, uses up the budget; one that waits not."""
    budget = 4 * 0.05 / 3600  # a twentieth of a second of its four cores
    waiting, _ = replacement([WorkerGroup("big-0", KIND)], max_core_hours=budget)
    running, reported = replacement(
        [WorkerGroup("big-0", KIND, is_running=True)], max_core_hours=budget
    )
    until(lambda: running.count() or running.is_spent)
    waiting.count()
    assert (waiting.core_hours, waiting.is_spent) == (0, False)
    assert "core hours is used up" in reported[0]
