"""The table of all tasks, and copies of it that deltas keep up to date."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scalable_nb.telemetry.ledger import COLUMNS, Delta, Ledger
from scalable_nb.telemetry.rows import STATE_LABELS, TaskState

STATES = st.sampled_from(TaskState)
# Also what no keyboard writes: a function's name may be any text.
TEXTS = st.text(max_size=8)
NUMBERS = {
    "I": st.integers(0, 3),
    "H": st.integers(0, 2**16 - 1),
    "d": st.floats(0, 4e9),
    "f": st.floats(0, 1e6, width=32),
}
PLAIN_COLUMNS = {name: code for name, code in COLUMNS.items() if code in NUMBERS}
CODED_COLUMNS = [name for name, code in COLUMNS.items() if code == "i"]


def contents(ledger: Ledger) -> dict[str, Any]:
    """All that a reader can see."""
    return {
        "ledger_id": ledger.ledger_id,
        "seq": ledger.seq,
        "keys": list(ledger.keys),
        "labels": list(ledger.labels),
        "row_of": dict(ledger.row_of),
        "strings": list(ledger.strings),
        "counts": ledger.count(),
        **{name: column.tolist() for name, column in ledger.columns.items()},
        **{
            f"{name} as text": [ledger.text(name, row) for row in range(len(ledger))]
            for name in CODED_COLUMNS
        },
    }


class Copies(RuleBasedStateMachine):
    """A host's ledger, a kernel's copy of it, and a view's copy of that copy."""

    def __init__(self) -> None:
        super().__init__()
        self.host = Ledger("run")
        self.kernel = Ledger("")
        self.view = Ledger("")
        self.under_way: list[Delta] = []

    # --- the host works ----------------------------------------------------------

    @rule(labels=st.lists(TEXTS, min_size=1, max_size=4), state=STATES, function=TEXTS)
    def add(self, labels: list[str], state: TaskState, function: str) -> None:
        for label in labels:
            number = len(self.host)
            row = self.host.add(
                f"key-{number}", label, state=state, function=self.host.code(function)
            )
            assert row == number

    @precondition(lambda self: len(self.host))
    @rule(data=st.data(), state=STATES)
    def change_state(self, data: st.DataObject, state: TaskState) -> None:
        self.host.set_state(self._row(data), state)

    @precondition(lambda self: len(self.host))
    @rule(data=st.data(), name=st.sampled_from(sorted(PLAIN_COLUMNS)))
    def change_number(self, data: st.DataObject, name: str) -> None:
        self.host.set(self._row(data), **{name: data.draw(NUMBERS[PLAIN_COLUMNS[name]])})

    @precondition(lambda self: len(self.host))
    @rule(data=st.data(), name=st.sampled_from(CODED_COLUMNS), text=TEXTS)
    def change_text(self, data: st.DataObject, name: str, text: str) -> None:
        self.host.set(self._row(data), **{name: self.host.code(text)})

    @rule(text=TEXTS)
    def name_something(self, text: str) -> None:
        assert self.host.strings[self.host.code(text)] == text

    # --- the readers ask, and answers arrive in any order, twice, or never ---------

    @rule()
    def ask(self) -> None:
        is_same = self.kernel.ledger_id == self.host.ledger_id
        self.under_way.append(self.host.delta(self.kernel.seq if is_same else 0))

    @rule()
    def ask_for_a_snapshot(self) -> None:
        self.under_way.append(self.host.delta(0))

    @rule(data=st.data())
    def another_reader_asks(self, data: st.DataObject) -> None:
        self.under_way.append(self.host.delta(data.draw(st.integers(0, self.host.seq))))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), is_kept=st.booleans())
    def deliver(self, data: st.DataObject, is_kept: bool) -> None:
        at = data.draw(st.integers(0, len(self.under_way) - 1))
        delta = self.under_way[at] if is_kept else self.under_way.pop(at)
        before = contents(self.kernel)
        is_gap = delta["base"] and (
            self.kernel.ledger_id != "run" or delta["base"] > self.kernel.seq
        )
        assert self.kernel.apply(delta) is not bool(is_gap)
        if is_gap:
            assert contents(self.kernel) == before
        assert self.kernel.seq >= before["seq"]

    @rule()
    def lose_what_is_under_way(self) -> None:
        self.under_way.clear()

    @rule()
    def kernel_starts_anew(self) -> None:
        self.kernel = Ledger("")

    @rule()
    def draw_the_view(self) -> None:
        is_same = self.view.ledger_id == self.kernel.ledger_id
        if not self.view.apply(self.kernel.delta(self.view.seq if is_same else 0)):
            assert self.view.apply(self.kernel.delta(0))

    # --- what always holds -----------------------------------------------------------

    @invariant()
    def counts_add_up(self) -> None:
        for ledger in (self.host, self.kernel, self.view):
            states, inputs = ledger.columns["state"].tolist(), ledger.columns["inputs"].tolist()
            assert ledger.counts == [states.count(state) for state in TaskState]
            shared = Counter(np.repeat(states, inputs).tolist())
            assert ledger.count() == {state.label: shared[state] for state in TaskState}

    @invariant()
    def columns_are_of_one_length(self) -> None:
        for ledger in (self.host, self.kernel, self.view):
            lengths = {len(column) for column in ledger.columns.values()}
            assert lengths == {len(ledger)} == {len(ledger.labels)} == {len(ledger.row_of)}

    def teardown(self) -> None:
        is_same = self.kernel.ledger_id == self.host.ledger_id
        if self.host.has_changed(self.kernel.seq if is_same else 0):
            assert self.kernel.apply(self.host.delta(self.kernel.seq if is_same else 0))
        if len(self.host):
            self.draw_the_view()
            assert contents(self.kernel) == contents(self.host)
            assert contents(self.view) == contents(self.host)
        assert not self.host.has_changed(self.kernel.seq)

    def _row(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.host) - 1))


