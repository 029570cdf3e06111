"""The rows of one table as frames: the bytes a page needs to show them and to follow.

A frame is a length, a JSON header and sections of binary columns. It is made from a
`Ledger` (the kernel's copy) for all its rows or for chosen keys; rows are numbered as
the table shows them, so a table of 100 tasks costs 100 rows however large the run is.

Frames are numbered. Values are absolute, so a snapshot may overlap the frames that
follow it, and a page that misses a frame is healed by the next snapshot.
"""

from __future__ import annotations

import json
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from scalable_nb.telemetry.ledger import COLUMNS, Ledger

_ALIGN: Final = 8  # of sections, so that a page can look at them without copying
_PACK_BYTES: Final = 1 << 16  # smaller frames are not worth the page's effort
_ZLIB_LEVEL: Final = 1  # nearly as small as the default, in a fraction of its time

Section = tuple[str, str, bytes]


class Frame(NamedTuple):
    """The bytes for a page, and their number.

    Attributes
    ----------
    seq : int
        Number of the frame; a page that holds ``seq - 1`` may apply it.
    rows : int
        How many rows it carries.
    """

    seq: int
    rows: int
    data: bytes


class _Content(NamedTuple):
    rows: int
    first_string: int
    sections: list[Section]

    @property
    def has_strings(self) -> bool:
        return self.sections[-1][2] != b"[]"


