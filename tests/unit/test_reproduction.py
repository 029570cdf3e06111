"""A failed call made again: where, and what is said of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journal_rows import failure, write_run

from scalable_nb.cache.keys import own_result_key
from scalable_nb.cache.store import ResultStore
from scalable_nb.client.call_log import RecordedBatch, RecordedCall
from scalable_nb.client.call_log_writer import CallLogWriter
from scalable_nb.client.packing import pack_arguments, pack_function
from scalable_nb.errors import SubmitError
from scalable_nb.paths import RunPaths
from scalable_nb.protocol.call import Call
from scalable_nb.resubmission.failed_call import FailedCall
from scalable_nb.resubmission.find_call import call_of_run


def call_of(function: Callable[..., Any], *args: Any, **options: Any) -> FailedCall:
    arguments, _, buffers, _ = pack_arguments(args, {}, function)
    values: dict[str, Any] = {
        "label": f"{function.__name__}(...)",
        "call": Call(pack_function(function).pickled, arguments, buffers=buffers),
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


def record_calls(
    run: RunPaths,
    function: Callable[..., Any],
    calls: dict[str, tuple[Any, ...]],
    inputs: tuple[str, ...] = (),
    **wire: Any,
) -> None:
    """Write down what tasks of a run call, as a client does before they run."""
    name = "".join(calls)
    batch = RecordedBatch(name, "sweep", function.__name__, wire=wire, at=time.time())
    writer = CallLogWriter(run.calls, f"kernel-{name}", 1 << 30)
    made = []
    for key, args in calls.items():
        arguments, _, buffers, _ = pack_arguments(args, {}, function)
        call = Call(pack_function(function).pickled, arguments, buffers=buffers)
        made.append(RecordedCall(key, call, inputs, ", ".join(map(repr, args))))
    writer.write_calls(batch, made)
    writer.close()


def test_a_call_of_a_finished_run_takes_kept_results(tmp_path: Path) -> None:
    """What another task returned is read from where it was kept; where it was not, that is said."""
    run = write_run(tmp_path, [failure(1, task_id="fails")])
    function = pow
    record_calls(run, function, {"input": (2, 3)})
    record_calls(run, function, {"fails": (10, 2)}, inputs=("input",))
    with pytest.raises(SubmitError, match="takes the result of 'input', which was not kept"):
        call_of_run(run, "fails")
    ResultStore(run.results).put(own_result_key("input"), 8)
    call = call_of_run(run, "fails")
    assert call.inputs == [8]
    assert call.run().value == 100
    with pytest.raises(SubmitError, match="no record of the call of 'never ran'"):
        call_of_run(run, "never ran")