class TestCopies(Copies.TestCase):  # type: ignore[name-defined,misc]
    """Whatever happens, counts add up, and a reader that asks ends with an exact copy."""


def test_a_quiet_ledger_has_nothing_to_send() -> None:
    """Once a reader has all, it is told nothing until something changes, and then only that."""
    ledger = Ledger("run")
    assert not ledger.has_changed(0)
    rows = [ledger.add(f"key-{n}", f"f({n})", state=TaskState.QUEUED) for n in range(3)]
    assert ledger.has_changed(0)
    seq = ledger.delta(0)["seq"]
    assert not ledger.has_changed(seq)
    ledger.set_state(rows[1], TaskState.QUEUED)  # it is in that state already
    assert ledger.code("") == 0
    assert not ledger.has_changed(seq)
    assert ledger.delta(seq)["seq"] == seq
    ledger.set_state(rows[1], TaskState.RUNNING)
    assert ledger.has_changed(seq)
    delta = ledger.delta(seq)
    assert (delta["rows"], delta["keys"], delta["strings"]) == (b"\1\0\0\0", [], [])
    assert len(delta["columns"]["submitted_at"]) == 8


def test_asking_changes_nothing() -> None:
    """A reader that asks twice gets the same; reading moves no sequence number."""
    ledger = Ledger("run")
    ledger.add("key", "f()", worker=ledger.code("worker-0"))
    first, second = ledger.delta(0), ledger.delta(0)
    assert first | {"now_at": 0} == second | {"now_at": 0}
    assert first["now_at"] <= second["now_at"]


def test_a_delta_of_another_ledger_is_refused_and_its_snapshot_taken() -> None:
    """Rows of another run never mix with those at hand; its snapshot replaces them all."""
    first, second, copy = Ledger("first"), Ledger("second"), Ledger("")
    for name in "abc":
        first.add(name, name, worker=first.code(f"worker of {name}"))
    assert copy.apply(first.delta(0))
    second.add("x", "f(x)", state=TaskState.RUNNING)
    seq = second.delta(0)["seq"]
    second.add("y", "f(y)")
    before = contents(copy)
    assert not copy.apply(second.delta(seq))
    assert contents(copy) == before
    assert copy.apply(second.delta(0))
    assert contents(copy) == contents(second)
    assert "worker of a" not in copy.strings


def test_a_reader_that_missed_a_delta_notices() -> None:
    """What does not continue the copy is refused whole; asking with one's own number heals it."""
    host, copy = Ledger("run"), Ledger("")
    for name in "abc":
        host.add(name, f"f({name})")
        delta = host.delta(host.seq)
        if name == "a":
            assert copy.apply(host.delta(0))
    before = contents(copy)
    assert delta["base"] == 2
    assert not copy.apply(delta)
    assert contents(copy) == before
    assert copy.apply(host.delta(copy.seq))
    assert contents(copy) == contents(host)


def test_a_snapshot_that_was_overtaken_does_not_turn_back_time() -> None:
    """An old answer that arrives last leaves the newer contents as they are."""
    host, copy = Ledger("run"), Ledger("")
    host.add("a", "f(a)")
    old = host.delta(0)
    host.set_state(0, TaskState.SUCCEEDED)
    host.add("b", "f(b)")
    assert copy.apply(host.delta(0))
    assert copy.apply(old)
    assert contents(copy) == contents(host)


def test_an_empty_ledger_can_be_copied() -> None:
    """A reader of a run without tasks holds an empty table that goes on from there."""
    host, copy = Ledger("run"), Ledger("")
    assert copy.apply(host.delta(0))
    assert (len(copy), copy.ledger_id, sum(copy.count().values())) == (0, "run", 0)
    host.add("a", "f(a)")
    assert copy.apply(host.delta(copy.seq))
    assert contents(copy) == contents(host)


@given(value=st.floats(0, 1e6))
def test_times_keep_their_milliseconds(value: float) -> None:
    """Points in time travel exactly; durations to six digits."""
    host, copy = Ledger("run"), Ledger("")
    host.add("a", "f(a)", submitted_at=1.7e9 + value, duration_s=value)
    copy.apply(host.delta(0))
    assert copy.columns["submitted_at"][0] == 1.7e9 + value
    assert math.isclose(copy.columns["duration_s"][0], value, rel_tol=1e-6, abs_tol=1e-30)


def test_words_for_states() -> None:
    """Each state has one word, and the final ones are those after which nothing happens."""
    assert list(Ledger("run").count()) == list(STATE_LABELS)
    final = {state.label for state in TaskState if state.is_final}
    assert final == {"succeeded", "cached", "failed", "cancelled", "left out", "never ran"}


def test_unknown_column_is_refused() -> None:
    """A misspelt column is an error and not a value that nobody ever sees."""
    ledger = Ledger("run")
    row = ledger.add("a", "f(a)")
    with pytest.raises(KeyError, match="atempt"):
        ledger.set(row, atempt=1)
