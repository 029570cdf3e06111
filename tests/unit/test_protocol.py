"""Messages between processes: what is sent arrives, and what is malformed is named."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import pickle
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from scalable_nb.client.host_api import HostApi
from scalable_nb.errors import ProtocolError, RunFolderError
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.paths import RunPaths
from scalable_nb.protocol import messages
from scalable_nb.protocol.annotations import CacheFacts, TaskAnnotation
from scalable_nb.protocol.connection_file import HostState, read_connection_info, write_state
from scalable_nb.protocol.exit_report import ExitCause, ExitReport
from scalable_nb.protocol.messages import (
    AnsweredCalls,
    AttemptFailed,
    BatchMessage,
    CallReply,
    ErrorReport,
    InputsChanged,
    LeftOutCalls,
    ReopenedTasks,
    ResubmitRequest,
    ResumeRequest,
    RevocationAnswer,
    ScaleRequest,
    StatusReply,
    TaskKeys,
    WorkerExited,
    WorkerStatus,
)
from scalable_nb.protocol.operations import Operation
from scalable_nb.protocol.version import PROTOCOL_VERSION, ProtocolVersion
from scalable_nb.protocol.wire import Message, answering, call_remote, receiving, stream_message


class Colour(StrEnum):
    """An enum, for a message of the tests."""

    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner(Message):
    """A message within another one."""

    number: int


@dataclass(frozen=True)
class Nested(Message):
    """A message whose fields have all forms in which a value is not sent as it is."""

    colour: Colour
    inner: Inner | None
    pair: tuple[int, Colour]
    by_colour: dict[Colour, tuple[Inner, ...]]


BATCH = BatchMessage("id", name="study", function="f").with_previews({"a": "x=1", ("b", 2): "x=2"})
ERROR = ErrorReport("ValueError", "no", "permanent", "0" * 16, 1.5, 2, pid=7)
WORKER = WorkerStatus("w-0", "tls://h:1", "", "busy", 2, 10, 20, "h")
PAUSE = {"batch": "b", "count": 1, "limit": 2, "failure_class": "E", "message": "m"}

EXAMPLES: list[Message] = [
    BATCH,
    AnsweredCalls(BATCH, ("r1", "r2")),
    LeftOutCalls(
        BATCH, ("left out", "cancelled"), ("not idempotent", "cancelled"), ("OSError", "")
    ),
    InputsChanged(("a", ("b", 2)), (2, -1)),
    TaskKeys(("a", ("b", 2), b"c", 3)),
    ResumeRequest(None),
    ResumeRequest(("study",)),
    CallReply("f(1)", b"pickled", ("a", ("b", 2)), is_async=False, idempotent=True, timeout_s=None),
    StatusReply({"running": 1}, ("n",), (PAUSE,), ({"job_id": "7"},), {}, (WORKER,)),  # type: ignore[arg-type]
    AttemptFailed(("a", 1), "tls://h:1", 3, None, ERROR, b"pickled"),
    WorkerExited("w", ExitReport(ExitCause.CUT, {3: (1.0, None), 4: (1.0, 2.0)}, exit_code=-9)),
    RevocationAnswer("a", 3, (1.0, None)),
    RevocationAnswer("a", 3, None),
    ReopenedTasks(("a",), {"retries": 2, "store": "/results"}),
    ResubmitRequest(("a",), {"retries": 0, "component": "large"}, (), dry_run=False),
    Nested(Colour.RED, None, (1, Colour.BLUE), {Colour.RED: (Inner(1), Inner(2))}),
    Nested(Colour.RED, Inner(3), (1, Colour.BLUE), {}),
]


def sent(values: Any) -> Any:
    """What arrives at the other end of a connection of Dask's."""
    return msgpack.unpackb(msgpack.packb(values), use_list=False, strict_map_key=False)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    """`from_wire` gives back what `to_wire` took apart, after msgpack in between."""
    assert type(message).from_wire(sent(message.to_wire())) == message


