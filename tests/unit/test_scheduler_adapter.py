"""The adapter, on a real scheduler without workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from dask._task_spec import Task, TaskRef
from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol import pickle

from scalable_nb.dask_adapter.scheduler import CLIENT_RELEASES_KEYS, SchedulerAdapter

Case = Callable[[SchedulerAdapter, Scheduler], Any]


def run_with_scheduler(case: Case) -> None:
    """Run a case on a scheduler that validates its own state."""

    async def run() -> None:
        options: dict[str, Any] = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
        async with Scheduler(host="127.0.0.1", port=0, validate=True, **options) as scheduler:
            result = case(SchedulerAdapter(scheduler), scheduler)
            if asyncio.iscoroutine(result):
                await result

    asyncio.run(run())


def add_task(scheduler: Scheduler, key: str, *inputs: str) -> None:
    """Add a task that a client wants, and let it become as runnable as it can."""
    ts = scheduler.new_task(key, Task(key, max, *map(TaskRef, inputs), 1, 2), "released")
    for name in inputs:
        ts.add_dependency(scheduler.tasks[name])
    scheduler.client_desires_keys([key], "somebody")
    scheduler.transitions({key: "waiting"}, "test")


def test_failed_task_without_worker_has_the_given_error() -> None:
    """A queued task becomes ``erred`` with the exception."""

    def case(adapter: SchedulerAdapter, scheduler: Scheduler) -> None:
        add_task(scheduler, "x")
        assert scheduler.tasks["x"].state == "queued"
        adapter.fail("x", ValueError("no"))
        ts = scheduler.tasks["x"]
        assert ts.state == "erred"
        assert isinstance(pickle.loads(ts.exception), ValueError)
        assert adapter.blamed_for("x") == "x"

    run_with_scheduler(case)


def test_failed_task_waiting_for_input_fails_its_dependents() -> None:
    """A ``waiting`` task takes the error, and what depends on it blames it."""

    def case(adapter: SchedulerAdapter, scheduler: Scheduler) -> None:
        for key, *inputs in (["x"], ["y", "x"], ["z", "y"]):
            add_task(scheduler, key, *inputs)
        assert scheduler.tasks["y"].state == "waiting"
        adapter.fail("y", pickle.dumps(ValueError("no")))
        assert scheduler.tasks["z"].state == "erred"
        assert adapter.blamed_for("z") == "y"
        adapter.rerun(["y"])
        assert {key: ts.state for key, ts in adapter.tasks.items()} == {
            "x": "queued",
            "y": "waiting",
            "z": "waiting",
        }

    run_with_scheduler(case)


def test_released_task_is_scheduled_with_its_new_resources() -> None:
    """The scheduler decides again about a released task that a client wants."""

    def case(adapter: SchedulerAdapter, scheduler: Scheduler) -> None:
        add_task(scheduler, "x")
        adapter.require_resources("x", {"GPU": 1})
        seen = []

        class Watch(SchedulerPlugin):
            name = "watch"

            def transition(self, key: Any, start: Any, finish: Any, *args: Any, **kw: Any) -> None:
                seen.append((start, finish))

        adapter.add_plugin(Watch())
        adapter.release("x", "test")
        adapter.remove_plugin("watch")
        assert seen[0] == ("queued", "released")
        assert seen[-1] == ("waiting", "no-worker")
        assert adapter.resources_of("x") == {"GPU": 1}
        assert adapter.count_runnable() == 1
        adapter.fill_slots()  # no worker, no effect

    run_with_scheduler(case)


def test_replaced_handlers_are_returned_and_no_longer_called() -> None:
    """The new handler of a message decides whether the old one is called."""

    def case(adapter: SchedulerAdapter, scheduler: Scheduler) -> None:
        add_task(scheduler, "x")
        received: list[Any] = []
        replaced = adapter.replace_stream_handler(
            CLIENT_RELEASES_KEYS, lambda **message: received.append(message)
        )
        scheduler.stream_handlers["client-releases-keys"](keys=["x"], client="somebody")
        assert received == [{"keys": ["x"], "client": "somebody"}]
        assert "x" in scheduler.tasks
        releases: list[Any] = []
        release = adapter.replace_release(lambda **values: releases.append(values))
        replaced(keys=["x"], client="somebody")
        assert [values["keys"] for values in releases] == [["x"]]
        release(**releases[0])
        assert not scheduler.tasks["x"].who_wants
        wants: list[Any] = []
        want = adapter.replace_want(lambda keys, client: wants.append((keys, client)))
        scheduler.stream_handlers["client-desires-keys"](keys=["x"], client="somebody")
        scheduler.client_desires_keys(["x"], "variable-v")
        assert wants == [(["x"], "somebody"), (["x"], "variable-v")]
        want(*wants[1])
        assert [cs.client_key for cs in scheduler.tasks["x"].who_wants or ()] == ["variable-v"]

    run_with_scheduler(case)


def test_registered_handlers_are_found_by_their_names() -> None:
    """Handlers of both kinds are added to Dask's own."""

    def case(adapter: SchedulerAdapter, scheduler: Scheduler) -> None:
        adapter.register_handlers({"scalable_x": print})
        adapter.register_stream_handlers({"scalable-x": print})
        assert scheduler.handlers["scalable_x"] is print
        assert scheduler.stream_handlers["scalable-x"] is print
        assert "scatter" in scheduler.handlers

    run_with_scheduler(case)


