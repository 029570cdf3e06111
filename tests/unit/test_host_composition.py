"""The parts of a host are complete when they are built."""

from __future__ import annotations

from tracked_scheduler import SchedulerAlone

from scalable_nb.protocol.operations import Operation

#: Operations that the host requests of others.
_OF_OTHERS = {Operation.WORKER_LOST, Operation.QUERY_REVOKED}


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