def test_all_messages_are_frozen_and_their_types_are_known() -> None:
    """Every message is a frozen dataclass, and every field has a type that can be checked."""
    found = [
        each
        for _, each in inspect.getmembers(messages, inspect.isclass)
        if issubclass(each, Message) and each is not Message
    ]
    assert len(found) > 25
    for message in found:
        with pytest.raises(ProtocolError, match=message.__name__):
            message.from_wire({"no such field": 1})
        assert message.__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("message", "wire", "words"),
    [
        (ScaleRequest, {}, "ScaleRequest.count is missing; expected int"),
        (ScaleRequest, {"count": "3"}, "ScaleRequest.count is a str, '3'; expected int"),
        (ScaleRequest, {"count": True}, "ScaleRequest.count is a bool, True; expected int"),
        (ScaleRequest, {"count": 3, "n": 1}, "ScaleRequest has no field 'n'; it has"),
        (TaskKeys, {"keys": "abc"}, "TaskKeys.keys is a str, 'abc'; expected tuple"),
        (ResumeRequest, {"batches": [1]}, "ResumeRequest.batches is a list, [1]; expected tuple"),
        (WorkerExited, {"worker": "w", "report": {"cause": "boredom"}}, "ExitReport.cause is a"),
        (WorkerExited, {"worker": "w", "report": 5}, "WorkerExited.report is a int, 5; expected"),
        (RevocationAnswer, {"key": 1, "run_id": 1, "span": (1.0,)}, "RevocationAnswer.span is a"),
        (RevocationAnswer, {"key": 1, "run_id": 1.5, "span": None}, "RevocationAnswer.run_id is"),
        (TaskKeys, None, "TaskKeys is None; expected a mapping"),
        (BatchMessage, {"batch_id": "b", "keys": ["a"]}, "BatchMessage has 1 keys and 0 previews"),
        (
            AnsweredCalls,
            {"batch": {"batch_id": "b"}, "result_keys": ()},
            "AnsweredCalls has 0 keys and 0 result keys",
        ),
        (
            AnsweredCalls,
            {"batch": {"batch_id": "b", "keys": ["a"], "previews": ["x"]}, "result_keys": ()},
            "AnsweredCalls has 1 keys and 0 result keys",
        ),
        (InputsChanged, {"keys": ["a"], "changes": ()}, "InputsChanged has 1 keys and 0 changes"),
        (
            ReopenedTasks,
            {"keys": ["a"], "annotation": {"store": 3}},
            "TaskAnnotation: store is a int, 3; expected str",
        ),
        (
            ResubmitRequest,
            {"keys": ["a"], "changes": {"store": "/s"}, "named": (), "dry_run": True},
            "ResubmitRequest.changes has ['store']; expected ['base_s', 'code', 'component'",
        ),
        (
            ResubmitRequest,
            {"keys": ["a"], "changes": {"component": 1}, "named": (), "dry_run": True},
            "ResubmitRequest.changes: component is 1; expected str",
        ),
    ],
)
def test_a_malformed_message_is_named_with_its_field(
    message: type[Message], wire: Any, words: str
) -> None:
    """Whatever is wrong, the error names message, field, value and expected type."""
    with pytest.raises(ProtocolError) as caught:
        message.from_wire(wire)
    assert str(caught.value).startswith(words)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_handler_gets_a_message_and_its_reply_is_encoded() -> None:
    """`call_remote` at one end and `answering` at the other, for functions and coroutines."""

    async def count(request: TaskKeys) -> messages.TaskCount:
        return messages.TaskCount(len(request.keys))

    handlers = {
        Operation.CANCEL_TASKS.value: answering(TaskKeys, lambda request: request),
        Operation.SCALE.value: answering(TaskKeys, count),
    }

    class Remote:
        def __getattr__(self, name: str) -> Any:
            return lambda **values: handlers[name](**sent(values))

    tasks = TaskKeys(("a", ("b", 1)))
    assert TaskKeys.from_wire(sent(call_remote(Remote(), Operation.CANCEL_TASKS, tasks))) == tasks
    assert asyncio.run(call_remote(Remote(), Operation.SCALE, tasks)) == {"count": 2}
    with pytest.raises(ProtocolError, match=r"TaskKeys.keys is missing"):
        handlers[Operation.CANCEL_TASKS]()


def test_a_stream_message_reaches_its_handler_with_the_sender() -> None:
    """Dask adds the client's id or the worker's address to what a stream carries."""
    heard: list[Any] = []
    receive = receiving(RevocationAnswer, lambda sender, message: heard.append((sender, message)))
    answer = RevocationAnswer("a", 3, (1.0, 2.0))
    wire = sent(stream_message(Operation.ANSWER_REVOKED, answer))
    assert wire.pop("op") == "scalable-answer-revoked"
    receive(worker="tls://h:1", **wire)
    receive(client="client-1", **wire)
    assert heard == [("tls://h:1", answer), ("client-1", answer)]


def test_operations_have_different_names() -> None:
    """No two operations share a handler."""
    assert len({operation.value for operation in Operation}) == len(Operation.__members__)


