"""What a client calls on its host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from scalable_nb.client import host_api
from scalable_nb.client.host_api import HostApi
from scalable_nb.protocol.messages import JoinReply, TaskCount, TaskKeys, WorkerCounts
from scalable_nb.protocol.operations import Operation

REPLIES = {
    Operation.SCALE: WorkerCounts({"small": 2}),
    Operation.ADAPT: WorkerCounts({"small": 3}),
    Operation.RESUME_BATCHES: TaskCount(4),
    Operation.CANCEL_BATCHES: TaskCount(5),
    Operation.RETRY_NOW: TaskKeys(("a", "b")),
    Operation.DROP_LEFT_CLAIMS: TaskKeys(("a",)),
}


class FakeTransport:
    """Has a host that answers at once."""

    id = "client-1"
    scheduler = None

    def __init__(self, *, asynchronous: bool) -> None:
        self._asynchronous = asynchronous
        self.sent: list[Mapping[str, Any]] = []

    def sync(self, func: Callable[..., Any], *args: Any) -> Any:
        """Run a coroutine function, or leave that to the caller, as Dask's client does."""
        coroutine = func(*args)
        return coroutine if self._asynchronous else asyncio.run(coroutine)

    def send(self, message: Mapping[str, Any]) -> None:
        """Keep it."""
        self.sent.append(message)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda api: api.scale(2, None), {"small": 2}),
        (lambda api: api.adapt(0, 3, None), {"small": 3}),
        (lambda api: api.resume_batches(None), 4),
        (lambda api: api.cancel_batches(["study"], only_paused=False), 5),
        (lambda api: api.retry_now(["a", "b", "c"]), 2),
        (lambda api: api.drop_left_claims(["a", "b"]), 1),
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


def test_request_to_observe_is_answered_by_its_own_reply() -> None:
    """Requests go in order with what is released; replies of others change nothing."""
    transport = FakeTransport(asynchronous=True)
    api = HostApi(transport)  # type: ignore[arg-type]

    async def join() -> list[list[Any]]:
        waiting = asyncio.gather(api.observe(["a", "b"]), api.claim(["c"]))
        await asyncio.sleep(0)
        first, second = transport.sent
        assert (first["keys"], first["is_claim"]) == (("a", "b"), False)
        assert (second["keys"], second["is_claim"]) == (("c",), True)
        for request_id, unknown in (
            (99, ("x",)),
            (second["request_id"], ()),
            (first["request_id"], ("b",)),
        ):
            api.on_joined(JoinReply(request_id, unknown))
        return await waiting

    assert asyncio.run(join()) == [["b"], []]


def test_request_to_observe_fails_with_the_connection() -> None:
    """It does not wait for a reply that nobody sends."""
    api = HostApi(FakeTransport(asynchronous=True))  # type: ignore[arg-type]

    async def join() -> None:
        waiting = asyncio.ensure_future(api.observe(["a"]))
        await asyncio.sleep(0)
        api.on_disconnect(ConnectionError("broken"))
        await waiting

    with pytest.raises(ConnectionError, match="broken"):
        asyncio.run(join())
