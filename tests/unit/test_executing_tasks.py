"""Who is shown as running on a worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.host.tasks.task_registry import ExecutingTasks


@given(st.integers(1, 4), st.lists(st.integers(0, 9), max_size=60))
def test_as_many_run_as_there_are_threads(threads: int, moves: list[int]) -> None:
    """At every moment the tasks with a thread are min(threads, tasks on the worker)."""
    executing, on_worker, running = ExecutingTasks(), [], set()
    for key in moves:
        if key in on_worker:
            on_worker.remove(key)
            running.discard(key)
            following = executing.release("w", key)
            if following is not None:
                assert following in on_worker
                running.add(following)
        else:
            on_worker.append(key)
            if executing.assign("w", threads, key):
                running.add(key)
        assert len(running) == min(threads, len(on_worker))


def test_whoever_stood_longest_comes_next() -> None:
    """Tasks get threads in the order in which they were sent."""
    executing = ExecutingTasks()
    assert [executing.assign("w", 1, key) for key in "abc"] == [True, False, False]
    assert [executing.release("w", key) for key in "abc"] == ["b", "c", None]


def test_a_task_that_was_stolen_from_a_worker_that_is_gone_leaves_quietly() -> None:
    """Work stealing moves tasks unseen; what is left of them ends with the worker."""
    executing = ExecutingTasks()
    executing.assign("w", 1, "a")
    executing.close("w")
    assert executing.release("w", "a") is None
    assert executing.assign("w", 1, "b")


def test_a_task_that_leaves_the_line_is_forgotten() -> None:
    """A task that was stolen while it stood in line never gets the thread."""
    executing = ExecutingTasks()
    for key in "abc":
        executing.assign("w", 1, key)
    assert executing.release("w", "b") is None
    assert executing.release("w", "a") == "c"
