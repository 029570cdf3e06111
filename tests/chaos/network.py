"""Cuts real connections of running processes, from outside and without their help.

A descriptor of the process is duplicated with ``pidfd_getfd`` (Linux 5.6), and the connection
behind it is aborted or made deaf. It takes the right to trace the process, which a parent has
over its descendants and root over all.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import psutil

_PIDFD_GETFD = 438  # the same number on every architecture
_SO_ATTACH_FILTER = 26
_libc = ctypes.CDLL(None, use_errno=True)


def reset(process: psutil.Process, port: int) -> int:
    """Abort all connections of a process to a port; both ends notice at once.

    Returns how many there were.
    """
    return sum(_abort(connection) for connection in _connections(process, port))


def silence(process: psutil.Process, port: int, listener: psutil.Process) -> int:
    """Let nothing through any more on all connections of a process to a port.

    Neither end is told: each learns it when nothing arrives for longer than it waits.
    Connections that are opened later are not concerned. Returns how many there were.
    """
    ends = [
        *_connections(process, port),
        *_connections(listener, *_local_ports(process, port)),
    ]
    return sum(_deafen(end) for end in ends) // 2


def _local_ports(process: psutil.Process, port: int) -> list[int]:
    open_ones = (c for c in process.net_connections("tcp") if c.raddr)
    return [c.laddr.port for c in open_ones if c.raddr.port == port]


def _connections(process: psutil.Process, *remote_ports: int) -> Iterator[socket.socket]:
    """Duplicates of the sockets of a process that are connected to one of these ports."""
    for connection in process.net_connections("tcp"):
        if connection.raddr and connection.raddr.port in remote_ports:
            with suppress(OSError):  # closed meanwhile
                yield _duplicate(process.pid, connection.fd)


def _duplicate(pid: int, descriptor: int) -> socket.socket:
    pidfd = os.pidfd_open(pid)
    try:
        duplicate = _libc.syscall(_PIDFD_GETFD, pidfd, descriptor, 0)
        _check(duplicate)
    finally:
        os.close(pidfd)
    return socket.socket(fileno=duplicate)


def _abort(connection: socket.socket) -> bool:
    with connection:
        # To connect to nowhere aborts what a socket was connected to (connect(2)).
        nowhere = struct.pack("H14x", socket.AF_UNSPEC)
        _check(_libc.connect(connection.fileno(), nowhere, len(nowhere)))
    return True


def _deafen(connection: socket.socket) -> bool:
    # A program for the kernel's packet filter: "keep 0 bytes of each packet".
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    with connection:
        connection.setsockopt(
            socket.SOL_SOCKET,
            _SO_ATTACH_FILTER,
            struct.pack("HP", 1, ctypes.addressof(program)),
        )
    return True


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
