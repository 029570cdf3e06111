"""Tasks that are not ours: entered up to a limit, followed, never left unfinished."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dask._task_spec import Task
from distributed import KilledWorker, Scheduler
from distributed.protocol import pickle
from tracked_scheduler import compose_host

from scalable_nb.host.composition import HostParts
from scalable_nb.host.tasks.native_tasks import attempt_from_dask
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.journal_reader import read_rows

WORKER = SimpleNamespace(address="tls://127.0.0.1:40001", nthreads=1)


def with_host(folder: Path, case: Callable[[Scheduler, HostParts, RunPaths], None]) -> None:
    """Run a case on a scheduler without workers."""
    paths = RunPaths(folder / "run-1")
    paths.folder.mkdir()

    async def run() -> None:
        options: dict[str, Any] = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
        async with Scheduler(host="127.0.0.1", port=0, **options) as scheduler:
            case(scheduler, compose_host(scheduler, paths), paths)

    asyncio.run(run())


def arrive(scheduler: Scheduler, host: HostParts, keys: list[Any], **values: Any) -> None:
    """A graph of these tasks arrives."""
    for key in keys:
        ts = scheduler.new_task(key, Task(key, abs, 1), "released")
        for name, value in values.items():
            setattr(ts, name, value)
    host.tracker.update_graph(scheduler, client="c", keys=set(), annotations={}, tasks=keys)


def move(host: HostParts, key: Any, *states: str, **values: Any) -> None:
    """A task goes through these states."""
    ts = host.adapter.tasks[key]
    for start, finish in itertools.pairwise(states):
        ts.processing_on = WORKER if finish == "processing" else None  # type: ignore[assignment]
        host.tracker.transition(key, start, finish, **(values if finish == states[-1] else {}))


def test_beyond_the_limit_only_failures_are_entered(tmp_path: Path) -> None:
    """Three rows, one notice; what fails has its rows all the same."""

    def case(scheduler: Scheduler, host: HostParts, paths: RunPaths) -> None:
        host.native._max_rows = 3
        keys = [f"step-{number}" for number in range(5)]
        arrive(scheduler, host, keys)
        arrive(scheduler, host, ["later-1"])
        assert host.recorder.ledger.keys == keys[:3]
        assert len(host.notices.texts()) == 1
        assert "more than 3 tasks" in host.notices.texts()[0]
        for key in keys:
            move(host, key, "released", "waiting", "processing")
        move(host, keys[3], "processing", "memory", startstops=(), nbytes=1)
        move(host, keys[4], "processing", "erred", exception_text="ValueError('no')")
        assert host.recorder.ledger.keys == [*keys[:3], keys[4]]
        for key in keys:
            move(host, key, "released", "forgotten")
        assert host.recorder.ledger.count() | {"never ran": 3, "failed": 1} == (
            host.recorder.ledger.count()
        )
        assert not host.registry
        host.recorder.close()
        (row,) = read_rows(paths.failures).rows
        assert (row["failure_class"], row["category"]) == ("ValueError", "permanent")
        assert len(read_rows(paths.tasks).rows) == 4

    with_host(tmp_path, case)


def test_data_is_no_task(tmp_path: Path) -> None:
    """What was scattered, or is there already, is not entered."""

    def case(scheduler: Scheduler, host: HostParts, paths: RunPaths) -> None:
        arrive(scheduler, host, ["data-1"], run_spec=None)
        arrive(scheduler, host, ["done-1"], state="memory")
        arrive(scheduler, host, [("block", 0)], retries=2)
        ledger = host.recorder.ledger
        assert (ledger.keys, ledger.labels) == (["('block', 0)"], ["('block', 0)"])
        assert (ledger.text("function", 0), ledger.columns["attempts_allowed"][0]) == ("block", 3)

    with_host(tmp_path, case)


@pytest.mark.parametrize("is_needed", [True, False])
def test_a_task_that_is_taken_back_runs_again_or_ends(tmp_path: Path, is_needed: bool) -> None:
    """An attempt is counted where it runs again; otherwise the task has come to its end."""

    def case(scheduler: Scheduler, host: HostParts, paths: RunPaths) -> None:
        arrive(scheduler, host, ["step-1"], who_wants={"somebody"} if is_needed else None)
        move(host, "step-1", "released", "waiting", "processing", "released")
        state = "running" if is_needed else "never ran"
        assert host.recorder.ledger.count()[state] == 1
        assert host.registry["step-1"].attempts == is_needed
        assert host.recorder.has_work() == is_needed

    with_host(tmp_path, case)


def test_what_dask_says_of_a_failure() -> None:
    """The class comes from the text, or from the scheduler's own exception; nothing is opened."""
    worker: Any = SimpleNamespace(address="tls://127.0.0.1:40001")
    failure = attempt_from_dask(
        {
            "exception_text": "TimeoutError('late')", "traceback_text": "  File ...", "worker": "w",
            "startstops": ({"action": "compute", "start": 5.0, "stop": 7.5},),
        }
    )  # fmt: skip
    assert (failure.failure_class, failure.traceback, failure.duration_s) == (
        "TimeoutError", "  File ...", 2.5,
    )  # fmt: skip
    killed = attempt_from_dask(
        {"exception": pickle.dumps(KilledWorker("k", worker, 3)), "worker": "w"}
    )
    assert (killed.failure_class, killed.category) == ("KilledWorker", "infrastructure")
    assert "'k'" in killed.message
    assert attempt_from_dask({}).failure_class == "Exception"
