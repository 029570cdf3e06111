"""Limits connections that have not proved that they may connect.

Other users of the machine can open connections and stay silent until a process has no file
descriptor left: Dask's servers wait indefinitely for the handshake of TLS and for their own, and
its pages for a request. Without a free one, Tornado logs an error in each turn of the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Awaitable
from functools import cache, partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from distributed.comm.tcp import BaseTCPListener
from distributed.core import Server
from tornado.iostream import IOStream
from tornado.tcpserver import TCPServer

from scalable_nb.telemetry.log_repeats import RepeatFilter

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S: Final = 10.0
#: While the limit is reached. A handshake takes milliseconds.
CROWDED_TIMEOUT_S: Final = 1.0
_TICK_S: Final = 0.25

#: Of the file descriptors of a process, one in so many may be of an unproved connection.
_SHARE: Final = 4
_LIMITS: Final = (16, 512)
_ACCEPTED_PER_TURN: Final = 128
_MAX_OPEN_FILES: Final = 65_536

#: Loggers of messages that any other user of the machine can cause.
_LOGGERS: Final = (
    __name__,
    "asyncio",
    "distributed.comm.core",
    "distributed.comm.tcp",
    "tornado.application",
    "tornado.general",
)


class ConnectionGate:
    """Limits the unproved connections of all servers of a process.

    A connection is proved by its handshakes, or by an HTTP request with the secret prefix. Beyond
    the limit, connections wait in the queue of the operating system.

    Parameters
    ----------
    limit : int
        Unproved connections at the same time.
    timeout_s : float
        Time for the proof. Time in which the event loop is blocked does not count.
    crowded_timeout_s : float
        The same while the limit is reached or file descriptors are lacking.
    """

    def __init__(
        self,
        limit: int,
        *,
        timeout_s: float = HANDSHAKE_TIMEOUT_S,
        crowded_timeout_s: float = CROWDED_TIMEOUT_S,
    ) -> None:
        self._limit = limit
        self._timeout_s, self._crowded_timeout_s = timeout_s, crowded_timeout_s
        self._servers: dict[socket.socket, TCPServer] = {}
        self._unproved: dict[IOStream, float] = {}  # since when, by `_clock_s`
        self._is_paused = False
        self._clock_s, self._ticked_at = 0.0, 0.0
        self._timer: asyncio.TimerHandle | None = None

    def guard(self, server: TCPServer) -> None:
        """Limit the connections of a server of Dask that is listening, unless that is done."""
        if server in self._servers.values():
            return
        handle_stream = server.handle_stream

        def handle(stream: IOStream, address: Any) -> Awaitable[None]:
            self._add(stream)
            return self._handshake(stream, handle_stream(stream, address))

        server.handle_stream = handle  # type: ignore[method-assign]
        self._accept_for(server)

    def guard_pages(self, server: TCPServer) -> None:
        """Limit the connections of an HTTP server, which are proved by a call of `prove`."""
        handle_stream = server.handle_stream

        def handle(stream: IOStream, address: Any) -> None:
            self._add(stream)
            handle_stream(stream, address)

        server.handle_stream = handle  # type: ignore[method-assign]
        self._accept_for(server)

    def prove(self, stream: IOStream) -> None:
        """Stop limiting a connection."""
        self._unproved.pop(stream, None)
        self._resume()

    def _add(self, stream: IOStream) -> None:
        self._unproved[stream] = self._clock_s
        self._start_timer()

    async def _handshake(self, stream: IOStream, handled: Any) -> None:
        try:
            await handled
        finally:
            self.prove(stream)

    def _accept_for(self, server: TCPServer) -> None:
        loop = asyncio.get_running_loop()
        # Tornado's own handler has no limit and raises without a free file descriptor.
        # https://github.com/tornadoweb/tornado/blob/v6.5.0/tornado/netutil.py#L275
        for number, listening in server._sockets.items():
            server._handlers[number]()
            server._handlers[number] = partial(self._forget, loop, listening)
            self._servers[listening] = server
            if not self._is_paused:
                self._listen(listening)

    def _listen(self, listening: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _forget(self, loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
        loop.remove_reader(listening)
        self._servers.pop(listening, None)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_PER_TURN):
            if len(self._unproved) >= self._limit:
                self._pause(f"{self._limit} connections have not completed their handshakes")
                return
            try:
                connection, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no file descriptor or no memory left
                self._pause(str(error))
                return
            self._servers[listening]._handle_connection(connection, address)

    def _pause(self, reason: str) -> None:
        logger.warning("accepting no further connections for a moment: %s", reason)
        self._is_paused = True
        for listening in self._servers:
            asyncio.get_running_loop().remove_reader(listening)
        self._start_timer()

    def _resume(self) -> None:
        if self._is_paused and len(self._unproved) < self._limit:
            self._is_paused = False
            for listening in self._servers:
                self._listen(listening)

    def _start_timer(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._ticked_at = loop.time()
            self._timer = loop.call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        # A turn that took long counts as a short one: the peers may have answered meanwhile.
        elapsed_s = asyncio.get_running_loop().time() - self._ticked_at
        self._clock_s += min(elapsed_s, 2 * _TICK_S)
        timeout_s = self._crowded_timeout_s if self._is_paused else self._timeout_s
        for stream, since_s in list(self._unproved.items()):
            if stream.closed() or self._clock_s - since_s > timeout_s:
                del self._unproved[stream]
                stream.close(exc_info=TimeoutError(f"no handshake within {timeout_s:g} s"))
        self._resume()
        self._timer = None
        if self._unproved or self._is_paused:
            self._start_timer()


_gates: WeakKeyDictionary[asyncio.AbstractEventLoop, ConnectionGate] = WeakKeyDictionary()


def limit_handshakes(server: Server) -> None:
    """Limit the unproved connections to the listeners of a scheduler, nanny or worker."""
    for listener in server.listeners:
        if isinstance(listener, BaseTCPListener) and listener.tcp_server is not None:
            current_gate().guard(listener.tcp_server)


def current_gate() -> ConnectionGate:
    """Return the gate of all servers of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _gates:
        open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        _gates[loop] = ConnectionGate(unproved_limit(open_files))
        _limit_log_repeats()
    return _gates[loop]


@cache
def _limit_log_repeats() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(RepeatFilter())


def unproved_limit(open_files: int) -> int:
    """Return how many connections may be unproved.

    Parameters
    ----------
    open_files : int
        File descriptors that the process may have; negative: no limit.
    """
    least, most = _LIMITS
    return most if open_files < 0 else max(least, min(most, open_files // _SHARE))


def raise_open_files_limit() -> None:
    """Let this process open as many files as it may: a worker needs several connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
