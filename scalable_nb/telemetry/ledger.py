"""The table of all tasks, as columns.

The host owns one `Ledger` and changes it; every kernel holds a copy that is
brought up to date by deltas. A delta carries all rows changed since a sequence
number, so a reader that missed one only has to ask again with the last number it
has. Nothing here knows Dask, and nothing is formatted before somebody looks.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypedDict

import numpy as np

from scalable_nb.telemetry.rows import TaskState

#: Column name -> array typecode. Little-endian on every platform Dask supports.
COLUMNS: Final[dict[str, str]] = {
    "state": "B",  # TaskState
    "attempt": "H",  # attempts begun so far (0: none)
    "attempts_allowed": "H",
    "worker": "i",  # index into strings; 0 is ""
    "host": "i",  # the worker's machine
    "job": "i",  # and its job, where a batch system runs it
    "error": "i",  # class name of the last failure
    "function": "i",
    "task": "i",  # name in the manifest
    "component": "i",
    "batch": "i",
    "inputs": "I",  # inputs of batches that it computes; 1 unless said otherwise
    "submitted_at": "d",  # seconds since the epoch, UTC; 0 is "not yet"
    "started_at": "d",  # start of the last attempt
    "retry_at": "d",  # when the next attempt may begin
    "duration_s": "f",  # execution time of the last attempt alone
}


class Delta(TypedDict):
    """All that changed after ``base``; a snapshot where ``base`` is 0.

    ``rows`` are indices (uint32); each column holds the values of those rows, in
    their order. ``keys`` and ``labels`` belong to the rows from ``first_new`` on,
    ``strings`` extend the reader's table of strings from ``first_string`` on.
    """

    ledger_id: str
    base: int
    seq: int
    size: int
    now_at: float
    rows: bytes
    columns: dict[str, bytes]
    first_new: int
    keys: list[str]
    labels: list[str]
    first_string: int
    strings: list[str]


class Ledger:
    """Columns of all tasks of a run, indexed by row; a row is never removed.

    Parameters
    ----------
    ledger_id : str
        Names this table; a reader that holds another one starts again from a snapshot.

    Attributes
    ----------
    counts : list of int
        Number of tasks by `TaskState`; `count` has that of inputs.
    """

    def __init__(self, ledger_id: str) -> None:
        self.ledger_id = ledger_id
        self.seq = 0
        self.row_of: dict[str, int] = {}
        self.keys: list[str] = []
        self.labels: list[str] = []
        self.columns: dict[str, array[Any]] = {name: array(code) for name, code in COLUMNS.items()}
        self.strings: list[str] = [""]
        self._code_of: dict[str, int] = {"": 0}
        self._changed = array("Q")  # sequence number of each row's last change
        self._created = array("Q")
        self._string_seq = array("Q", [0])
        self.counts: list[int] = [0] * len(TaskState)
        self._is_ahead = False  # something changed since the last delta

    def __len__(self) -> int:
        return len(self.keys)

    def code(self, text: str) -> int:
        """The index of a string in the table, added when new."""
        code = self._code_of.get(text)
        if code is None:
            code = self._code_of[text] = len(self.strings)
            self.strings.append(text)
            self._string_seq.append(self.seq + 1)
            self._is_ahead = True
        return code

    def add(self, key: str, label: str, **values: float) -> int:
        """Append a task and return its row; columns not given are 0, and ``inputs`` is 1."""
        values.setdefault("inputs", 1)
        row = self.row_of[key] = len(self.keys)
        self.keys.append(key)
        self.labels.append(label)
        for name, column in self.columns.items():
            column.append(values.get(name, 0))
        self._changed.append(self.seq + 1)
        self._created.append(self.seq + 1)
        self.counts[self.columns["state"][row]] += 1
        self._is_ahead = True
        return row

    def extend(self, keys: Sequence[str], labels: Sequence[str], **values: float) -> range:
        """Append many tasks, whose columns hold the same, and return their rows; as `add`."""
        values.setdefault("inputs", 1)
        rows = range(len(self.keys), len(self.keys) + len(keys))
        self.row_of.update(zip(keys, rows, strict=True))
        self.keys += keys
        self.labels += labels
        for name, column in self.columns.items():
            column.extend(array(column.typecode, [values.get(name, 0)]) * len(keys))
        for numbers in (self._changed, self._created):
            numbers.extend(array("Q", [self.seq + 1]) * len(keys))
        self.counts[int(values.get("state", 0))] += len(keys)
        self._is_ahead = True
        return rows

    def set(self, row: int, **values: float) -> None:
        """Change columns of one row (``state`` through `set_state`)."""
        for name, value in values.items():
            self.columns[name][row] = value
        self._changed[row] = self.seq + 1
        self._is_ahead = True

    def set_state(self, row: int, state: TaskState) -> None:
        """Change a row's state and keep the counts exact."""
        column = self.columns["state"]
        before = column[row]
        if before != state:
            self.counts[before] -= 1
            self.counts[state] += 1
            column[row] = state
            self._changed[row] = self.seq + 1
            self._is_ahead = True

    def count(self) -> dict[str, int]:
        """Return the number of inputs in each state, zeros included."""
        states = _view(self.columns["state"], np.dtype(np.uint8))
        inputs = _view(self.columns["inputs"], np.dtype(np.uint32))
        found = np.bincount(states, inputs, len(TaskState))
        return {state.label: int(found[state]) for state in TaskState}

    def text(self, column: str, row: int) -> str:
        """The string a coded column holds in a row."""
        code: int = self.columns[column][row]
        return self.strings[code]

    # --- deltas ----------------------------------------------------------------

    def has_changed(self, since: int) -> bool:
        """Whether a reader at ``since`` would get anything."""
        return self._is_ahead or since < self.seq

    def delta(self, since: int = 0) -> Delta:
        """Everything that changed after sequence number ``since``."""
        if self._is_ahead:
            self.seq += 1
            self._is_ahead = False
        changed = _view(self._changed, np.uint64)
        rows = np.flatnonzero(changed > since).astype(np.uint32)
        columns = {
            name: _view(column, np.dtype(COLUMNS[name]))[rows].tobytes()
            for name, column in self.columns.items()
        }
        first_new = int(np.searchsorted(_view(self._created, np.uint64), since, side="right"))
        first_string = int(np.searchsorted(_view(self._string_seq, np.uint64), since, side="right"))
        return Delta(
            ledger_id=self.ledger_id,
            base=since,
            seq=self.seq,
            size=len(self.keys),
            now_at=time.time(),
            rows=rows.tobytes(),
            columns=columns,
            first_new=first_new,
            keys=self.keys[first_new:],
            labels=self.labels[first_new:],
            first_string=first_string,
            strings=self.strings[first_string:],
        )

    def apply(self, delta: Delta) -> bool:
        """Bring this copy up to date.

        Returns
        -------
        bool
            False when the delta does not continue what is here (another ledger, or a
            gap); nothing is changed then and the reader asks for a snapshot.
        """
        if delta["ledger_id"] != self.ledger_id:
            if delta["base"] != 0:
                return False
            self.__init__(delta["ledger_id"])  # type: ignore[misc]
        elif delta["seq"] <= self.seq:
            return True  # overtaken by another reader's answer
        elif delta["base"] > self.seq:
            return False
        self.seq = delta["seq"] - 1  # so that what is added now counts as new at its `seq`
        self._extend_strings(delta["first_string"], delta["strings"])
        known = len(self.keys) - delta["first_new"]
        self.extend(delta["keys"][known:], delta["labels"][known:])
        rows = np.frombuffer(delta["rows"], np.uint32)
        for name, values in delta["columns"].items():
            dtype = np.dtype(COLUMNS[name])
            _view(self.columns[name], dtype)[rows] = np.frombuffer(values, dtype)
        _view(self._changed, np.uint64)[rows] = delta["seq"]
        states = _view(self.columns["state"], np.uint8)
        self.counts = np.bincount(states, minlength=len(TaskState)).tolist()
        self.seq = delta["seq"]
        self._is_ahead = False
        return True

    def _extend_strings(self, first: int, strings: Iterable[str]) -> None:
        for text in list(strings)[len(self.strings) - first :]:
            self.code(text)


def _view(column: array[Any], dtype: Any) -> np.ndarray[Any, Any]:
    # Short-lived on purpose: while a view exists the array cannot grow.
    return np.frombuffer(column, dtype) if len(column) else np.empty(0, dtype)
