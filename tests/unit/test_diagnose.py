"""What the diagnosis says of rows with a known cause."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from journal_rows import attempts, failure, task, tutorial_failures, tutorial_tasks
from test_journal_reader import ANY_ROWS

from scalable_nb.diagnosis.diagnose import diagnose
from scalable_nb.diagnosis.findings import Finding
from scalable_nb.telemetry.dataframes import failures_frame


def finding(found: list[Finding], rule: str) -> Finding:
    return next(item for item in found if item.rule == rule)


def test_nothing_failed_nothing_found() -> None:
    """Of a run without failures the diagnosis says nothing."""
    assert diagnose([], tasks=tutorial_tasks()) == []


def test_the_three_failures_of_the_tutorial() -> None:
    """Scenario 47 needs memory, 92 time, 13 better input; the retries of others helped."""
    found = diagnose(tutorial_failures(), tasks=tutorial_tasks())
    memory = finding(found, "out_of_memory")
    assert "run_simulation(scenario_id=47)" in memory.sentence
    assert "after 180 s" in memory.sentence
    assert "Raise `memory` of component `analysis`" in memory.action
    limit = finding(found, "timeout")
    assert "run_simulation(scenario_id=92)" in limit.sentence
    assert "300 s" in limit.sentence
    assert "resubmit(futures, timeout_s=600)" in limit.action
    bad_input = finding(found, "fast_permanent")
    assert "run_simulation(scenario_id=13)" in bad_input.sentence
    assert "within 0.1 s" in bad_input.sentence
    assert "retry will not help" in bad_input.sentence
    assert finding(found, "retries_helped").evidence["tasks"] == 2
    assert finding(found, "retries_useless").evidence["retries"] == 3


def test_what_was_resubmitted_is_not_called_retried() -> None:
    """Failing again when a person asks for it says nothing of the retries that were set."""
    once = [failure(7, attempt=1, is_final=True), failure(7, attempt=2, is_final=True)]
    assert "retries_useless" not in {found.rule for found in diagnose(once, tasks=[])}


CAUSES: list[tuple[str, dict[str, Any], str]] = [
    ("out_of_memory", {"failure_class": "_ArrayMemoryError", "category": "resource"}, "memory"),
    (
        "out_of_memory",
        {
            "failure_class": "OutOfMemoryError",
            "category": "infrastructure",
            "memory_limit_bytes": 2_000_000_000,
        },
        "`memory: 4G`",
    ),
    (
        "disk_full",
        {
            "failure_class": "OSError",
            "category": "resource",
            "message": "[Errno 28] No space left on device: '/tmp/x'",
        },
        "df -h",
    ),
    ("timeout", {"failure_class": "TaskTimeoutError", "category": "timeout"}, "timeout_s="),
    (
        "missing_module",
        {"failure_class": "ModuleNotFoundError", "message": "No module named 'xarray.core'"},
        "%pip install xarray`",
    ),
    (
        "missing_file",
        {
            "failure_class": "FileNotFoundError",
            "message": "[Errno 2] No such file or directory: '/data/a.nc'",
        },
        "path",
    ),
    (
        "permission",
        {
            "failure_class": "PermissionError",
            "message": "[Errno 13] Permission denied: '/data/b.nc'",
        },
        "!ls -ld /data/b.nc",
    ),
    (
        "network",
        {
            "failure_class": "HTTPError",
            "category": "transient",
            "message": "503 Service Unavailable",
        },
        "Ask less often",
    ),
    (
        "network",
        {"failure_class": "ConnectionResetError", "category": "transient", "message": "reset"},
        "resubmit(futures, retries=3)",
    ),
    ("lost_worker", {"failure_class": "WorkerLostError", "category": "infrastructure"}, "resubmit"),
    ("permanent", {"failure_class": "KeyError", "duration_s": 60.0}, "Read the traceback"),
]


@pytest.mark.parametrize(("rule", "values", "action"), CAUSES)
def test_one_cause_is_named_first(rule: str, values: dict[str, Any], action: str) -> None:
    """Twenty tasks with one cause: it comes first, with its numbers and what to type."""
    found = diagnose([failure(n, **values) for n in range(20)])
    assert [item.rule for item in found] == [rule]
    assert found[0].evidence["failed_tasks"] == 20
    assert found[0].sentence.startswith("20 tasks (e.g. run_simulation(scenario_id=0)) ")
    assert action in found[0].action
    assert 0 < found[0].confidence <= 1


def test_names_in_messages_are_evidence() -> None:
    """The missing modules and files themselves are named."""
    rows = [
        failure(1, failure_class="ModuleNotFoundError", message="No module named 'xarray'"),
        failure(2, failure_class="FileNotFoundError",
                message="[Errno 2] No such file or directory: '/data/a.nc'"),
    ]  # fmt: skip
    found = diagnose(rows)
    assert finding(found, "missing_module").evidence["modules"] == ["xarray"]
    assert "`/data/a.nc`" in finding(found, "missing_file").sentence


def test_the_costliest_cause_comes_first() -> None:
    """Causes are ordered by the tasks they cost, not by the attempts they made."""
    transient = {"failure_class": "ConnectionError", "category": "transient"}
    rows = [row for n in range(9) for row in attempts(n, 3, False, **transient)]
    rows += [failure(n) for n in (50, 51)]
    assert [item.rule for item in diagnose(rows)] == ["fast_permanent", "network"]


def test_a_retry_that_is_not_over_has_not_helped() -> None:
    """Only a task that succeeded after a failed attempt was helped by its retry."""
    rows = attempts(1, 1, False) + attempts(2, 1, False) + attempts(3, 1, True)
    tasks = [task(1), task(3)]  # 2 still runs; 3 was resubmitted by a person
    assert finding(diagnose(rows, tasks=tasks), "retries_helped").evidence["tasks"] == 1
    assert [item.rule for item in diagnose(rows)] == ["fast_permanent"]


def test_a_table_gives_the_findings_of_its_rows() -> None:
    """A table of failures may be diagnosed as well as its rows."""
    rows = tutorial_failures()
    of_table = diagnose(failures_frame(rows), tasks=tutorial_tasks())
    assert of_table == diagnose(rows, tasks=tutorial_tasks())


@given(rows=ANY_ROWS)
def test_no_row_is_fatal_to_the_diagnosis(rows: list[dict[str, Any]]) -> None:
    """Any JSON objects can be diagnosed, and no attempt is explained twice."""
    found = diagnose(rows)
    causes = [item for item in found if not item.rule.startswith("retries")]
    assert sum(item.evidence["attempts"] for item in causes) <= len(rows)
