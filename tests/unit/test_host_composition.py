"""The parts of a host are complete when they are built."""

from __future__ import annotations

import pytest
from tracked_scheduler import SchedulerAlone

from scalable_nb.errors import UnknownNameError
from scalable_nb.protocol.messages import AdaptRequest, ScaleRequest, WorkerCounts
from scalable_nb.protocol.operations import Operation
from scalable_nb.protocol.wire import Message

#: Operations that the host requests of others.
_OF_OTHERS = {
    Operation.WORKER_LOST,
    Operation.END_PROCESS,
    Operation.QUERY_REVOKED,
    Operation.JOINED,
}


def test_every_operation_has_a_handler() -> None:
    """The host's scheduler answers each operation of kernels, workers and nannies."""
    host = SchedulerAlone()
    handlers = {*host.scheduler.handlers, *host.scheduler.stream_handlers}
    assert {operation.value for operation in set(Operation) - _OF_OTHERS} <= handlers
    host.close()


def test_no_part_gets_attributes_after_its_construction() -> None:
    """Building the host sets no attribute on a part that its constructor has not set."""
    host = SchedulerAlone()
    for part in (host.parts.scaling, host.parts.losses, host.parts.requests, host.parts.tracker):
        public = {name for name in vars(part) if not name.startswith("_")}
        assert public <= {"name"}, type(part)
    host.close()


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        (Operation.SCALE, ScaleRequest(3, "modle")),
        (Operation.ADAPT, AdaptRequest(1, 3, "modle")),
    ],
)
def test_an_unknown_component_is_refused_and_changes_nothing(
    operation: Operation, request_: Message
) -> None:
    """Whoever asks for its workers gets an error with the name; later requests are unaffected."""
    host = SchedulerAlone()
    with pytest.raises(UnknownNameError, match="no component named 'modle'"):
        host.ask(operation, request_)
    assert WorkerCounts.from_wire(host.ask(Operation.SCALE, ScaleRequest(0))).counts == {"": 0}
    host.close()
