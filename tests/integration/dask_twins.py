"""Plain Dask and a session of ours side by side, to be asked the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from distributed import Client

from scalable_nb.client.client import ScalableClient

T = TypeVar("T")


class Twins:
    """Two clusters of two workers with one thread each.

    Parameters
    ----------
    plain : Client
        Of a `LocalCluster`.
    ours : ScalableClient
        Of a session.
    """

    def __init__(self, plain: Client, ours: ScalableClient) -> None:
        self.plain = plain
        self.ours = ours

    def __call__(self, case: Callable[[Client], T]) -> T:
        """What a case gives with both clients: the same."""
        expected = self._run(case, self.plain)
        actual = self._run(case, self.ours)
        assert actual == expected, "ours differs from plain Dask"
        return actual

    @staticmethod
    def _run(case: Callable[[Client], T], client: Client) -> T:
        with client.as_current():
            return case(client)


def another(client: Client, **options: Any) -> Client:
    """A second client of the same kind on the same scheduler."""
    if isinstance(client, ScalableClient):
        return client.session.connect(**options)
    return a_plain_one(client, **options)


def a_plain_one(client: Client, **options: Any) -> Client:
    """A second client on the same scheduler that knows nothing of us."""
    address = client.scheduler.address
    return Client(address, security=client.security, set_as_default=False, **options)


def raised(call: Callable[[], object]) -> tuple[str, str]:
    """Class and message of what a call raises; none of it is an error of the test."""
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""
