"""Connections that never prove their right are limited in number, in time and in log lines."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from distributed.comm import connect, listen
from distributed.security import Security

from scalable_nb.dask_adapter.connection_gate import ConnectionGate, unproved_limit
from scalable_nb.telemetry.log_repeats import RepeatFilter


@pytest.fixture(scope="module")
def security() -> Security:
    """One certificate for all tests."""
    return Security.temporary()


class Guarded:
    """A listener of Dask's behind a gate, and what connects to it."""

    def __init__(self, listener: Any) -> None:
        self.listener = listener
        self._clients: list[socket.socket] = []

    def open_silent(self) -> socket.socket:
        """Connect and send nothing."""
        client = socket.create_connection(self.listener.get_host_port())
        client.setblocking(False)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        """Close the silent connections and wait until the listener has noticed."""
        for client in self._clients:
            client.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=5)


@asynccontextmanager
async def guarded(gate: ConnectionGate, security: Security) -> AsyncIterator[Guarded]:
    """Listen behind a gate."""

    async def keep(comm: Any) -> None:
        kept.append(comm)

    kept: list[Any] = []
    arguments = security.get_listen_args("scheduler")
    async with listen("tls://127.0.0.1:0", keep, **arguments) as listener:
        gate.guard(listener.tcp_server)
        server = Guarded(listener)
        yield server
        await server.close()
    for comm in kept:
        comm.abort()


async def open_encrypted(listener: Any, security: Security) -> Any:
    """Complete the handshake of TLS and send nothing of Dask's."""
    context = security.get_connection_args("client")["ssl_context"]
    host, port = listener.get_host_port()
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    return reader, writer


async def until_closed(client: socket.socket) -> float:
    """Return after how many seconds the server closed a connection."""
    started_at = time.monotonic()
    while await asyncio.get_running_loop().sock_recv(client, 1 << 16):
        pass
    return time.monotonic() - started_at


async def join(listener: Any, security: Security) -> None:
    """Connect as a worker or a kernel does."""
    arguments = security.get_connection_args("client")
    comm = await connect(listener.contact_address, timeout=300, **arguments)
    comm.abort()


def test_silent_connection_is_closed(security: Security) -> None:
    """A connection that sends nothing is closed after the timeout."""

    async def run() -> float:
        async with guarded(ConnectionGate(10, timeout_s=0.5), security) as server:
            return await asyncio.wait_for(until_closed(server.open_silent()), 20)

    assert asyncio.run(run()) > 0.4


def test_connection_without_handshake_of_dask_is_closed(security: Security) -> None:
    """A connection that stays silent after the handshake of TLS is closed after the timeout."""

    async def run() -> bytes:
        async with guarded(ConnectionGate(10, timeout_s=0.5), security) as server:
            reader, writer = await open_encrypted(server.listener, security)
            received: bytes = await asyncio.wait_for(reader.read(-1), 20)
            writer.close()
            return received

    assert asyncio.run(run())  # the server's half of the handshake


def test_complete_connection_stays_open(security: Security) -> None:
    """The timeout ends with the handshake."""

    async def run() -> bool:
        async with guarded(ConnectionGate(10, timeout_s=0.3), security) as server:
            arguments = security.get_connection_args("client")
            comm = await connect(server.listener.contact_address, **arguments)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(comm.read()), 1.0)
            is_open = not comm.closed()
            comm.abort()
            return is_open

    assert asyncio.run(run())


def test_blocked_event_loop_does_not_count(security: Security) -> None:
    """A handshake that waits for a blocked event loop succeeds."""

    async def run() -> None:
        async with guarded(ConnectionGate(10, timeout_s=1.0), security) as server:
            client = asyncio.ensure_future(
                asyncio.to_thread(lambda: asyncio.run(join(server.listener, security)))
            )
            await asyncio.sleep(0)
            time.sleep(2.0)
            await asyncio.wait_for(client, 20)

    asyncio.run(run())


def test_many_connections_at_the_same_time_succeed(security: Security) -> None:
    """More connections at once than may be incomplete wait and then succeed."""

    async def run() -> None:
        async with guarded(ConnectionGate(20), security) as server:
            await asyncio.gather(*(join(server.listener, security) for _ in range(128)))

    asyncio.run(run())


def test_silent_connections_keep_nobody_out(security: Security) -> None:
    """With more silent connections than the limit, a worker can connect soon."""

    async def run() -> None:
        gate = ConnectionGate(5, timeout_s=600, crowded_timeout_s=0.2)
        async with guarded(gate, security) as server:
            for _ in range(20):
                server.open_silent()
            await asyncio.wait_for(join(server.listener, security), 30)

    asyncio.run(run())


def test_lack_of_file_descriptors_is_logged_once(
    security: Security, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a free file descriptor the event loop pauses, and connections wait."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def run() -> None:
        async with guarded(ConnectionGate(10), security) as server:
            client = server.open_silent()
            lowest_free = os.dup(client.fileno())
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
            try:
                await asyncio.sleep(1.0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await asyncio.wait_for(join(server.listener, security), 20)

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    messages = [record.getMessage() for record in caplog.records]
    assert 1 <= len([text for text in messages if "Too many open files" in text]) <= 6, messages


@pytest.mark.parametrize(
    ("open_files", "limit"), [(256, 64), (1024, 256), (1_000_000, 512), (20, 16), (-1, 512)]
)
def test_limit_is_a_share_of_the_file_descriptors(open_files: int, limit: int) -> None:
    """Most file descriptors are left to workers and kernels."""
    assert unproved_limit(open_files) == limit


def record_of(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("any", logging.WARNING, "", 0, message, arguments, None)


@pytest.fixture
def passes() -> Callable[[float, logging.LogRecord], bool]:
    """Filter a record at a time, in seconds."""
    now = 0.0
    filtering = RepeatFilter(60.0, lambda: now)

    def passes(at_s: float, record: logging.LogRecord) -> bool:
        nonlocal now
        now = at_s
        return filtering.filter(record)

    return passes


def test_repeats_are_counted(passes: Callable[[float, logging.LogRecord], bool]) -> None:
    """A message passes once a minute, whatever its arguments, with the number of repeats."""
    assert passes(0, record_of("no handshake with %s", "a"))
    assert not any(passes(at_s, record_of("no handshake with %s", at_s)) for at_s in range(1, 60))
    later = record_of("no handshake with %s", "b")
    assert passes(61, later)
    assert later.getMessage() == "no handshake with b (59 more like this since the last one)"


def test_other_messages_pass(passes: Callable[[float, logging.LogRecord], bool]) -> None:
    """A repeated message suppresses no other one."""
    assert passes(0, record_of("first"))
    assert passes(1, record_of("second"))
    assert not passes(2, record_of("second"))