def test_an_annotation_is_written_with_the_names_of_the_call_log() -> None:
    """The names are stored in run folders: they stay, and defaults are left out."""
    annotation = TaskAnnotation(
        PolicyTerms(retries=2, timeout_s=3.0), "b1", "/results", True, 1024, True
    )
    wire = annotation.to_wire()
    assert wire == {
        "retries": 2, "timeout_s": 3.0, "batch": "b1", "store": "/results",
        "recompute": True, "keep_limit": 1024, "compress": True,
    }  # fmt: skip
    assert TaskAnnotation.from_wire(sent(wire)) == annotation
    assert TaskAnnotation().to_wire() == {}
    assert TaskAnnotation.from_wire({"of a later version": 1}) == TaskAnnotation()


@pytest.mark.parametrize(
    "wire",
    [{"store": 3}, {"recompute": "x"}, {"keep_limit": "1"}, {"keep_limit": True}, {"batch": None}],
)
def test_an_annotation_with_a_value_of_another_type_is_refused(wire: dict[str, Any]) -> None:
    """The error names the entry and its value."""
    ((name, value),) = wire.items()
    with pytest.raises(ProtocolError, match=f"TaskAnnotation: {name} is a .*{value!r}"):
        TaskAnnotation.from_wire(wire)


@pytest.mark.parametrize(
    ("facts", "wire"),
    [
        (CacheFacts("k", event="hit"), {"key": "k", "event": "hit"}),
        (CacheFacts("k", event="kept", bytes=3), {"key": "k", "event": "kept", "bytes": 3}),
        (CacheFacts("k", problem="no space"), {"key": "k", "problem": "no space"}),
    ],
)
def test_facts_on_a_stored_result_are_sent_without_the_missing_ones(
    facts: CacheFacts, wire: dict[str, Any]
) -> None:
    """They arrive as they were sent."""
    assert facts.to_wire() == wire
    assert CacheFacts.from_wire(sent(wire)) == facts


def test_an_incomplete_delta_is_refused() -> None:
    """The error names the entries that the reply of the host lacks."""

    async def reply(**values: Any) -> dict[str, Any]:
        return {"ledger_id": "run-1", "base": 0}

    scheduler = SimpleNamespace(**{Operation.GET_LEDGER.value: reply})
    transport: Any = SimpleNamespace(id="client-1", scheduler=scheduler)
    with pytest.raises(ProtocolError, match=r"Delta has no \['columns', 'first_new'"):
        asyncio.run(HostApi(transport).ledger_delta("run-1", 0, 0.0, 0))


def test_the_connection_info_of_a_live_host_is_complete(tmp_path: Path) -> None:
    """An error names the missing values; another version and a dead host may lack some."""
    paths = RunPaths(tmp_path / "run-1")
    paths.folder.mkdir()
    write_state(paths, HostState.OPEN, address="tls://h:1", target="local")
    with pytest.raises(RunFolderError, match="does not say certificate, started_at, tls: stop"):
        read_connection_info(paths)
    write_state(paths, HostState.OPEN, protocol_version=PROTOCOL_VERSION + 1)
    assert read_connection_info(paths) is not None
    write_state(paths, HostState.OPEN, pid_started_at=0.0)
    assert read_connection_info(paths) is not None


def test_values_are_encoded_by_the_types_of_their_fields() -> None:
    """Enums and messages are plain values on the wire, also within tuples and dicts."""
    nested = Nested(Colour.RED, Inner(3), (1, Colour.BLUE), {Colour.RED: (Inner(1), Inner(2))})
    wire = nested.to_wire()
    assert wire == {
        "colour": "red", "inner": {"number": 3}, "pair": [1, "blue"],
        "by_colour": {"red": [{"number": 1}, {"number": 2}]},
    }  # fmt: skip
    assert {type(each) for each in (wire["colour"], wire["pair"][1], *wire["by_colour"])} == {str}


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (ProtocolVersion(PROTOCOL_VERSION + 1, "9.9").to_wire(), "protocol version 2"),
        ({}, "protocol version before 1"),
        (None, "protocol version before 1"),
        ({"protocol_version": "x"}, "protocol version before 1"),
    ],
)
def test_another_version_is_not_compatible(wire: dict[str, Any] | None, text: str) -> None:
    """Versions differ, or are missing in a release from before there were any."""
    version = ProtocolVersion.from_wire(wire)
    assert not version.is_compatible
    assert str(version).startswith(text)


def test_the_own_version_is_compatible() -> None:
    """What a process announces is understood by another one of the same version."""
    assert ProtocolVersion.from_wire(sent(ProtocolVersion.own().to_wire())).is_compatible


def test_a_large_batch_is_decoded_in_no_time() -> None:
    """A hundred thousand keys and previews are not decoded one by one."""
    previews = {f"f-{number}": f"x={number}" for number in range(100_000)}
    wire = sent(BATCH.with_previews(previews).to_wire())
    assert dataclasses.astuple(BatchMessage.from_wire(wire))[0] == "id"
    assert BatchMessage.from_wire(wire).keys == tuple(previews)
