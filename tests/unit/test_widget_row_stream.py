"""Frames bring every page to the state of the ledger, whatever happened on the way."""

from __future__ import annotations

from typing import Any

import pytest
from fake_mirror import FakeMirror
from frame_reader import FrameReader
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.telemetry.ledger import Ledger
from scalable_nb.telemetry.rows import TaskState
from scalable_nb.widgets.task_table.row_stream import RowStream

# What can happen, in any order: tasks appear, change, a frame or a snapshot is sent or lost.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 5)),
        st.tuples(st.just("change"), st.integers(0, 10**6)),
        st.sampled_from([("frame", 1), ("frame", 0), ("snapshot", 1), ("snapshot", 0)]),
    ),
    max_size=40,
)
KEYS = st.one_of(st.none(), st.lists(st.sampled_from([f"key-{n}" for n in range(40)])))


def expected(mirror: FakeMirror, keys: list[str] | None) -> list[tuple[str, int, str]]:
    ledger = mirror.ledger
    shown = list(ledger.keys) if keys is None else list(dict.fromkeys(keys))
    rows = [(key, ledger.row_of.get(key)) for key in shown]
    return [
        (key, 0, "")
        if row is None
        else (ledger.labels[row], ledger.columns["state"][row], ledger.text("worker", row))
        for key, row in rows
    ]


def held(reader: FrameReader) -> list[tuple[str, int, str]]:
    return [
        (row["label"], row.get("state", 0), reader.text(number, "worker"))
        for number, row in enumerate(reader.rows)
    ]


@given(STEPS, KEYS)
def test_any_page_ends_with_what_the_ledger_says(
    steps: list[tuple[str, int]], keys: list[str] | None
) -> None:
    """With frames lost and snapshots in between, gaps are noticed and the end is exact."""
    mirror = FakeMirror()
    stream = RowStream(mirror.ledger, mirror.lock, keys)
    reader = FrameReader()
    assert reader.read(stream.snapshot().data)
    is_behind = False
    for number, (what, value) in enumerate(steps):
        if what == "add":
            mirror.add(value)
        elif what == "change" and len(mirror.ledger):
            row = value % len(mirror.ledger)
            mirror.change(row, TaskState(value % 10), worker=f"worker-{value % 7}-{number % 3}")
        elif what == "snapshot":
            frame = stream.snapshot()
            if value:
                assert reader.read(frame.data)
                is_behind = False
        elif what == "frame" and (sent := stream.frame()) is not None:
            if value:
                assert reader.read(sent.data) != is_behind
            else:
                is_behind = True
    last = stream.frame()
    if last is not None and not is_behind:
        assert reader.read(last.data)
    if is_behind:
        assert reader.read(stream.snapshot().data)
    assert held(reader) == expected(mirror, keys)
    assert stream.frame() is None


def test_a_quiet_run_sends_nothing() -> None:
    """No frame is made where nothing changed, or only tasks that the table does not show."""
    mirror = FakeMirror()
    mirror.add(3)
    stream = RowStream(mirror.ledger, mirror.lock, ["key-1"])
    stream.snapshot()
    assert stream.frame() is None
    mirror.change(2, TaskState.RUNNING)
    assert stream.frame() is None
    mirror.change(1, TaskState.RUNNING)
    frame = stream.frame()
    assert frame is not None
    assert frame.rows == 1


def test_rows_have_the_inputs_of_the_table() -> None:
    """A row of a list has as many inputs as the list has members; of a run, as many as it has."""
    mirror = FakeMirror()
    mirror.add(2)
    mirror.change(0, TaskState.SUCCEEDED, inputs=5)
    for keys, inputs in ((None, [5, 1]), (["key-1", "key-0", "key-1"], [2, 1])):
        stream, reader = RowStream(mirror.ledger, mirror.lock, keys), FrameReader()
        assert reader.read(stream.snapshot().data)
        assert [row["inputs"] for row in reader.rows] == inputs
        mirror.change(1, TaskState.RUNNING)
        frame = stream.frame()
        assert frame is not None
        assert reader.read(frame.data)
        assert [row["inputs"] for row in reader.rows] == inputs


def test_another_ledger_starts_from_a_snapshot() -> None:
    """When the mirror's ledger becomes another one, the page gets all of it."""
    mirror = FakeMirror("")
    stream = RowStream(mirror.ledger, mirror.lock)
    reader = FrameReader()
    reader.read(stream.snapshot().data)
    host = Ledger("run")
    host.add("a", "f(a)", state=TaskState.RUNNING, worker=host.code("w"))
    assert mirror.ledger.apply(host.delta())
    frame = stream.frame()
    assert frame is not None
    assert reader.read(frame.data)
    assert held(reader) == [("f(a)", TaskState.RUNNING, "w")]


def test_texts_that_are_no_utf8_reach_the_page() -> None:
    """A label with a lone surrogate breaks neither the frame nor the other labels."""
    mirror = FakeMirror()
    mirror.add(2)
    mirror.ledger.labels[0] = "f('\udc80')"
    reader = FrameReader()
    assert reader.read(RowStream(mirror.ledger, mirror.lock).snapshot().data)
    assert [row["label"] for row in reader.rows] == ["f('\udc80')", "simulate(scenario=1)"]


@pytest.mark.parametrize("keys", [None, ["key-1", "key-0"]])
def test_rows_have_the_keys_of_the_table(keys: Any) -> None:
    """A row number of the page leads to the key of that row, and nothing else to any."""
    mirror = FakeMirror()
    mirror.add(2)
    stream = RowStream(mirror.ledger, mirror.lock, keys)
    assert [stream.key(0), stream.key(1)] == (keys or ["key-0", "key-1"])
    for row in (-1, 2):
        with pytest.raises(IndexError, match=f"no row {row} in a table of 2 tasks"):
            stream.key(row)


def test_100000_tasks_fit_into_4_mb_and_a_change_into_a_few_bytes() -> None:
    """The first frame of a large table is below 4 MB; an update costs what it changes."""
    mirror = FakeMirror()
    mirror.add(100_000)
    for row in range(100_000):
        mirror.ledger.set(
            row,
            worker=row * 7919 % 20,
            attempt=1 + row % 3,
            started_at=1.7e9 + row * 0.0137,
            duration_s=(row * 7919 % 10_007) / 997,
        )
    stream = RowStream(mirror.ledger, mirror.lock)
    assert len(stream.snapshot().data) < 4_000_000
    for row in range(100):
        mirror.change(row, TaskState.SUCCEEDED)
    frame = stream.frame()
    assert frame is not None
    assert len(frame.data) < 100 * 70 + 2000
