"""Rows as a run writes them, for the tests of everything that reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scalable_nb.paths import RunPaths

RUN_ID = "run-20260301T120000Z-demo-0123abcd"

TRACEBACK = """Traceback (most recent call last):
  File "/home/ada/model.py", line 12, in run_simulation
    return solve(load(scenario_id))
  File "/home/ada/model.py", line 31, in solve
    grid = np.zeros(shape)
"""


def failure(scenario: int = 1, **values: Any) -> dict[str, Any]:
    """One failed attempt of ``run_simulation(scenario_id=…)``."""
    row: dict[str, Any] = {
        "run_id": RUN_ID,
        "failure_class": "ValueError",
        "message": "invalid input data",
        "timestamp": "2026-03-01T12:01:00.000+00:00",
        "provider": "local",
        "task_id": f"run_simulation-{scenario}",
        "details": {},
        "event_type": "failure",
        "schema_version": 1,
        "task_name": "run_analysis",
        "function_name": "run_simulation",
        "component": "analysis",
        "tag": "analysis",
        "attempt": 1,
        "attempts_allowed": 4,
        "is_final": True,
        "will_retry": False,
        "retry_in_s": None,
        "category": "permanent",
        "fingerprint": "",
        "error_module": "builtins",
        "traceback": "",
        "worker": "worker-2",
        "host": "n1",
        "job_id": None,
        "job_state": None,
        "exit_code": None,
        "memory_bytes": None,
        "memory_limit_bytes": None,
        "queued_s": 0.01,
        "duration_s": 0.1,
        "args_preview": f"scenario_id={scenario}",
    }
    row.update(values)
    row["traceback"] = row["traceback"] or f"{TRACEBACK}{row['failure_class']}: {row['message']}"
    row["fingerprint"] = row["fingerprint"] or f"{row['failure_class']}-{row['category']}"
    return row


def attempts(scenario: int, count: int, final: bool = True, **values: Any) -> list[dict[str, Any]]:
    """``count`` failed attempts of one task, the last one final or followed by a success."""
    return [
        failure(
            scenario,
            attempt=n,
            is_final=final and n == count,
            will_retry=not (final and n == count),
            **values,
        )
        for n in range(1, count + 1)
    ]


def tutorial_failures() -> list[dict[str, Any]]:
    """The three failed tasks of the tutorial, and two tasks that a retry mended."""
    return [
        *attempts(
            47,
            4,
            failure_class="MemoryError",
            message="unable to allocate 4.2GB",
            category="resource",
            worker="worker-3",
            duration_s=180.2,
        ),
        *attempts(5, 1, False, failure_class="ConnectionError", message="connection reset",
                  category="transient", worker="worker-1", duration_s=2.0),
        *attempts(6, 2, False, failure_class="ConnectionError", message="connection reset",
                  category="transient", worker="worker-2", duration_s=3.0),
        failure(92, failure_class="TimeoutError", message="exceeded 300s limit",
                category="timeout", worker="worker-1", duration_s=300.04),
        failure(13),
    ]  # fmt: skip


def task(scenario: int = 1, **values: Any) -> dict[str, Any]:
    """One task that ended."""
    row: dict[str, Any] = {
        "run_id": RUN_ID,
        "schema_version": 1,
        "event_type": "task",
        "timestamp": "2026-03-01T12:02:00.000+00:00",
        "task_id": f"run_simulation-{scenario}",
        "task_name": "run_analysis",
        "function_name": "run_simulation",
        "component": "analysis",
        "tag": "analysis",
        "batch": "",
        "state": "succeeded",
        "attempts": 1,
        "attempts_allowed": 4,
        "worker": "worker-1",
        "submitted_at": "2026-03-01T12:00:01.000+00:00",
        "started_at": "2026-03-01T12:00:02.000+00:00",
        "duration_s": 4.0,
        "result_bytes": 100,
        "args_preview": f"scenario_id={scenario}",
        "failure_class": None,
        "reason": None,
    }
    row.update(values)
    return row


def tutorial_tasks() -> list[dict[str, Any]]:
    """All hundred tasks of the tutorial's run; four of them came from the cache."""
    special: dict[int, dict[str, Any]] = {
        47: {"state": "failed", "attempts": 4, "failure_class": "MemoryError"},
        92: {"state": "failed", "failure_class": "TimeoutError"},
        13: {"state": "failed", "failure_class": "ValueError"},
        5: {"attempts": 2},
        6: {"attempts": 3},
    }
    cached = {n: {"state": "cached", "attempts": 0} for n in (20, 21, 22, 23)}
    return [task(n, **special.get(n, cached.get(n, {}))) for n in range(100)]


def write_run(
    runs_dir: Path,
    failures: Iterable[Mapping[str, Any]] = (),
    tasks: Iterable[Mapping[str, Any]] = (),
    inputs: Iterable[Mapping[str, Any]] = (),
    **files: Mapping[str, Any],
) -> RunPaths:
    """A run folder with these rows; ``files`` are ``run``, ``summary`` and ``session``."""
    run = RunPaths(runs_dir / RUN_ID)
    run.folder.mkdir(parents=True)
    run.failures.write_text("".join(json.dumps(row) + "\n" for row in failures))
    run.tasks.write_text("".join(json.dumps(row) + "\n" for row in tasks))
    if inputs:
        run.inputs.write_text("".join(json.dumps(row) + "\n" for row in inputs))
    for name, value in files.items():
        (run.folder / f"{name}.json").write_text(json.dumps(value))
    return run
