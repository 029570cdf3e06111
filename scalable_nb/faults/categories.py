"""The categories of failures, and the tables that say what belongs to which."""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import Final


class Category(StrEnum):
    """What kind of failure an attempt ended with; decides whether a retry can help."""

    TRANSIENT = "transient"  # passes by itself: connection, rate limit, busy resource
    PERMANENT = "permanent"  # the next attempt would meet it again: a bug, bad input
    RESOURCE = "resource"  # not enough memory, disk or files
    TIMEOUT = "timeout"  # the attempt ran longer than it may
    INFRASTRUCTURE = "infrastructure"  # the worker, its job or its node went away
    UNKNOWN = "unknown"  # nothing says; retried


_T, _P, _R = Category.TRANSIENT, Category.PERMANENT, Category.RESOURCE

_PERMANENT_BUILTINS: Final = (
    "ArithmeticError AssertionError AttributeError FileExistsError FileNotFoundError "
    "ImportError IsADirectoryError LookupError NameError NotADirectoryError "
    "NotImplementedError PermissionError RecursionError ReferenceError SyntaxError "
    "SystemExit TypeError ValueError"
)

#: Full class name -> category. An error gets that of the nearest of its base classes, so
#: an entry also speaks for all classes below it. Classes that say nothing by themselves
#: (Exception, RuntimeError, OSError) are left out: their causes are asked.
BY_CLASS: Final[dict[str, Category]] = {
    # Python's own
    **{f"builtins.{name}": _P for name in _PERMANENT_BUILTINS.split()},
    "builtins.BlockingIOError": _T,
    "builtins.ConnectionError": _T,
    "builtins.InterruptedError": _T,
    # A TimeoutError of Python's is a network's or a lock's (socket.timeout and
    # asyncio.TimeoutError are this class), which passes. A limit on the work itself is
    # a timeout: ours, and that of a subprocess.
    "builtins.TimeoutError": _T,
    "subprocess.TimeoutExpired": Category.TIMEOUT,
    "builtins.MemoryError": _R,
    "_pickle.PicklingError": _P,
    "asyncio.exceptions.IncompleteReadError": _T,
    "http.client.BadStatusLine": _T,
    "http.client.IncompleteRead": _T,
    "socket.gaierror": _T,
    "socket.herror": _T,
    "ssl.SSLCertVerificationError": _P,
    "ssl.SSLError": _T,
    # This package's
    "scalable_nb.errors.HostDiedError": Category.INFRASTRUCTURE,
    "scalable_nb.errors.OutOfMemoryError": _R,
    # Though a ValueError: the same input may come out right elsewhere (a faulty node, a
    # torn read), and retries are only made where they were asked for.
    "scalable_nb.errors.ResultValidationError": Category.UNKNOWN,
    "scalable_nb.errors.TaskTimeoutError": Category.TIMEOUT,
    "scalable_nb.errors.WorkerLostError": Category.INFRASTRUCTURE,
    # Libraries', by name, so that none needs to be installed here
    "aiohttp.client_exceptions.ClientConnectionError": _T,
    "aiohttp.client_exceptions.ClientPayloadError": _T,
    "botocore.exceptions.ConnectionError": _T,
    "botocore.exceptions.HTTPClientError": _T,
    "distributed.comm.core.CommClosedError": _T,
    "distributed.scheduler.KilledWorker": Category.INFRASTRUCTURE,
    "httpcore.NetworkError": _T,
    "httpcore.RemoteProtocolError": _T,
    "httpcore.TimeoutException": _T,
    "httpx.InvalidURL": _P,
    "httpx.TransportError": _T,
    "httpx.UnsupportedProtocol": _P,
    "requests.exceptions.ChunkedEncodingError": _T,
    "requests.exceptions.ConnectionError": _T,
    "requests.exceptions.RetryError": _T,
    "requests.exceptions.Timeout": _T,
    "tornado.iostream.StreamClosedError": _T,
    "urllib3.exceptions.MaxRetryError": _T,
    "urllib3.exceptions.NewConnectionError": _T,
    "urllib3.exceptions.ProtocolError": _T,
    "urllib3.exceptions.TimeoutError": _T,
    "torch.OutOfMemoryError": _R,
    "torch.cuda.OutOfMemoryError": _R,
}

#: Where an OSError carries the system's own reason.
BY_ERRNO: Final[dict[int, Category]] = {
    getattr(errno, name): category
    for category, names in {
        _T: "EADDRINUSE EADDRNOTAVAIL EAGAIN EALREADY EBUSY ECONNABORTED ECONNREFUSED ECONNRESET "
        "EDEADLK EHOSTDOWN EHOSTUNREACH EINPROGRESS EINTR ENETDOWN ENETRESET ENETUNREACH "
        "ENOLCK ENOTCONN EPIPE ESHUTDOWN ESTALE ETIMEDOUT ETXTBSY EWOULDBLOCK",
        _R: "EDQUOT EMFILE ENFILE ENOBUFS ENOMEM ENOSPC",
        _P: "EACCES EEXIST EINVAL EISDIR ELOOP ENAMETOOLONG ENOENT ENOEXEC ENOSYS ENOTDIR "
        "ENOTEMPTY EOPNOTSUPP EPERM EROFS EXDEV",
    }.items()
    for name in names.split()
    if hasattr(errno, name)  # not every system has every one
}

#: Statuses of HTTP that pass by themselves, beside all of 5xx; the rest of 4xx does not.
TRANSIENT_STATUSES: Final = frozenset({408, 425, 429})

#: What AWS calls a rate limit, though it answers 400.
THROTTLING: Final = ("Throttl", "SlowDown", "TooManyRequests", "RequestLimitExceeded")

#: The last resort, in lower case, asked in this order. No phrase makes an error permanent:
#: a retry is not refused on the strength of a few words.
BY_PHRASE: Final[tuple[tuple[Category, tuple[str, ...]], ...]] = (
    (
        _R,
        (
            "out of memory",
            "cannot allocate memory",
            "unable to allocate",
            "bad_alloc",
            "oom-kill",
            "no space left",
            "disk quota exceeded",
            "too many open files",
        ),
    ),
    (
        _T,
        (
            "rate limit",
            "too many requests",
            "connection reset",
            "connection refused",
            "connection aborted",
            "connection closed",
            "broken pipe",
            "network is unreachable",
            "temporarily unavailable",
            "temporary failure",
            "service unavailable",
            "bad gateway",
            "gateway time",
            "internal server error",
            "database is locked",
            "resource busy",
            "stale file handle",
            "timed out",
        ),
    ),
)
