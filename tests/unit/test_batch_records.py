"""Batches keep their inputs in order through generations, names and damaged records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recorded import framed

from scalable_nb.client.batch_records import (
    BatchHistory,
    BatchRecord,
    CarriedOutcome,
    changed_keys,
)
from scalable_nb.client.call_log import RecordedBatch, RecordedCall, read_call_log
from scalable_nb.client.call_log_writer import CallLogWriter
from scalable_nb.protocol.call import Call


def batch(batch_id: str, keys: list[Any], **values: Any) -> BatchRecord:
    given = {"name": "sweep", "function_name": "f", "at": 0.0, "kernel": "here", **values}
    return BatchRecord(batch_id, keys=keys, **given)


def history(*records: BatchRecord) -> BatchHistory:
    made = BatchHistory()
    for record in records:
        made.add(record)
    made.sort()
    return made


def write(folder: Path, key: str, at: float, **values: Any) -> None:
    call = RecordedCall(key, Call(b"function", b"arguments"), (), "x=1")
    submission = RecordedBatch(f"id-{key}", "", "f", at=at, **values)
    CallLogWriter(folder, f"client-{key}", 1 << 40).write_calls(submission, [call])


def test_a_generation_replaces_the_selected_inputs() -> None:
    """Other inputs keep their tasks; what was replaced is found under its new key."""
    made = history(batch("a", ["k0", "k1", "k2"]))
    made.add_generation("a", 1, {1: "new"})
    made.add_generation("a", 2, {1: "newer"})
    assert made.batches["a"].keys == ["k0", "newer", "k2"]
    assert made.batches["a"].generation == 2
    assert (made.current("k1"), made.current("k2")) == ("newer", "k2")


def test_inputs_with_one_task_change_together() -> None:
    """A key that is twice in a batch gets its new task in both places."""
    made = history(batch("a", ["k0", "k1", "k0"]))
    ((record, keys),) = changed_keys(made, (), {"k0": "new"})
    assert (record.batch_id, keys) == ("a", {0: "new", 2: "new"})


@pytest.mark.parametrize(
    ("meant", "changed"), [((), ["a", "b"]), (("b",), ["b"]), (("other",), ["a", "b"])]
)
def test_batches_that_share_a_task_change_if_they_are_meant(
    meant: tuple[str, ...], changed: list[str]
) -> None:
    """A list's own batches count; a list that was put together by hand means all."""
    made = history(batch("a", ["k"]), batch("b", ["k"], at=1.0))
    assert [record.batch_id for record, _ in changed_keys(made, meant, {"k": "new"})] == changed


def test_a_task_that_another_batch_replaced_stays_in_this_one() -> None:
    """Two batches share a failed task; corrected in one, it stays in the list of the other."""
    made = history(batch("a", ["k"]), batch("b", ["k"], at=1.0))
    made.add_generation("a", 1, {0: "new"})
    assert (made.current_in(("a",), "k"), made.current_in(("b",), "k")) == ("new", "k")


def test_a_name_is_this_kernels_newest_batch() -> None:
    """Else the newest; all others have their ids."""
    made = history(
        batch("a", [1], at=1.0), batch("b", [2], at=2.0), batch("c", [3], at=3.0, kernel="there")
    )
    assert [record.batch_id for record in made.named("sweep", "here")] == ["b"]
    assert [record.batch_id for record in made.named("sweep", "elsewhere")] == ["c"]
    assert [record.batch_id for record in made.named("a", "here")] == ["a"]
    assert list(made.labels("here")) == ["a", "sweep", "c"]
    assert made.named("swep", "here") == []


def test_calls_of_submit_are_listed_together() -> None:
    """Each is a batch of one, and all of a function have one name."""
    made = history(
        batch("a", [1], name="", is_single=True), batch("b", [2], name="", is_single=True, at=1.0)
    )
    assert [record.keys for record in made.named("submit-f", "here")] == [[1], [2]]
    assert list(made.labels("here")) == ["submit-f"]


def test_records_are_read_as_written(tmp_path: Path) -> None:
    """Batches, generations and outcomes of earlier runs come back, in the order of submission."""
    folder = tmp_path / "calls"
    writer = CallLogWriter(folder, "here", 1 << 40)
    carried = {1: CarriedOutcome("failed", "not chosen by only=", {"failure_class": "KeyError"})}
    later = batch("b", ["k2"], at=2.0)
    writer.write_batches([later, batch("a", ["k0", "k1"], at=1.0, carried=carried)])
    writer.write_generation("b", 1, {0: "new"})
    writer.write_generation("unknown", 1, {0: "new"})
    writer.close()
    found = read_call_log(folder).history
    assert found.batches == {
        "a": batch("a", ["k0", "k1"], at=1.0, carried=carried),
        "b": batch("b", ["new"], at=2.0, generation=1),
    }
    assert found.carried() == {"k1": carried[1]}


