"""Which category an exception gets, and which rules of the user's name it."""

from __future__ import annotations

import errno
import http.client
import io
import json
import socket
import sqlite3
import ssl
import subprocess
import urllib.error
from collections.abc import Callable
from email.message import Message
from typing import Any

import httpx
import numpy as np
import pytest
import requests
from distributed.comm import CommClosedError
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb import errors
from scalable_nb.faults.categories import Category
from scalable_nb.faults.classify import classify, matches, verdict


def caused(error: BaseException, cause: BaseException) -> BaseException:
    """The error as ``raise error from cause`` leaves it."""
    error.__cause__ = cause
    return error


def while_handling(error: BaseException, context: BaseException) -> BaseException:
    """The error as raised inside ``except``."""
    error.__context__ = context
    return error


def library_class(full_name: str, *bases: type[BaseException]) -> type[BaseException]:
    """A class as a library that is not installed here would define it."""
    module, _, name = full_name.rpartition(".")
    return type(name, bases or (Exception,), {"__module__": module, "__qualname__": name})


def requests_error(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} for url", response=response)


def httpx_error(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://127.0.0.1")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status))


def urllib_error(status: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://127.0.0.1", status, "no", Message(), io.BytesIO())


def aiohttp_error(status: int) -> BaseException:
    error = library_class("aiohttp.client_exceptions.ClientResponseError")()
    error.status = status  # type: ignore[attr-defined]
    return error


def botocore_error(status: int, code: str = "Other") -> BaseException:
    error = library_class("botocore.exceptions.ClientError")("An error occurred")
    error.response = {  # type: ignore[attr-defined]
        "Error": {"Code": code},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return error


class Simulation(Exception):
    """An error of the user's that says nothing by itself."""


TRANSIENT = [
    ConnectionResetError(),
    ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
    BrokenPipeError(),
    TimeoutError("timed out"),
    socket.gaierror(-3, "Temporary failure in name resolution"),
    OSError(errno.EBUSY, "busy"),
    OSError(errno.EHOSTUNREACH, "unreachable"),
    BlockingIOError(errno.EAGAIN, "again"),
    CommClosedError("in <TCP>: Stream is closed"),
    http.client.RemoteDisconnected("closed"),
    http.client.IncompleteRead(b""),
    ssl.SSLError("EOF"),
    requests.ConnectionError("refused"),
    requests.ReadTimeout(),
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
    urllib.error.URLError(ConnectionRefusedError()),
    library_class(
        "urllib3.exceptions.ReadTimeoutError", library_class("urllib3.exceptions.TimeoutError")
    )(),
    library_class(
        "aiohttp.client_exceptions.ServerDisconnectedError",
        library_class("aiohttp.client_exceptions.ClientConnectionError"),
    )(),
    botocore_error(400, "ThrottlingException"),
    sqlite3.OperationalError("database is locked"),
    RuntimeError("API rate limit exceeded"),
    RuntimeError("the service is temporarily unavailable"),
    caused(RuntimeError("failed"), ConnectionResetError()),
    caused(Simulation(), caused(Simulation(), TimeoutError())),
    while_handling(RuntimeError("failed"), ConnectionResetError()),
    errors.RemoteError("requests.exceptions.ConnectionError", "refused"),
]

PERMANENT = [
    ValueError("bad"),
    TypeError(),
    KeyError("x"),
    IndexError(),
    ZeroDivisionError(),
    AttributeError(),
    NameError(),
    AssertionError(),
    ModuleNotFoundError("No module named 'x'"),
    NotImplementedError(),
    RecursionError(),
    SyntaxError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    json.JSONDecodeError("no", "", 0),
    np.linalg.LinAlgError(),
    FileNotFoundError(errno.ENOENT, "no", "x"),
    PermissionError(),
    OSError(errno.EROFS, "read only"),
    SystemExit(503),
    ssl.SSLCertVerificationError("expired"),
    urllib.error.URLError(FileNotFoundError()),
    httpx.UnsupportedProtocol("ftp"),
    requests.exceptions.InvalidURL("no"),
    errors.PolicyError("no"),
    errors.RemoteError("ValueError", "rate limit"),
    caused(RuntimeError("failed"), KeyError("x")),
    caused(ValueError("bad reply"), ConnectionError()),
    ValueError("connection reset"),
]

RESOURCE = [
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((10**9,), np.dtype("f8")),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    errors.OutOfMemoryError("the worker used 5 GB of 4 GB"),
    RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("std::bad_alloc"),
    caused(RuntimeError("failed"), MemoryError()),
]

OTHERS = [
    (Category.TIMEOUT, errors.TaskTimeoutError("ran longer than 5 s")),
    (Category.TIMEOUT, subprocess.TimeoutExpired("model", 5)),
    (Category.INFRASTRUCTURE, errors.WorkerLostError("SIGKILL")),
    (Category.INFRASTRUCTURE, errors.UnknownOutcomeError("SIGKILL")),
    (Category.INFRASTRUCTURE, errors.HostDiedError("gone")),
    (Category.UNKNOWN, errors.ResultValidationError("refused")),
    (Category.UNKNOWN, caused(errors.ResultValidationError("raised"), KeyError())),
    (Category.UNKNOWN, Exception()),
    (Category.UNKNOWN, RuntimeError("No such file or directory")),
    (Category.UNKNOWN, Simulation("diverged")),
    (Category.UNKNOWN, KeyboardInterrupt()),
    (Category.UNKNOWN, OSError("no number")),
    (Category.UNKNOWN, while_handling(RuntimeError("flaky"), KeyError("cache miss"))),
]

TABLE = [
    *((Category.TRANSIENT, error) for error in TRANSIENT),
    *((Category.PERMANENT, error) for error in PERMANENT),
    *((Category.RESOURCE, error) for error in RESOURCE),
    *OTHERS,
]


@pytest.mark.parametrize(("category", "error"), TABLE, ids=[repr(row[1])[:60] for row in TABLE])
def test_errors_get_the_category_they_deserve(category: Category, error: BaseException) -> None:
    """The table of common errors, of Python and of libraries, is classified as a person would."""
    assert classify(error) is category


@pytest.mark.parametrize(
    "make", [requests_error, httpx_error, urllib_error, aiohttp_error, botocore_error]
)
@pytest.mark.parametrize(
    ("status", "category"),
    [
        (429, "transient"),
        (408, "transient"),
        (500, "transient"),
        (503, "transient"),
        (400, "permanent"),
        (401, "permanent"),
        (404, "permanent"),
    ],
)
def test_http_status_decides(make: Any, status: int, category: str) -> None:
    """A busy or broken service passes, a request that it refuses does not."""
    error = make(status)
    try:
        assert classify(error) == category
        assert classify(caused(RuntimeError("fetch failed"), error)) == category
    finally:
        if isinstance(error, urllib.error.HTTPError):
            error.close()


def test_suppressed_context_is_not_asked() -> None:
    """``raise ... from None`` hides what was being handled from the classification too."""
    error = while_handling(RuntimeError("failed"), ConnectionResetError())
    error.__suppress_context__ = True
    assert classify(error) is Category.UNKNOWN


def test_cause_of_an_incidental_error_does_not_make_it_permanent() -> None:
    """Behind an exception that was merely being handled nothing counts as permanent."""
    error = while_handling(RuntimeError("flaky"), caused(RuntimeError(), ValueError()))
    assert classify(error) is Category.UNKNOWN
    error = while_handling(RuntimeError("flaky"), caused(RuntimeError(), MemoryError()))
    assert classify(error) is Category.RESOURCE


@pytest.mark.parametrize(
    ("members", "category"),
    [
        ([ConnectionResetError(), TimeoutError()], "transient"),
        ([ConnectionResetError(), ValueError()], "permanent"),
        ([ConnectionResetError(), MemoryError()], "resource"),
        ([ConnectionResetError(), Exception()], "transient"),
        ([Exception(), Exception()], "unknown"),
        ([ExceptionGroup("inner", [ConnectionResetError()])], "transient"),
    ],
)
def test_group_is_as_hard_as_its_hardest_member(members: list[Exception], category: str) -> None:
    """One bug among passing troubles makes the whole group permanent."""
    assert classify(ExceptionGroup("several", members)) == category


# --- exceptions that misbehave -------------------------------------------------


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit("no message")

    __repr__ = __str__


class Hostile(Exception):
    """Every attribute that could be asked for raises, and it is false."""

    def __bool__(self) -> bool:
        raise RuntimeError

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


def cycle() -> BaseException:
    first, second = Simulation("first"), Simulation("second")
    first.__cause__, second.__cause__ = second, first
    return first


def self_context() -> BaseException:
    error = Simulation("itself")
    error.__context__ = error
    return error


def long_chain() -> BaseException:
    error: BaseException = ValueError("far away")
    for _ in range(5000):
        error = caused(Simulation(), error)
    return error


def deep_group() -> BaseException:
    group = ExceptionGroup("innermost", [Simulation()])
    for _ in range(200):
        group = ExceptionGroup("group", [group, group])
    return group


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "make",
    [
        Unprintable,
        Hostile,
        lambda: caused(Simulation(), Hostile()),
        cycle,
        self_context,
        long_chain,
        deep_group,
    ],
    ids=["unprintable", "hostile", "hostile cause", "cycle", "itself", "chain", "group"],
)
def test_strange_exceptions_are_unknown_and_nothing_worse(
    make: Callable[[], BaseException],
) -> None:
    """However an exception misbehaves, its classification ends, and without another exception."""
    assert classify(make()) is Category.UNKNOWN


def test_huge_message_is_not_searched() -> None:
    """Of a message of many megabytes only the beginning and the end are looked at."""
    assert classify(RuntimeError("x" * 10_000_000)) is Category.UNKNOWN
    assert classify(RuntimeError("x" * 10_000_000 + ": Connection reset")) is Category.TRANSIENT


LINKS = st.sampled_from(["__cause__", "__context__"])
CLASSES = st.sampled_from(
    [ValueError, OSError, Simulation, Unprintable, MemoryError, SystemExit, TimeoutError]
)


@given(st.lists(CLASSES, min_size=1, max_size=6), st.data())
def test_any_web_of_exceptions_is_classified(
    classes: list[type[BaseException]], data: st.DataObject
) -> None:
    """Causes and contexts that point anywhere, themselves included, lead to one category."""
    web = [kind() for kind in classes]
    places = st.integers(0, len(web) - 1)
    for error in web:
        setattr(error, data.draw(LINKS), web[data.draw(places)])
    assert isinstance(classify(web[0]), Category)


# --- the user's rules ----------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "error", "is_match"),
    [
        (ConnectionError, ConnectionResetError(), True),
        (ConnectionError, ValueError(), False),
        (ConnectionError, caused(RuntimeError(), ConnectionError()), False),
        ("ConnectionError", ConnectionResetError(), True),
        ("builtins.OSError", ConnectionResetError(), True),
        ("Simulation", Simulation(), True),
        (f"{__name__}.Simulation", Simulation(), True),
        ("other.Simulation", Simulation(), False),
        ("imulation", Simulation(), False),
        ("requests.ConnectionError", requests.ConnectTimeout(), True),
        ("requests.exceptions.ConnectionError", requests.ConnectTimeout(), True),
        ("requests.ConnectionError", ConnectionError(), False),
        ("httpx.ReadTimeout", httpx.ReadTimeout(""), True),
        ("pkg.Error", errors.RemoteError("pkg.sub.Error", "no"), True),
        (lambda error: "flaky" in str(error), Simulation("flaky"), True),
        (lambda error: "flaky" in str(error), Simulation("bad"), False),
        (lambda error: np.array([]).size, Simulation(), False),
    ],
)
def test_rules_name_errors_like_an_except_clause(
    rule: Any, error: BaseException, is_match: bool
) -> None:
    """Types, names and functions pick out the errors they mean and no others."""
    assert matches(rule, error) is is_match


def test_class_of_a_cell_that_ran_again_still_matches() -> None:
    """A rule made before the cell was run again means the class of the same name."""
    old, new = library_class("__main__.Diverged"), library_class("__main__.Diverged")
    assert matches(old, new())


@pytest.mark.parametrize("trouble", [KeyError("x"), SystemExit(1), KeyboardInterrupt()])
def test_failing_predicate_does_not_hide_the_error(trouble: BaseException) -> None:
    """A rule that fails counts as no, and the error carries a note about it."""

    def is_flaky(error: BaseException) -> bool:
        raise trouble

    error = Simulation("diverged")
    assert not matches(is_flaky, error)
    assert type(trouble).__name__ in error.__notes__[0]
    assert "is_flaky" in error.__notes__[0]


def test_giving_up_wins_over_retrying() -> None:
    """An error that both lists name is not retried."""
    error = ConnectionResetError()
    assert verdict(error, (), ()) is None
    assert verdict(error, (OSError,), ()) == "retry_on"
    assert verdict(error, (OSError,), ("ConnectionError",)) == "give_up_on"
    assert verdict(error, (), (ValueError,)) is None