def test_released_results_are_forgotten_whoever_wanted_them() -> None:
    """Nothing is wanted afterwards; a name without a connection is no connected client."""

    def case(adapter: SchedulerAdapter, scheduler: Scheduler) -> None:
        add_task(scheduler, "x")
        adapter.hold([scheduler.tasks["x"]], "host")
        assert {cs.client_key for cs in scheduler.tasks["x"].who_wants or ()} == {
            "somebody",
            "host",
        }
        assert not adapter.has_clients()
        adapter.release_all_results()
        assert not scheduler.tasks

    run_with_scheduler(case)


def test_lost_workers_no_longer_count() -> None:
    """Dask's counter of lost workers is back at zero."""

    def case(adapter: SchedulerAdapter, scheduler: Scheduler) -> None:
        add_task(scheduler, "x")
        scheduler.tasks["x"].suspicious = 3
        adapter.forget_losses(scheduler.tasks["x"])
        assert scheduler.tasks["x"].suspicious == 0

    run_with_scheduler(case)


def test_messages_to_unknown_workers_are_dropped() -> None:
    """A worker that has just gone is neither asked nor told anything."""

    def case(adapter: SchedulerAdapter, scheduler: Scheduler) -> None:
        gone = "tcp://127.0.0.1:9"
        adapter.send_to_worker(gone, {"op": "x"})
        adapter.pause_worker(gone, "test")
        adapter.resume_worker(gone, "test")
        assert not adapter.request_return(gone, "x", "test")

    run_with_scheduler(case)


@pytest.mark.parametrize("delay_s", [None, 0.01])
def test_calls_run_in_the_event_loop(delay_s: float | None) -> None:
    """A function is called with its arguments, immediately or later."""

    async def case(adapter: SchedulerAdapter, scheduler: Scheduler) -> None:
        called = asyncio.Event()
        if delay_s is None:
            adapter.call_soon(called.set)
        else:
            adapter.call_later(delay_s, called.set)
        await asyncio.wait_for(called.wait(), 5)

    run_with_scheduler(case)


def test_address_and_port_are_those_that_the_scheduler_listens_on() -> None:
    """Both are known once the scheduler runs."""

    def case(adapter: SchedulerAdapter, scheduler: Scheduler) -> None:
        assert adapter.address == scheduler.address
        assert adapter.http_port > 0

    run_with_scheduler(case)
