"""Tracebacks and messages: the user's part, bounded, whatever the exception does."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as futures_thread
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scalable_nb
from scalable_nb.faults.tracebacks import format_traceback, safe_message, shorten, user_frames


def raised(function: Callable[..., Any], *args: Any) -> BaseException:
    """The exception that a call raises."""
    try:
        function(*args)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def simulate(text: str) -> Any:
    return json.loads(text)


def ping(depth: int) -> int:
    return pong(depth + 1)


def pong(depth: int) -> int:
    return ping(depth + 1)


def recurse() -> None:
    recurse()


def wrapped() -> None:
    try:
        simulate("?")
    except ValueError as error:
        raise RuntimeError("no reply") from error


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit("no message")

    __repr__ = __str__


class Hostile(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


def fail(error: BaseException) -> None:
    raise error


# --- messages ------------------------------------------------------------------


def test_short_message_is_itself() -> None:
    """What a person would see of an ordinary exception is not touched."""
    assert safe_message(ValueError("bad input")) == "bad input"
    assert safe_message(MemoryError()) == ""


def test_long_message_keeps_both_ends() -> None:
    """Of fifty megabytes the beginning, the end and their number remain."""
    text = safe_message(ValueError("first" + "x" * 50_000_000 + "last"), 200)
    assert len(text) <= 200
    assert text.startswith("first")
    assert text.endswith("last")
    assert "characters left out" in text


@given(st.text(max_size=500), st.integers(0, 300))
def test_no_message_is_longer_than_allowed(text: str, max_chars: int) -> None:
    """The limit holds for every text and every limit, and short texts are kept whole."""
    assert len(shorten(text, max_chars)) <= max_chars
    if len(text) <= max_chars:
        assert shorten(text, max_chars) == text


@pytest.mark.parametrize(
    "make", [Unprintable, Hostile, lambda: ValueError("\ud800 undecodable \udcff")]
)
def test_every_exception_has_a_message_that_can_be_stored(
    make: Callable[[], BaseException],
) -> None:
    """A failing __str__ or an undecodable file name does not stop the record."""
    # Apart from the assertions: pytest shows the values in them, and cannot show this one.
    texts = [safe_message(make()), format_traceback(raised(fail, make()))]
    assert all(text.encode("utf-8").decode("utf-8") == text for text in texts)
    assert "SystemExit" in safe_message(Unprintable())


# --- frames --------------------------------------------------------------------


def test_user_frames_leave_libraries_out() -> None:
    """Of a call into the standard library the user's own functions remain, outermost first."""
    frames = user_frames(raised(wrapped).__cause__.__traceback__)
    assert [frame.function for frame in frames] == ["wrapped", "simulate"]
    assert all(frame.file == __file__ and frame.line > 0 for frame in frames)


def test_function_of_a_library_still_has_a_place() -> None:
    """Where the task itself is a library's function, its frames are shown."""
    error = raised(json.loads, "?")
    frames = user_frames(error.__traceback__.tb_next)
    assert frames[-1].function == "JSONDecoder.raw_decode"
    assert user_frames(None) == []


def called_from(file: str, function: Callable[[], Any]) -> BaseException:
    """The exception of a function, its traceback beginning in a file of that name."""
    names: dict[str, Any] = {}
    exec(compile("def call_task(function): function()", file, "exec"), names)
    error = raised(names["call_task"], function)
    assert error.__traceback__ is not None
    return error.with_traceback(error.__traceback__.tb_next)


CALLERS = [
    str(Path(scalable_nb.__file__).parent / "host" / "attempt.py"),
    "/venv/lib/python3.11/site-packages/distributed/worker.py",
    "/usr/lib/python3/dist-packages/cloudpickle/cloudpickle.py",
    futures_thread.__file__,
]


@pytest.mark.parametrize("file", CALLERS)
def test_frames_of_what_called_the_task_are_taken_off(file: str) -> None:
    """What stands above the user's function is not shown; what stands below it is."""
    error = called_from(file, lambda: simulate("?"))
    text = format_traceback(error)
    assert "call_task" not in text
    assert "in simulate" in text
    assert "in raw_decode" in text
    assert [frame.function for frame in user_frames(error.__traceback__)][-1] == "simulate"


@pytest.mark.parametrize("file", CALLERS)
def test_failure_of_the_caller_itself_is_shown_whole(file: str) -> None:
    """Where nothing of the user's ran, the frames that there are say what happened."""
    names: dict[str, Any] = {}
    exec(compile("def load(): raise EOFError('truncated')", file, "exec"), names)
    error = called_from(file, names["load"])
    assert "in call_task" in format_traceback(error)
    assert user_frames(error.__traceback__)[-1].function == "load"


def test_folder_named_like_a_library_is_the_users() -> None:
    """Only an installed Dask is Dask; a project of that name belongs to the user."""
    error = called_from("/home/me/dask/model.py", lambda: simulate("?"))
    assert "in call_task" in format_traceback(error)


def test_thread_pool_above_the_task_is_not_shown() -> None:
    """A traceback that starts in the thread pool begins with the user's function."""
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(simulate, "?").exception()
    assert error is not None
    lines = format_traceback(error).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith("in simulate")
    assert lines[-1].startswith("json.decoder.JSONDecodeError: Expecting value")


# --- tracebacks ----------------------------------------------------------------


def test_causes_groups_and_notes_are_included() -> None:
    """What Python prints of chained, grouped and annotated exceptions is there."""
    text = format_traceback(raised(wrapped))
    assert "JSONDecodeError" in text
    assert "The above exception was the direct cause" in text
    assert text.rstrip().endswith("RuntimeError: no reply")
    group = ExceptionGroup("several", [ValueError("first"), KeyError("second")])
    group.add_note("seen at night")
    text = format_traceback(raised(fail, group))
    assert all(part in text for part in ("several", "ValueError: first", "'second'", "at night"))


@pytest.mark.parametrize("function", [recurse, lambda: ping(0)])
def test_endless_recursion_is_told_in_a_page(function: Callable[[], None]) -> None:
    """A thousand frames become a few, with both ends and the error."""
    text = format_traceback(raised(function))
    assert text.count("\n") < 200
    assert "more times]" in text or "calls left out]" in text
    assert text.rstrip().splitlines()[-1].startswith("RecursionError")


def test_size_is_bounded_and_the_error_stays_readable() -> None:
    """Even with a message of fifty megabytes the frames and the class are there."""
    text = format_traceback(raised(fail, ValueError("x" * 50_000_000 + "last")))
    assert len(text) <= 20_000
    assert "in fail" in text
    assert "ValueError: xxx" in text
    assert text.rstrip().endswith("last")


def chain(length: int) -> BaseException:
    error = ValueError("innermost")
    for number in range(length):
        outer = ValueError(number)
        outer.__cause__ = error
        error = outer
    return error


def nest(depth: int) -> BaseException:
    group: Exception = ValueError("innermost")
    for _ in range(depth):
        group = ExceptionGroup("group", [group])
    return group


def cycle() -> BaseException:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "error", [chain(2000), nest(2000), cycle()], ids=["chain", "nest", "cycle"]
)
def test_monstrous_exceptions_are_formatted_within_the_limit(error: BaseException) -> None:
    """Long chains, deep groups and cycles end in a text of bounded size."""
    text = format_traceback(raised(fail, error), 5000)
    assert 0 < len(text) <= 5000
    assert "ValueError" in text or "ExceptionGroup" in text
