"""The host passes on sources, and replaces worker processes with other versions of modules."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scalable_nb.host.workers.module_versions import ModuleVersions
from scalable_nb.protocol.messages import ModulesDiffer, ModuleSources, SourcesRequest
from scalable_nb.protocol.operations import Operation


class Host:
    """A host with one worker, whose nanny ends the process when it is told to."""

    def __init__(self) -> None:
        self.nanny_calls: list[tuple[str, str]] = []
        self.begun: list[str] = []
        self.notices: list[str] = []
        self.written: list[Any] = []
        self.is_idle = True
        self._waiting: list[Any] = []
        self.workers: dict[str, Any] = {}
        adapter: Any = SimpleNamespace(
            workers=self.workers,
            call_soon=lambda function, *args: self._waiting.append(function(*args)),
            call_nanny=self._call_nanny,
        )
        retirement: Any = SimpleNamespace(
            begin=self.begun.append, is_idle=lambda worker: self.is_idle, call_off=self.begun.remove
        )
        notices: Any = SimpleNamespace(notify=self.notices.append)
        self.tracked = SimpleNamespace(
            batch=SimpleNamespace(function="f"), is_native=False, has_stored_result=False
        )
        registry: Any = {"key": self.tracked}
        self.versions = ModuleVersions(
            registry, adapter, retirement, notices, Path("results"), self._write
        )

    def add_worker(self, address: str, *held: Any) -> None:
        """Add a worker that holds these results."""
        self.workers[address] = SimpleNamespace(
            address=address, nanny="nanny", actors=set(), has_what=dict.fromkeys(held)
        )

    async def _call_nanny(self, nanny: str, operation: str, **values: Any) -> None:
        self.nanny_calls.append((operation, values["worker"]))
        del self.workers[values["worker"]]

    async def _write(self, worker: str, keys: list[Any]) -> list[Any]:
        self.written += keys
        return keys

    def run(self) -> None:
        """Run the callbacks of the event loop."""

        async def run() -> None:
            await asyncio.gather(*self._waiting)
            self._waiting.clear()

        asyncio.run(run())

    def replaces(self, worker: str, *, is_of_calls: bool = True, digest: str = "d") -> bool:
        """Report a difference; return whether the process is replaced."""
        message = ModulesDiffer("key", worker, digest, ("helper",), is_of_calls)
        return self.versions.replace(message).will_replace


class Result:
    """A result in the memory of a worker; hashed by identity, as Dask's."""

    def __init__(self, *, is_wanted: bool = True, run_spec: Any = SimpleNamespace(args=())) -> None:  # noqa: B008
        self.key, self.who_has, self.waiters, self.annotations = "key", {1}, set(), None
        self.who_wants, self.run_spec = {1} if is_wanted else None, run_spec


@pytest.fixture
def host() -> Host:
    """A host with one idle worker."""
    host = Host()
    host.add_worker("w")
    return host


def test_sources_reach_a_worker_as_they_were_sent(host: Host) -> None:
    """They are bytes that the host does not open."""
    message = ModuleSources("digest", b"packed")
    host.versions.keep_sources("client", message)
    assert host.versions.sources(SourcesRequest("digest")) == message


def test_a_process_is_replaced_once_its_tasks_have_ended(host: Host) -> None:
    """It takes no more tasks at once, and all tasks that report the difference run again."""
    assert {host.replaces("w") for _ in range(1000)} == {True}
    assert (host.begun, host.nanny_calls) == (["w"], [])
    host.run()
    assert host.nanny_calls == [(Operation.END_PROCESS.value, "w")]


def test_versions_of_calls_may_change_back_and_forth(host: Host) -> None:
    """A new process has no version yet, so each change replaces it."""
    for digest in ("old", "new", "old", "new"):
        assert host.replaces("w", digest=digest)
        host.run()
        host.add_worker("w")
    assert host.notices == []


def test_a_lasting_difference_replaces_a_process_once(host: Host) -> None:
    """Then results are returned and not stored, and one notice reports it."""
    assert host.replaces("w", is_of_calls=False)
    host.run()
    host.add_worker("w-2")
    assert {host.replaces("w-2", is_of_calls=False) for _ in range(1000)} == {False}
    assert len(host.notices) == 1
    assert "f: a worker has imported another version of helper" in host.notices[0]
    assert len(host.nanny_calls) == 1


def test_wanted_results_are_written_before_the_process_ends(host: Host) -> None:
    """A task whose result only this process has loads it when it runs again."""
    wanted = Result()
    host.add_worker("w", wanted, Result(is_wanted=False))
    assert host.replaces("w")
    host.run()
    assert host.written == ["key"]
    assert wanted.annotations == {"scalable": {"store": "results", "recompute": False}}


def test_scattered_data_is_not_lost(host: Host) -> None:
    """A process that holds data which no task can make again stays."""
    host.add_worker("w", Result(run_spec=None))
    assert not host.replaces("w")
    assert (host.begun, len(host.notices)) == ([], 1)
