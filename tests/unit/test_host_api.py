"""What a client calls on its host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from scalable_nb.client import host_api
from scalable_nb.client.host_api import HostApi
from scalable_nb.protocol.messages import TaskCount, TaskKeys, WorkerCounts
from scalable_nb.protocol.operations import Operation

REPLIES = {
    Operation.SCALE: WorkerCounts({"small": 2}),
    Operation.ADAPT: WorkerCounts({"small": 3}),
    Operation.RESUME_BATCHES: TaskCount(4),
    Operation.CANCEL_BATCHES: TaskCount(5),
    Operation.RETRY_NOW: TaskKeys(("a", "b")),
    Operation.JOIN: TaskKeys(("a",)),
}


class FakeTransport:
    """Has a host that answers at once."""

    id = "client-1"
    scheduler = None

    def __init__(self, *, asynchronous: bool) -> None:
        self._asynchronous = asynchronous

    def sync(self, func: Callable[..., Any], *args: Any) -> Any:
        """Run a coroutine function, or leave that to the caller, as Dask's client does."""
        coroutine = func(*args)
        return coroutine if self._asynchronous else asyncio.run(coroutine)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda api: api.scale(2, None), {"small": 2}),
        (lambda api: api.adapt(0, 3, None), {"small": 3}),
        (lambda api: api.resume_batches(None), 4),
        (lambda api: api.cancel_batches(["study"], only_paused=False), 5),
        (lambda api: api.retry_now(["a", "b", "c"]), 2),
        (lambda api: api.join(["a", "b"]), ["a"]),
    ],
)
def test_an_asynchronous_client_can_call_what_another_can(
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[HostApi], Any],
    expected: object,
    asynchronous: bool,
) -> None:
    """Its calls return awaitables, with what the calls of another client return."""

    async def answer(scheduler: Any, operation: Operation, message: Any) -> Any:
        return REPLIES[operation].to_wire()

    monkeypatch.setattr(host_api, "call_remote", answer)
    api = HostApi(FakeTransport(asynchronous=asynchronous))  # type: ignore[arg-type]
    found = call(api)
    assert (asyncio.run(found) if asynchronous else found) == expected
