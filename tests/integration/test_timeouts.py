"""A time limit ends the attempt, whatever the function is doing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from scalable_nb import ScalableSession, TaskPolicy, errors


def sleep_in_c(seconds: float) -> None:
    """Wait in C, without the interpreter's lock."""
    time.sleep(seconds)


def compute_in_c(letters: int) -> None:
    """Keep the interpreter's lock for hours: nothing in this process can run meanwhile."""
    re.match(r"(a+)+$", "a" * letters + "b")


def swallow_everything(seconds: float) -> None:
    """Catch whatever comes and go on."""
    deadline = time.monotonic() + seconds
    caught: list[BaseException] = []
    while time.monotonic() < deadline:
        try:
            time.sleep(0.01)
        except BaseException as error:
            caught.append(error)


class SlowToLoad:
    """As a function that imports a large package where nothing is imported yet."""

    def __reduce__(self) -> tuple[Callable[[float], None], tuple[float]]:
        return sleep_in_c, (2.0,)


def test_what_it_takes_to_load_a_call_is_no_part_of_its_time(
    shared_session: ScalableSession,
) -> None:
    """Imports in a new process take as long as they take; the limit is the function's."""
    future = shared_session.client.submit(type, SlowToLoad(), policy=TaskPolicy(timeout_s=1))
    assert future.result(timeout=60) is type(None)
    assert len(shared_session.client.attempts(future)) == 1


@pytest.mark.parametrize(
    ("function", "argument"),
    [(sleep_in_c, 600), (compute_in_c, 60), (swallow_everything, 600)],
    ids=["sleep", "lock-held", "swallows"],
)
def test_the_error_comes_in_time_and_the_slot_comes_back(
    shared_session: ScalableSession, function: Callable[[int], None], argument: int
) -> None:
    """The error is there within the limit and two seconds, and the worker works again."""
    client = shared_session.client
    client.wait_for_workers(2)
    future = client.submit(function, argument, policy=TaskPolicy(timeout_s=1), pure=False)
    begun_at = time.monotonic()
    with pytest.raises(errors.TaskTimeoutError, match="longer than its limit of 1 s"):
        future.result(timeout=60)
    assert time.monotonic() - begun_at < 1 + 2 + 5  # five more for a busy machine
    (row,) = client.attempts(future)
    assert (row["category"], row["failure_class"]) == ("timeout", "TaskTimeoutError")
    # As many at once as there are slots: both are free again.
    client.wait_for_workers(2)
    assert client.map(time.sleep, [0.2, 0.21], pure=False).results() == [None, None]