def test_an_outcome_of_an_earlier_run_ends_with_a_generation() -> None:
    """An input that runs again has no outcome until it is done."""
    carried = {0: CarriedOutcome("cancelled", "cancelled")}
    made = history(batch("a", ["k0"], carried=carried))
    made.add_generation("a", 1, {0: "k0"})
    assert made.carried() == {}


def test_a_submit_is_a_batch_of_one(tmp_path: Path) -> None:
    """Its call is its only entry."""
    write(tmp_path / "calls", "k", 1.0, is_submit=True)
    ((batch_id, record),) = read_call_log(tmp_path / "calls").history.batches.items()
    assert (batch_id, record.keys, record.is_single) == ("id-k", ["k"], True)


def test_calls_of_a_resubmission_are_no_batch(tmp_path: Path) -> None:
    """They belong to the batch that has a generation with them."""
    write(tmp_path / "calls", "k", 1.0, is_submit=False)
    log = read_call_log(tmp_path / "calls")
    assert (list(log.tasks), log.history.batches) == (["k"], {})


def write_map(folder: Path, keys: dict[str, bytes], at: float, name: str, function: str) -> None:
    """Record calls as before batches had ids: the arguments of each key."""
    calls = [
        RecordedCall(key, Call(b"function", arguments), (), "x=1")
        for key, arguments in keys.items()
    ]
    submission = RecordedBatch(f"id-{at}", name, function, at=at)
    CallLogWriter(folder, f"client-{at}", 1 << 40).write_calls(submission, calls)


def corrected_key(number: int) -> str:
    return f"good-{'a' * 31}{number}-{number}"


def test_corrected_calls_of_earlier_versions_replace_theirs(tmp_path: Path) -> None:
    """They had no generations: a batch of four keeps four inputs, with two of them replaced."""
    folder = tmp_path / "calls"
    keys = {f"f-{n}": b"%d" % n for n in range(4)}
    write_map(folder, keys, 1.0, "x", "f")
    with (folder / "client-old.calls").open("wb") as file:
        entry = {"kind": "members", "name": "x", "keys": ["f-0", "f-1", "f-2", "f-3", "f-1"]}
        file.write(framed({**entry, "at": 1.5}))
    write_map(folder, {corrected_key(0): b"1", corrected_key(1): b"3"}, 2.0, "x", "good")
    write_map(folder, {corrected_key(2): b"3"}, 3.0, "x", "good")
    history = read_call_log(folder).history
    (record,) = history.batches.values()
    assert record.keys == ["f-0", corrected_key(0), "f-2", corrected_key(2), corrected_key(0)]
    assert (record.generation, history.current("f-3")) == (2, corrected_key(2))


def test_corrected_submit_of_an_earlier_version_replaces_it(tmp_path: Path) -> None:
    """If two calls could be meant, none is replaced and nothing is lost."""
    folder = tmp_path / "calls"
    for number, (key, function) in enumerate([("f-1", "f"), ("g-1", "g"), ("f-2", "f")]):
        write_map(folder, {key: key[-1:].encode()}, float(number), "", function)
    write_map(folder, {corrected_key(0): b"2"}, 4.0, "", "good")
    write_map(folder, {corrected_key(1): b"1"}, 5.0, "", "good")
    assert read_call_log(folder).history.input_keys() == [
        "f-1", "g-1", corrected_key(0), corrected_key(1)
    ]  # fmt: skip


def test_records_of_earlier_versions_are_batches(tmp_path: Path) -> None:
    """Two batches of one name stay two, with the same ids at each reading."""
    folder = tmp_path / "calls"
    write(folder, "single", 3.0)
    with (folder / "client-old.calls").open("wb") as file:
        for at in (1.0, 2.0):
            file.write(framed({"kind": "members", "name": "x", "keys": ["k", "k"], "at": at}))
    found = read_call_log(folder).history
    assert [(each.name, each.keys) for each in found.batches.values()] == [
        ("x", ["k", "k"]), ("x", ["k", "k"]), ("", ["single"])
    ]  # fmt: skip
    assert len(found.batches) == 3
    assert list(read_call_log(folder).history.batches) == list(found.batches)
