"""Reading what a run has written: the rows of a journal.

A journal may be torn, still growing, damaged, or written by another package or version.
Whatever can be read is read, the rest is counted, and nothing in a file is ever fatal.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from scalable_nb.telemetry.rows import GIVEN_UP
from scalable_nb.trusted_paths import open_regular, read_regular

#: Longer lines are not rows: hosts cut texts to a few kilobytes.
MAX_LINE_BYTES: Final = 1 << 22
# As many as fit into a core's cache: much faster than thousands of rows at once.
BLOCK_ROWS: Final = 256


@dataclass(frozen=True)
class Rows:
    """The readable rows of a journal.

    Parameters
    ----------
    rows : list of dict
        One per readable line, in the order of the file.
    skipped : int
        Lines that hold no JSON object: torn, blank, not UTF-8, another kind of value.
    """

    rows: list[dict[str, Any]]
    skipped: int


def read_rows(path: Path) -> Rows:
    """Read a JSONL file as it is now; a file that does not exist has no rows.

    Raises
    ------
    OSError
        When the file exists and is not a regular one, or cannot be opened.
    """
    try:
        with open_regular(path) as file:
            return _parse(_lines(file))
    except FileNotFoundError:
        return Rows([], 0)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a run; empty if it is missing or damaged.

    Raises
    ------
    OSError
        When the file exists and is not a regular one, or cannot be opened.
    """
    try:
        value = orjson.loads(read_regular(path))
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def read_task_rows(path: Path, task_id: str) -> list[dict[str, Any]]:
    """The rows of one task, without keeping those of a million others."""
    # The longest part of the name that is written alike in every JSON.
    mark = max(re.findall(r"[\w.-]+", task_id, re.ASCII), key=len, default="").encode()
    try:
        with open_regular(path) as file:
            rows = _parse(line for line in _lines(file) if mark in line).rows
    except FileNotFoundError:
        return []
    return [row for row in rows if row.get("task_id") == task_id]


@dataclass(frozen=True)
class Block:
    """Some whole lines of a file.

    Attributes
    ----------
    lines : list of bytes
        Each with its end.
    too_long_bytes : int
        Length of the line after them if it is longer than `MAX_LINE_BYTES`; else 0.
    """

    lines: list[bytes]
    too_long_bytes: int

    @property
    def nbytes(self) -> int:
        """Length of all of it; 0 if there is no whole line left."""
        return sum(map(len, self.lines)) + self.too_long_bytes


def read_block(file: BinaryIO) -> Block:
    """Read up to `BLOCK_ROWS` lines; one without an end is being written and is left out."""
    lines: list[bytes] = []
    for line in islice(iter(partial(file.readline, MAX_LINE_BYTES), b""), BLOCK_ROWS):
        if line.endswith(b"\n"):
            lines.append(line)
        elif len(line) == MAX_LINE_BYTES:
            return Block(lines, len(line) + _skip_line(file))
    return Block(lines, 0)


def _skip_line(file: BinaryIO) -> int:
    """Skip the rest of a line without keeping it; return its length in bytes."""
    length = 0
    while part := file.readline(MAX_LINE_BYTES):
        length += len(part)
        if part.endswith(b"\n"):
            break
    return length


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file, and an empty one for a line that is too long."""
    for line in iter(partial(file.readline, MAX_LINE_BYTES), b""):
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            _skip_line(file)
            yield b""
        else:
            yield line


class JournalTail:
    """Follows a JSONL file while it grows.

    Only whole lines are taken, so a row that is just being written comes with a later
    `poll`. A file that became shorter was replaced and is read from its start again.

    Parameters
    ----------
    path : Path
        The file; it need not exist yet.

    Attributes
    ----------
    offset : int
        Bytes taken so far.
    skipped : int
        Lines so far that held no JSON object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.skipped = 0

    def poll(self) -> list[dict[str, Any]]:
        """The rows that were completed since the last call."""
        try:
            with open_regular(self.path) as file:
                if file.seek(0, 2) < self.offset:
                    self.offset = self.skipped = 0
                file.seek(self.offset)
                return self._read_new(file)
        except FileNotFoundError:
            return []

    def _read_new(self, file: BinaryIO) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        while True:
            block = read_block(file)
            new = _parse(block.lines)
            rows += new.rows
            self.skipped += new.skipped + bool(block.too_long_bytes)
            self.offset += block.nbytes
            if not block.nbytes:
                return rows


class JournalRows:
    """All rows of a journal that is still growing, read once and kept; safe in threads.

    Parameters
    ----------
    path : Path
        The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._tail = JournalTail(path)
        self._rows: list[Any] = []
        self._lock = threading.Lock()

    def read(self) -> list[Any]:
        """The rows so far, oldest first, in a list of the caller's own."""
        with self._lock:
            self._rows += self._tail.poll()
            return list(self._rows)


def with_given_up(failures: list[Any], endings: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The failed attempts, as they are known by the end of their tasks.

    A row of ``failures.jsonl`` says what was decided when the attempt ended. A person may have
    given the task up since, while it waited for its retry; that is in ``tasks.jsonl``.

    Parameters
    ----------
    failures : list of mapping
        Rows of ``failures.jsonl``.
    endings : iterable of mapping
        Rows of ``tasks.jsonl``.
    """
    last = {
        (row.get("task_id"), row.get("attempts"))
        for row in endings
        if row.get("reason") == GIVEN_UP
    }
    if not last:
        return failures
    final = {"is_final": True, "will_retry": False, "retry_in_s": None}
    return [
        {**row, **final} if (row.get("task_id"), row.get("attempt")) in last else row
        for row in failures
    ]


def is_final(row: Mapping[str, Any]) -> bool:
    """Whether the task failed for good with this attempt.

    Rows of the package `scalable` do not say; it writes one per task that failed for good.
    """
    value = row.get("is_final")
    return value if isinstance(value, bool) else row.get("will_retry") is not True


def number(value: object) -> float:
    """A finite number as it stands in a row, NaN for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < 1e300 else float("nan")
    return float("nan")


def _parse(lines: Iterable[bytes]) -> Rows:
    rows: list[dict[str, Any]] = []
    skipped = 0
    for line in lines:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            skipped += 1
    return Rows(rows, skipped)
