"""The call log can be read, however it ends, and what is large is in it once."""

from __future__ import annotations

import os
import pickle
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import files_end_at
from hypothesis import given
from hypothesis import strategies as st
from recorded import framed

from scalable_nb.client.batch_records import BatchRecord, CarriedOutcome
from scalable_nb.client.call_log import (
    RecordedBatch,
    RecordedCall,
    place_of,
    read_call_log,
    sign_call_log,
)
from scalable_nb.client.call_log_writer import CallLogWriter
from scalable_nb.client.packing import SharedBuffers, pack_arguments
from scalable_nb.errors import RunFolderError
from scalable_nb.protocol import call_frames
from scalable_nb.protocol.call import Call
from scalable_nb.protocol.call_frames import pack_frame
from scalable_nb.signing import own_key

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


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("where", ["entry", "key", "term", "whole"])
def test_pickled_entry_of_an_earlier_version_runs_nothing(folder: Path, where: str) -> None:
    """An entry that is not of plain values counts as damaged; the others are read."""
    ran = folder.parent / "ran"
    folder.mkdir(mode=0o700)
    values = {"batch_id": "b", "name": "", "function_name": "f"}
    entry: Any = {"kind": "batch", "values": values, "function": "d"}
    calls = {"kind": "calls", "batch": "b", "keys": ["k"], "arguments": [b"pickled"]}
    calls |= {"result_keys": [""], "input_keys": [()], "previews": [""]}
    planted: dict[str, Any] = {
        "entry": {**entry, "more": Planted(ran)},
        "key": {**calls, "keys": [Planted(ran)]},
        "term": {**entry, "values": {**values, "wire": {"x": Planted(ran)}}},
        "whole": Planted(ran),
    }
    data = b"".join(map(framed, (planted[where], entry, calls)))
    (folder / "one.calls").write_bytes(data)
    log = read_call_log(folder)
    assert not ran.exists()
    assert (list(log.tasks), log.torn, log.unsigned) == (["k"], 1, 2)
    with pytest.raises(RunFolderError, match=f"resubmit --run {folder.parent.name} --trust"):
        log.require_signed()


@pytest.mark.parametrize(
    "key",
    ["text", "\ud800 alone", b"bytes", 7, 2**70, 0.5, ("x", 1, (2, b"y")), np.str_("numpy"), True],
    ids=repr,
)
def test_keys_of_all_kinds_are_read(folder: Path, key: Any) -> None:
    """A key that Dask takes comes back equal, also as an input, in a batch and a generation."""
    writer = CallLogWriter(folder, "one", UNLIMITED)
    call = RecordedCall(key, Call(b"function", b"arguments"), (key, "other"), "")
    writer.write_calls(RecordedBatch("b", "", "f"), [call])
    outcome = CarriedOutcome("failed", "why", {"task_id": "x", "duration_s": 0.5})
    carried = {0: CarriedOutcome("cancelled", "x"), 1: outcome}
    record = BatchRecord("id", "sweep", "f", 2.0, "one", ["x", key, "y"], carried=carried)
    writer.write_batches([record])
    writer.write_generation("id", 3, {2: key})
    log = read_call_log(folder)
    assert list(log.tasks) == [key]
    assert log.tasks[key].input_keys == (key, "other")
    (found,) = log.history.batches.values()
    assert (found.keys, found.generation, found.carried) == (["x", key, key], 3, carried)
    assert log.unsigned == log.torn == 0


def test_bytes_among_the_terms_stay_as_they_are(folder: Path) -> None:
    """A pickled policy is read as bytes, and nothing unpickles it."""
    ran = folder.parent / "ran"
    pickled = pickle.dumps(Planted(ran))
    wire = {"retry_on": pickled, "names": ("A", "B"), "limit": float("inf"), "none": None}
    writer = CallLogWriter(folder, "one", UNLIMITED)
    call = Call(pickled, pickled, about=pickled)
    batch = RecordedBatch("b", "", "f", wire=wire, placing={"workers": {"w"}})
    writer.write_calls(batch, [RecordedCall("k", call, (), "")])
    task = read_call_log(folder).tasks["k"]
    assert task.batch.wire == {**wire, "names": ["A", "B"]}
    assert task.batch.placing == {"workers": ["w"]}
    assert (task.function, task.packed, task.about) == (pickled, pickled, pickled)
    assert not ran.exists()


def write_one(folder: Path) -> bytes:
    """Record a call in a run, and return the file."""
    CallLogWriter(folder, "one", UNLIMITED).write_calls(
        RecordedBatch("b", "", "f"), [recorded("k")]
    )
    return (folder / "one.calls").read_bytes()


