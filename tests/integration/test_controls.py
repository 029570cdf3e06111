"""The buttons of the table, on a real session: what they do to tasks."""

from __future__ import annotations

import ctypes
import logging
import sys
import time

import pytest
from distributed import wait
from waiting import until

from scalable_nb import RetryPolicy, ScalableSession, TaskPolicy
from scalable_nb.errors import SubmitError, UnknownNameError
from scalable_nb.resubmission.find_call import reproduce
from scalable_nb.telemetry.rows import STATE_LABELS, key_text
from scalable_nb.widgets.task_table.actions import SessionControls

LATE = RetryPolicy(3, base_s=600, max_s=600)


@pytest.fixture
def controls(shared_session: ScalableSession) -> SessionControls:
    return SessionControls(shared_session, shared_session.client.host_api)


def state_of(session: ScalableSession, key: str) -> str:
    session.mirror.refresh()
    ledger = session.mirror.ledger
    row = ledger.row_of.get(key)
    return "" if row is None else STATE_LABELS[ledger.columns["state"][row]]


def refuse(x: int) -> int:
    raise ConnectionError(f"no answer to {x}")


def test_a_waiting_task_is_hurried_and_given_up(
    shared_session: ScalableSession, controls: SessionControls
) -> None:
    """Retry now makes the next attempt at once; give up ends the task with its last error."""
    future = shared_session.client.submit(refuse, 1, retries=LATE)
    key = key_text(future.key)
    until(lambda: state_of(shared_session, key) == "retrying")
    assert controls.act("retry_now", [key]).text == "1 task tried again now"
    until(lambda: len(shared_session.attempts(key)) == 2)
    until(lambda: state_of(shared_session, key) == "retrying")
    assert controls.act("give_up", [key, "nothing of the kind"]).text == "1 task given up"
    with pytest.raises(ConnectionError, match="no answer to 1"):
        future.result(timeout=30)
    assert controls.act("give_up", [key]).text == "0 tasks given up"


def test_tasks_are_cancelled_and_those_that_are_done_are_left(
    shared_session: ScalableSession, controls: SessionControls
) -> None:
    """Cancel ends what is not done and leaves results alone."""
    done = shared_session.client.submit(abs, -3)
    assert done.result(timeout=30) == 3
    waiting = shared_session.client.submit(refuse, 2, retries=LATE)
    keys = [key_text(future.key) for future in (done, waiting)]
    until(lambda: state_of(shared_session, keys[1]) == "retrying")
    assert controls.act("cancel", keys).text == "1 task cancelled"
    until(waiting.cancelled)
    assert done.result() == 3


def test_failed_tasks_are_submitted_again(
    shared_session: ScalableSession, controls: SessionControls
) -> None:
    """Resubmit runs failed tasks again, and leaves alone what must not be called twice."""
    client = shared_session.client
    again = client.submit(refuse, 3)
    once = client.submit(refuse, 4, policy=TaskPolicy(idempotent=False))
    wait([again, once])
    keys = [key_text(future.key) for future in (again, once)]
    reported = controls.act("resubmit", keys).text
    assert reported.startswith("1 task submitted again; 1 left out because they are not idempotent")
    until(lambda: len(shared_session.attempts(keys[0])) == 2)
    assert len(shared_session.attempts(keys[1])) == 1
    with pytest.raises(SubmitError, match="holds no future"):
        controls.act("resubmit", ["a task of another notebook"])
    with pytest.raises(UnknownNameError, match="retry_now"):
        controls.act("retry", keys)


def divide(a: int, b: int) -> float:
    return a / b


def test_a_call_is_reproduced_in_this_process(
    shared_session: ScalableSession, controls: SessionControls
) -> None:
    """The same error is raised here, with a traceback and where `%debug` finds it."""
    zero = shared_session.client.submit(int, 0)
    future = shared_session.client.submit(divide, 1, zero)
    wait(future)
    came = reproduce(future)
    assert (came.outcome, came.where) == ("raised", "this process")
    assert isinstance(came.error, ZeroDivisionError)
    assert sys.last_value is came.error
    assert "in divide" in came.details
    outcome = controls.act("reproduce", [key_text(future.key)])
    assert "raised ZeroDivisionError: division by zero `%debug`" in outcome.text
    assert outcome.follow_up is None


async def later(x: int) -> int:
    raise LookupError(x)


def test_a_coroutine_function_is_reproduced_too(shared_session: ScalableSession) -> None:
    """What ran in a worker's event loop runs in one of its own here."""
    future = shared_session.client.submit(later, 7)
    wait(future)
    assert isinstance(reproduce(future).error, LookupError)


def crash(x: int) -> None:
    ctypes.string_at(0)


def test_a_crash_is_reproduced_in_a_child_process(
    shared_session: ScalableSession, controls: SessionControls
) -> None:
    """What took its worker along takes a child process along, which says where it was."""
    future = shared_session.client.submit(crash, 1, policy=TaskPolicy(worker_losses=0))
    wait(future)
    outcome = controls.act("reproduce", [key_text(future.key)])
    assert "child process" in outcome.text
    assert outcome.follow_up is not None
    came = outcome.follow_up()
    assert "took its process with it (signal 11)" in came.text
    assert "Segmentation fault" in came.details
    assert "in crash" in came.details


def hang(x: int) -> None:
    time.sleep(3600)


def test_a_task_that_does_not_end_says_where_it_hangs(shared_session: ScalableSession) -> None:
    """After its limit the child process is ended and shows the line at which it was."""
    future = shared_session.client.submit(hang, 1, policy=TaskPolicy(timeout_s=1.0))
    wait(future)
    came = reproduce(future)
    assert (came.outcome, came.where) == ("timed out", "a child process")
    assert "in hang" in came.details


def test_what_must_not_be_called_twice_is_not(shared_session: ScalableSession) -> None:
    """A task that is not idempotent is refused, and so is one that nobody remembers."""
    future = shared_session.client.submit(refuse, 5, policy=TaskPolicy(idempotent=False))
    wait(future)
    with pytest.raises(SubmitError, match="not idempotent"):
        reproduce(future)
    assert shared_session.client.host_api.call_of("nothing of the kind") is None


def say(x: int) -> None:
    logging.getLogger("distributed.worker").warning("the pump of station %d leaks", x)
    raise ValueError(x)


def test_the_log_of_an_attempt_is_what_its_worker_said_then(
    shared_session: ScalableSession, controls: SessionControls
) -> None:
    """The lines of the attempt's time, and none of another one's."""
    first = shared_session.client.submit(say, 1)
    wait(first)
    key = key_text(first.key)
    assert any("the pump of station 1 leaks" in line for line in controls.log(key, 1))
    assert controls.log(key, 2) == []
