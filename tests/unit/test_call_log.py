"""The call log can be read, however it ends, and what is large is in it once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import files_end_at
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.client.batch_records import BatchRecord
from scalable_nb.client.call_log import RecordedBatch, RecordedCall, read_call_log
from scalable_nb.client.call_log_writer import CallLogWriter
from scalable_nb.client.packing import SharedBuffers, pack_arguments
from scalable_nb.errors import RunFolderError
from scalable_nb.protocol.call import Call

UNLIMITED = 1 << 40


def recorded(key: Any, arguments: bytes = b"arguments", **values: Any) -> RecordedCall:
    return RecordedCall(key, Call(b"function", arguments, **values), (), f"x={key}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "calls"


def test_what_was_written_is_read(folder: Path) -> None:
    """Functions, arguments, inputs, order and terms come back as they were sent."""
    writer = CallLogWriter(folder, "one", UNLIMITED)
    batch = RecordedBatch("b1", "sweep", "simulate", wire={"retries": 3}, at=1.0)
    known = {"about": b'{"function":"simulate"}'}
    calls = [recorded(("block", 1), **known), recorded("second", result_key="ab", **known)]
    writer.write_calls(batch, calls)
    sweep = BatchRecord("id", "sweep", "simulate", 2.0, "one", ["second", ("block", 1), "second"])
    writer.write_batches([sweep])
    writer.close()
    log = read_call_log(folder)
    assert list(log.tasks) == [("block", 1), "second"]
    assert log.tasks["second"].batch == batch
    again = log.load_call(log.tasks["second"], "ab")
    assert again == Call(b"function", b"arguments", "ab", **known)
    assert log.history.batches == {"id": sweep}
    assert (folder.stat().st_mode | next(folder.glob("*.calls")).stat().st_mode) & 0o077 == 0


def test_a_run_without_record_has_no_calls(folder: Path) -> None:
    """A folder that was never made is an empty record; one of others is refused."""
    assert read_call_log(folder).tasks == {}
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(RunFolderError, match="writable by others"):
        read_call_log(folder)


def test_several_clients_write_one_record(folder: Path) -> None:
    """Two notebooks of a run have a file each; the record is in the order of submission."""
    for number, name in enumerate(["b", "a"]):
        writer = CallLogWriter(folder, name, UNLIMITED)
        writer.write_calls(RecordedBatch(name, "", "f", at=float(number)), [recorded(name)])
    assert list(read_call_log(folder).tasks) == ["b", "a"]


@given(data=st.data())
def test_any_prefix_of_a_record_is_a_record(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Torn at any byte, whole entries before it are read and the tear is told."""
    folder = tmp_path_factory.mktemp("torn")
    folder.chmod(0o700)
    writer = CallLogWriter(folder, "one", UNLIMITED)
    ends = [0]
    for number in range(3):
        writer.write_calls(RecordedBatch(f"b{number}", "", "f", at=number), [recorded(number)])
        ends.append((folder / "one.calls").stat().st_size)
    whole = (folder / "one.calls").read_bytes()
    length = data.draw(st.integers(0, len(whole)))
    (folder / "one.calls").write_bytes(whole[:length])
    log = read_call_log(folder)
    assert len(log.tasks) == sum(end <= length for end in ends[1:])
    (folder / "one.calls").write_bytes(whole[:length] + b"no entry at all")
    assert read_call_log(folder).torn == 1


def test_a_damaged_entry_costs_no_other(folder: Path) -> None:
    """Entries before and after it are read; only its own calls are lost."""
    writer = CallLogWriter(folder, "one", UNLIMITED)
    ends = []
    for number in range(3):
        writer.write_calls(RecordedBatch(f"b{number}", "", "f", at=number), [recorded(number)])
        ends.append((folder / "one.calls").stat().st_size)
    whole = bytearray((folder / "one.calls").read_bytes())
    whole[ends[1] - 1] ^= 0xFF
    (folder / "one.calls").write_bytes(whole)
    log = read_call_log(folder)
    assert (list(log.tasks), log.torn) == ([0, 2], 1)


def test_large_arguments_are_recorded_once(folder: Path) -> None:
    """An array that a hundred calls share lies in one file, and each call gets its own copy."""
    shared, array = SharedBuffers(), np.arange(100_000.0)
    calls = []
    for number in range(100):
        packed = pack_arguments([number, array], {}, print, shared)
        call = Call(b"function", packed.pickled, "", packed.buffers)
        calls.append(RecordedCall(number, call, (), ""))
    CallLogWriter(folder, "one", UNLIMITED).write_calls(RecordedBatch("b", "", "f"), calls)
    assert (
        len(list((folder / "content").iterdir())) == 2
        or sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        < 2 * array.nbytes
    )
    log = read_call_log(folder)
    loaded = [log.load_call(log.tasks[number], "") for number in (7, 8)]
    assert loaded[0] is not None
    assert loaded[1] is not None
    (seven, first), _ = loaded[0].load_arguments([])
    (_, second), _ = loaded[1].load_arguments([])
    assert seven == 7
    first[0] = -1
    assert second[0] == 0
    np.testing.assert_array_equal(second, array)


def test_temporary_buffers_are_not_mistaken_for_each_other() -> None:
    """Copies that pickling makes for a moment may lie at one address, one after the other."""
    shared = SharedBuffers()
    slices = [np.arange(40_000.0)[::2] + number for number in range(50)]
    strided = [np.repeat(each, 2)[::2] for each in slices]
    packed = [pack_arguments([each], {}, print, shared) for each in strided]
    for each, expected in zip(packed, strided, strict=True):
        (array,), _ = Call(b"", each.pickled, "", each.buffers).load_arguments([])
        np.testing.assert_array_equal(array, expected)


def test_damaged_content_is_not_used(folder: Path) -> None:
    """A large argument that is gone or changed makes the call unusable, not wrong."""
    large = os.urandom(1 << 17)
    writer = CallLogWriter(folder, "one", UNLIMITED)
    writer.write_calls(RecordedBatch("b", "", "f"), [recorded("x", large)])
    (content,) = (folder / "content").iterdir()
    content.write_bytes(large[:-1])
    log = read_call_log(folder)
    assert log.load_call(log.tasks["x"], "") is None


def test_the_limit_and_secrets_leave_arguments_out(folder: Path) -> None:
    """Keys and labels stay; what was left out is counted."""
    writer = CallLogWriter(folder, "one", 100)
    calls = [recorded(number, bytes(60)) for number in range(3)]
    assert writer.write_calls(RecordedBatch("b", "", "f"), calls) == 2
    assert writer.write_calls(RecordedBatch("c", "", "f"), [recorded("s")], record_args=False) == 0
    tasks = read_call_log(folder).tasks
    assert [task.has_call for task in tasks.values()] == [True, False, False, False]


def test_a_full_disk_hides_nothing(folder: Path) -> None:
    """What could not be written is said, and what comes later can be read."""
    writer = CallLogWriter(folder, "one", UNLIMITED)
    writer.write_calls(RecordedBatch("a", "", "f", at=0), [recorded("before")])
    with files_end_at(1000), pytest.raises(OSError, match="File too large"):
        writer.write_calls(RecordedBatch("b", "", "f", at=1), [recorded("lost", bytes(10_000))])
    writer.write_calls(RecordedBatch("c", "", "f", at=2), [recorded("after")])
    log = read_call_log(folder)
    assert (list(log.tasks), log.torn) == (["before", "after"], 0)
