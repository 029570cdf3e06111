"""Workers of another version of scalable_nb get no tasks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tracked_scheduler import SchedulerAlone

from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.protocol.version import PROTOCOL_VERSION, ProtocolVersion
from scalable_nb.targets.fleet import WorkerGroup, WorkerKind

#: Workers of the test have numbers as names.
_ANY = {"group": [str(number) for number in range(10)]}


@pytest.fixture
def host() -> Iterator[SchedulerAlone]:
    """A host in which nothing may go wrong unseen."""
    host = SchedulerAlone(threads=1)
    yield host
    assert host.mishaps.found == []
    host.close()


def test_worker_of_the_same_version_gets_tasks(host: SchedulerAlone) -> None:
    """A worker that announces the version of its host is admitted."""
    host.submit(["task"], PolicyTerms(), [], "")
    worker = host.add_worker()
    assert [address for _, address, _ in host.processing()] == [worker]
    assert host.parts.notices.texts() == []


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (ProtocolVersion(PROTOCOL_VERSION + 1, "9.9"), "protocol version 2 (scalable_nb 9.9)"),
        (ProtocolVersion(None), "protocol version before 1"),
    ],
)
def test_worker_of_another_version_is_refused(
    host: SchedulerAlone, version: ProtocolVersion, text: str
) -> None:
    """It gets no tasks and is closed; one notice names both versions and the environment."""
    kind = WorkerKind("big", _ANY, python="/envs/old/bin/python")
    host.parts.scaling._fleet.entries["big-0"] = WorkerGroup("", kind)
    host.submit(["task"], PolicyTerms(), [], "")
    worker = host.add_worker(version)
    assert {"op": "close", "reason": "scalable-refused"} in host.sent_to(worker)
    host.scheduler.stream_handlers["worker-status-change"](
        status="running", worker=worker, stimulus_id="registered"
    )
    assert list(host.processing()) == []
    (notice,) = host.parts.notices.texts()
    assert f"the workers of component 'big' have {text}, and the host" in notice
    assert str(ProtocolVersion.own()) in notice
    assert "`python: /envs/old/bin/python`" in notice
    host.add_worker(version)
    assert host.parts.notices.texts() == [notice]


def test_workers_that_were_refused_are_not_replaced(host: SchedulerAlone) -> None:
    """No more are requested until the user asks for workers again."""
    kind = WorkerKind("big", _ANY)
    host.parts.scaling._fleet.entries["big-0"] = WorkerGroup("", kind)
    replacement = host.parts.scaling._replacement
    assert replacement.may_open(kind)
    host.add_worker(ProtocolVersion(None))
    assert not replacement.may_open(kind)
    replacement.reset(kind)
    assert replacement.may_open(kind)
