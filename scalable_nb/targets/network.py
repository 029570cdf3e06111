"""Through which network interface scheduler and workers talk."""

from __future__ import annotations

import socket

import psutil
from distributed.utils import get_ip

from scalable_nb.errors import UnknownNameError


def listening_address(interface: str | None) -> tuple[str, str]:
    """The one address that the scheduler listens on, and how it was chosen.

    Parameters
    ----------
    interface : str or None
        As named in the manifest or in Dask's configuration; None: the one with the route to
        other machines.

    Returns
    -------
    address : str
    notice : str
        For a person.

    Raises
    ------
    UnknownNameError
        When this machine has no such interface; names those that it has.
    """
    addresses = _ipv4()
    if interface is not None:
        if interface not in addresses:
            raise UnknownNameError(
                "network interface",
                interface,
                addresses,
                "Set `interface:` of the target in scalable.yaml.",
            )
        return addresses[interface], f"interface {interface} ({addresses[interface]}), as asked for"
    address = get_ip()
    name = next((name for name, own in addresses.items() if own == address), "unknown")
    others = ", ".join(other for other in sorted(addresses) if other != name)
    return address, (
        f"interface {name} ({address}), which has the route to other machines; `interface:` of "
        f"the target chooses another{f': {others}' if others else ''}"
    )


def _ipv4() -> dict[str, str]:
    """The interfaces that are up and have an IPv4 address."""
    stats = psutil.net_if_stats()
    return {
        name: entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET and stats[name].isup
    }