class RowStream:
    """Frames of one table.

    Not guarded against concurrent use: the widget holds its own lock.

    Parameters
    ----------
    ledger : Ledger
    lock : context manager
        Guards the ledger; held only while its columns are copied.
    keys : iterable of str, optional
        The task of each input to show, in this order; inputs of one task are one row. A key
        that is not in the ledger yet is shown as pending. None: all rows of the ledger.
    """

    def __init__(
        self,
        ledger: Ledger,
        lock: AbstractContextManager[Any],
        keys: Iterable[str] | None = None,
    ) -> None:
        self.ledger = ledger
        self.lock = lock
        inputs = Counter(keys or ())
        self.keys = None if keys is None else list(inputs)
        self._inputs = np.array(list(inputs.values()), np.uint32)  # by row of the table
        self.seq = 0
        self._clock_offset_s = 0.0  # the host's clock minus this one
        self._id = uuid.uuid4().hex
        self._start_over()

    def follow_clock(self, now_at: float) -> None:
        """Take the host's time, seconds since the epoch, as the time of the frames."""
        self._clock_offset_s = now_at - time.time()

    def _start_over(self) -> None:
        self._ledger_id = self.ledger.ledger_id
        self._has_started = False
        self._since = 0
        self._strings_sent = 0
        self._rows_named = 0
        self._unknown = {key: at for at, key in enumerate(self.keys or ())}
        self._rows = np.full(len(self._unknown), -1, np.int64)  # row of the table -> ledger row
        self._place_of = np.empty(0, np.int64)  # ledger row -> row of the table, or -1

    def _check_ledger(self) -> None:
        if self.ledger.ledger_id != self._ledger_id:  # another run's, or the first that arrives
            self.seq += 1
            self._start_over()

    @property
    def size(self) -> int:
        """Rows of the table."""
        return len(self.ledger) if self.keys is None else len(self.keys)

    def ledger_rows(self) -> Any:
        """Return the ledger's row of each input of the table, -1 if not entered yet; None for all.

        The caller holds the ledger's lock.
        """
        if self.keys is None:
            return None
        self._check_ledger()
        self._find_rows()
        return np.repeat(self._rows, self._inputs)

    def key(self, row: int) -> str:
        """The key of a row of the table.

        Raises
        ------
        IndexError
            When there is no such row.
        """
        keys = self.ledger.keys if self.keys is None else self.keys
        if not 0 <= row < len(keys):
            raise IndexError(f"no row {row} in a table of {len(keys)} tasks")
        return keys[row]

    def frame(self) -> Frame | None:
        """What changed since the last frame; None when nothing of this table did."""
        with self.lock:
            self._check_ledger()
            is_next = self._has_started
            if is_next and not self.ledger.has_changed(self._since):
                return None
            content = self._changed_content() if is_next else self._full_content()
        if not is_next:
            return self._encode(None, content)
        if not content.rows and not content.has_strings:
            return None
        self.seq += 1
        return self._encode(self.seq - 1, content)

    def snapshot(self) -> Frame:
        """Everything as it is now, under the number of the last frame."""
        with self.lock:
            self._check_ledger()
            content = self._full_content()
        return self._encode(None, content)

    def _full_content(self) -> _Content:
        if not self._has_started:  # nobody has anything yet: the frames go on from here
            self._has_started = True
            self._changed_content()
        places, _, sections = self._changes(0)
        labels = self.ledger.labels if self.keys is None else self._labels_of_keys()
        sections.append(("labels", "J", _json(labels)))
        sections.append(("strings", "J", _json(self.ledger.strings)))
        return _Content(len(places), 0, sections)

    def _changed_content(self) -> _Content:
        known, first_string = self._rows_named, self._strings_sent
        places, rows, sections = self._changes(self._since)
        self._since = self.ledger.seq
        self._rows_named = len(self.ledger)
        self._strings_sent = len(self.ledger.strings)
        is_new = rows >= known  # rows are only ever appended to a ledger
        labels = [self.ledger.labels[row] for row in rows[is_new]]
        sections.append(("named", "I", places[is_new].tobytes()))
        sections.append(("labels", "J", _json(labels)))
        sections.append(("strings", "J", _json(self.ledger.strings[first_string:])))
        return _Content(len(places), first_string, sections)

    def _changes(self, since: int) -> tuple[Any, Any, list[Section]]:
        """Rows of the table that changed, their rows in the ledger, and their columns."""
        delta = self.ledger.delta(since)
        places = rows = np.frombuffer(delta["rows"], np.uint32)
        chosen: Any = slice(None)
        if self.keys is not None:
            self._find_rows()
            found = self._place_of[rows]
            chosen = found >= 0
            places, rows = found[chosen].astype(np.uint32), rows[chosen]
        sections: list[Section] = [("rows", "I", places.tobytes())]
        for name, values in delta["columns"].items():
            code = COLUMNS[name]
            column = np.frombuffer(values, code)[chosen]
            if name == "inputs" and self.keys is not None:
                column = self._inputs[places]  # those of other lists are not shown
            sections.append((name, code, column.tobytes()))
        return places, rows, sections

    def _find_rows(self) -> None:
        row_of = self.ledger.row_of
        grown = len(self.ledger) - len(self._place_of)
        if grown:
            self._place_of = np.concatenate([self._place_of, np.full(grown, -1, np.int64)])
            for key in [key for key in self._unknown if key in row_of]:
                place, row = self._unknown.pop(key), row_of[key]
                self._place_of[row], self._rows[place] = place, row

    def _labels_of_keys(self) -> list[str]:
        known, labels = self.ledger.row_of, self.ledger.labels
        return [labels[known[key]] if key in known else key for key in self.keys or ()]

    def _encode(self, base: int | None, content: _Content) -> Frame:
        sections = content.sections
        body = b"".join(_padded(data) for _, _, data in sections)
        is_packed = len(body) > _PACK_BYTES
        header = {
            "stream": self._id,
            "seq": self.seq,
            "base": base,
            "size": self.size,
            "now_at": time.time() + self._clock_offset_s,
            "first_string": content.first_string,
            "packed": is_packed,
            "sections": [[name, code, len(data)] for name, code, data in sections],
        }
        text = orjson.dumps(header)
        text += b" " * (-(len(text) + 4) % _ALIGN)
        body = zlib.compress(body, _ZLIB_LEVEL) if is_packed else body
        return Frame(self.seq, content.rows, len(text).to_bytes(4, "little") + text + body)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGN)


def _json(texts: list[str]) -> bytes:
    try:
        return orjson.dumps(texts)
    except TypeError:  # a lone surrogate: no UTF-8, but JSON can escape it
        return json.dumps(texts).encode()