def test_signature_holds_for_run_file_and_position(tmp_path: Path) -> None:
    """Entries of another run or file, or in another order, are not signed."""
    data = write_one(tmp_path / "run-1" / "calls")
    assert read_call_log(tmp_path / "run-1" / "calls").unsigned == 0
    for run, name, content, unsigned in (
        ("run-2", "one.calls", data, 3),
        ("run-1", "two.calls", data, 3),
        ("run-1", "one.calls", data + data, 3),
    ):
        other = tmp_path / "elsewhere" / run / "calls"
        other.mkdir(parents=True, exist_ok=True, mode=0o700)
        (other / name).write_bytes(content)
        log = read_call_log(other)
        assert (list(log.tasks), log.torn, log.unsigned) == (["k"], 0, unsigned)
        (other / name).unlink()
    (tmp_path / "run-1").rename(tmp_path / "elsewhere" / "moved")
    (tmp_path / "elsewhere" / "moved").rename(tmp_path / "run-1")
    assert read_call_log(tmp_path / "run-1" / "calls").unsigned == 0


def test_log_of_another_key_is_read_and_can_be_signed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is intact and unsigned; signing it changes nothing else."""
    write_one(folder)
    monkeypatch.setenv("SCALABLE_KEY_FILE", str(folder.parent / "another-key"))
    before = read_call_log(folder)
    assert (before.torn, before.unsigned) == (0, 3)
    sign_call_log(folder)
    after = read_call_log(folder)
    assert (after.torn, after.unsigned, after.tasks) == (0, 0, before.tasks)
    after.require_signed()
    assert after.history.batches == before.history.batches


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "batch"},
        {"kind": "batch", "values": {"unknown": 1}, "function": "d"},
        {"kind": "calls", "batch": "b", "keys": ["k"]},
        {"kind": "calls", "batch": "b", "keys": [{}], "arguments": [None], "result_keys": [""],
         "input_keys": [[]], "previews": [""]},
        {"kind": "members", "at": 1.0, "values": []},
        {"kind": "generation", "keys": [1], "at": 0},
        {"kind": "generation", "keys": {"x": "k"}, "at": 0},
        {"kind": "function", "digest": []},
    ],
    ids=str,
)  # fmt: skip
def test_entry_without_its_values_counts_as_damaged(folder: Path, values: dict[str, Any]) -> None:
    """Whatever a file from elsewhere contains, the rest of the log is read."""
    data = write_one(folder)
    place = place_of(folder / "one.calls")
    (folder / "one.calls").write_bytes(data + pack_frame(values, place, len(data), own_key()))
    log = read_call_log(folder)
    assert (list(log.tasks), log.torn) == (["k"], 1)


def test_header_of_a_frame_that_is_no_header_counts_as_damaged(folder: Path) -> None:
    """References and lengths beyond the body, and deep nesting, are refused."""
    whole = write_one(folder)
    deep = "[" * 100_000
    headers = ["", "[]", "[9]\n{}", '[-1]\n{"arguments": [5]}', '[]\n{"x": {"__bytes__": 1}}',
               f"[]\n{deep}", "[]\n[]", "\xff\n{}"]  # fmt: skip
    for header in headers:
        encoded = header.encode("latin-1")
        head = call_frames._HEAD.pack(b"CAL2", len(encoded), 0, sha256(encoded).digest(), b"")
        (folder / "one.calls").write_bytes(head + bytes(16) + encoded + whole)
        log = read_call_log(folder)
        assert (list(log.tasks), log.torn) == (["k"], 1), header


def test_content_is_named_by_its_digest_alone(folder: Path) -> None:
    """A path in the place of a digest reads nothing, and a link or FIFO is not followed."""
    outside = folder.parent / "outside"
    outside.write_bytes(b"secret")
    folder.mkdir(mode=0o700)
    place = place_of(folder / "one.calls")
    data = b""
    values = {"batch_id": "b", "name": "", "function_name": "f"}
    chunk = {"result_keys": [""], "input_keys": [[]], "previews": [""], "keys": ["k"]}
    for entry in (
        {"kind": "function", "digest": "d", "function": b"f"},
        {"kind": "batch", "values": values, "function": "d"},
        {"kind": "calls", "batch": "b", "arguments": [["../../outside"]], **chunk},
    ):
        data += pack_frame(entry, place, len(data), own_key())
    (folder / "one.calls").write_bytes(data)
    log = read_call_log(folder)
    assert log.load_call(log.tasks["k"], "") is None
    (folder / "two.calls").symlink_to(outside)
    with pytest.raises(RunFolderError, match="symbolic link"):
        read_call_log(folder)
    (folder / "two.calls").unlink()
    os.mkfifo(folder / "two.calls")
    with pytest.raises(RunFolderError, match="not a regular file"):
        read_call_log(folder)
