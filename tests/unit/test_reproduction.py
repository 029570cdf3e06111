"""A failed call made again: where, and what is said of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from scalable_nb.calls import Call, pack_arguments, pack_function
from scalable_nb.failedcall import FailedCall


def call_of(function: Callable[..., Any], *args: Any, **options: Any) -> FailedCall:
    arguments, _, buffers = pack_arguments(args, {}, function)
    values: dict[str, Any] = {
        "label": f"{function.__name__}(...)",
        "call": Call(pack_function(function), arguments, buffers=buffers),
        "inputs": [],
        "is_async": False,
        "timeout_s": None,
        "memory_limit_bytes": None,
        "needs_child": True,
    }
    return FailedCall(**{**values, **options})


def test_a_call_that_succeeds_this_time_says_what_it_returned() -> None:
    """In this process the value is there too; a child process shows it as text."""
    here = call_of(abs, -3, needs_child=False).run()
    assert (here.outcome, here.value) == ("returned", 3)
    assert "abs(...) in this process" in here.text
    there = call_of(abs, -3).run()
    assert (there.outcome, there.value) == ("returned", None)
    assert there.details.strip() == "returned 3"


def test_a_child_process_tells_what_was_raised_and_printed() -> None:
    """Its output and traceback come back, and this process is as it was."""

    def work(x: int) -> None:
        print("step one")
        os.environ["TOUCHED"] = "yes"
        raise KeyError(x)

    came = call_of(work, 7).run()
    assert came.outcome == "raised"
    assert "step one" in came.details
    assert "KeyError: 7" in came.details
    assert "TOUCHED" not in os.environ


def test_a_child_process_that_dies_tells_how() -> None:
    """An exit code or a signal is what is left of it."""
    assert "(exit code 3)" in call_of(os._exit, 3).run().text
    assert "(signal 6)" in call_of(os.abort).run().text


def test_the_memory_of_the_worker_is_the_limit() -> None:
    """A call that needed more than its worker had fails with a traceback, not the machine."""

    def grow() -> int:
        return len(bytearray(3_000_000_000))

    came = call_of(grow, memory_limit_bytes=1_000_000_000).run()
    assert came.outcome == "raised"
    assert "MemoryError" in came.details
    assert "in grow" in came.details


def test_a_call_that_does_not_end_is_ended_and_says_where_it_was() -> None:
    """After the task's limit the child process writes down its line and goes."""
    began = time.monotonic()
    came = call_of(time.sleep, 3600, timeout_s=0.5).run()
    assert came.outcome == "timed out"
    assert "limit of 0.5 s" in came.text
    assert time.monotonic() - began < 60
