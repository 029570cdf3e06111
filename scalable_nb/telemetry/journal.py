"""The journal: append-only JSONL files of a run, written by the host alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from scalable_nb.paths import appending

#: A row, or a function that makes it when it is written (nothing is formatted on a hot path).
Row = Mapping[str, Any] | Callable[[], Mapping[str, Any]]

#: Of a hundred thousand rows the text would be new memory, which takes longer than to write it.
_ROWS_PER_WRITE: Final = 1000


class JournalFile:
    """One JSONL file with a buffer.

    Rows are handed over in any amount and reach the file with `flush`, in order, so that what
    a crash can tear is the last line only. The file is opened for appending and private (0600).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[Row] = []
        self._descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )

    def append(self, row: Row) -> None:
        """Queue a row for the next `flush`."""
        self._rows.append(row)

    def flush(self) -> int:
        """Write the queued rows and return how many there were.

        Raises
        ------
        OSError
            When the disk refuses. The rows stay queued.
        """
        if not self._rows:
            return 0
        rows = list(self._rows)
        with appending(self._descriptor) as append:  # all rows or none: they are written again
            for first in range(0, len(rows), _ROWS_PER_WRITE):
                append(b"".join(map(_line, rows[first : first + _ROWS_PER_WRITE])))
        del self._rows[: len(rows)]
        return len(rows)

    def close(self) -> None:
        """Flush and close; closing twice is harmless."""
        if self._descriptor >= 0:
            try:
                self.flush()
            finally:
                os.close(self._descriptor)
                self._descriptor = -1


def _line(row: Row) -> bytes:
    values = row() if callable(row) else row
    # Error text and paths may hold lone surrogates, which are no valid UTF-8.
    try:
        return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE, default=str)
    except orjson.JSONEncodeError:
        return orjson.dumps(_encodable(values), option=orjson.OPT_APPEND_NEWLINE, default=_text)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_encodable(str(key)): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        # Beyond what a float can say there is only text, and decimal digits are limited too.
        return float(value) if value.bit_length() < 1024 else hex(value)
    return value


def _text(value: Any) -> Any:
    return _encodable(str(value))
