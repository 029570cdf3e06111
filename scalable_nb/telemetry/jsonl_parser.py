"""Blocks of values of one name, from many lines: into arrays, with as little Python as possible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np
import orjson

from scalable_nb.telemetry.journal_reader import number

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]

#: A text is cut here; the row itself has all of it.
MAX_TEXT_CHARS: Final = 4_000
_STAMP: Final = "2026-03-01T12:00:00.000+00:00"  # how `utc_iso` writes a time
_PACK: Final = 1 << 16

#: What float64 holds exactly, and what `number` takes for a number.
Whole = Annotated[int, msgspec.Meta(gt=-(2**53), lt=2**53)]
Finite = Annotated[float, msgspec.Meta(gt=-1e300, lt=1e300)]


class StringTable(dict[Any, int]):
    """Gives every new key the next number, at the speed of a look-up for known ones."""

    def __missing__(self, key: Any) -> int:
        place = self[key] = len(self)
        return place


class TextColumn:
    """Texts of many rows, packed now and then: as Python objects they take twice the memory."""

    def __init__(self) -> None:
        self._pending: list[str] = []
        self._packed: list[pd.Series[str]] = []

    def extend(self, values: Iterable[str]) -> None:
        """Add some."""
        self._pending.extend(values)
        if len(self._pending) >= _PACK:
            self._pack()

    def _pack(self) -> None:
        import pandas as pd

        self._packed.append(pd.Series(truncate(self._pending), dtype="str"))
        self._pending = []

    def joined(self) -> pd.Series[str]:
        """All of them, each of at most `MAX_TEXT_CHARS`."""
        import pandas as pd

        self._pack()
        # As one block from now on: the next call has less to join.
        self._packed = [pd.concat(self._packed, ignore_index=True)]
        return self._packed[0]


def parse(line: bytes) -> dict[str, Any] | None:
    """A row, also where its text is not UTF-8; None for anything that is no JSON object."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:  # a message of another package in another encoding costs its letters, not the row
            row = orjson.loads(line.decode("utf-8", "replace"))
        except orjson.JSONDecodeError:
            return None
    return row if isinstance(row, dict) else None


def codes(values: Sequence[Any], index: StringTable) -> Array:
    """The number of each value in ``index``."""
    first = values[0]
    if values.count(first) == len(values):
        return np.full(len(values), index[first], dtype="int32")
    return np.fromiter(map(index.__getitem__, values), dtype="int32", count=len(values))


def numbers(values: Sequence[Any]) -> Array:
    """Numbers and None as float64."""
    if values[0] is None and values.count(None) == len(values):
        return np.full(len(values), np.nan)
    return np.array(values, dtype="float64")


def times(values: Sequence[Any]) -> Array:
    """ISO 8601 texts as datetime64[us] in UTC; NaT for anything else."""
    try:
        stamps = "".join(values).encode("ascii")
        if len(stamps) == len(_STAMP) * len(values):
            return _times_in_utc(stamps)
    except (TypeError, ValueError):
        pass  # another way to write times, or something else: one by one
    found = [_time(value) for value in values]
    return np.array([at and at.replace(tzinfo=None) for at in found], dtype="datetime64[us]")


def _times_in_utc(text: bytes) -> Array:
    """Times that `utc_iso` wrote, all at once."""
    signs = np.frombuffer(text, dtype="S1").reshape(-1, len(_STAMP))
    if (signs[:, -6:] != np.frombuffer(b"+00:00", dtype="S1")).any():
        raise ValueError("not in UTC")
    # numpy checks every one of them.
    stamps = np.ascontiguousarray(signs[:, :-6]).view(f"S{len(_STAMP) - 6}").ravel()
    return stamps.astype("datetime64[us]")


def text(value: object) -> str:
    """A value as text; None is the empty one."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def truncate(values: list[str]) -> list[str]:
    """Texts of at most `MAX_TEXT_CHARS`."""
    if max(map(len, values), default=0) <= MAX_TEXT_CHARS:
        return values
    return [v if len(v) <= MAX_TEXT_CHARS else v[:MAX_TEXT_CHARS] + "…" for v in values]


def encodable(values: list[str]) -> list[str]:
    """Texts without lone surrogates, which JSON has none of, and neither has Arrow."""
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return [value.encode("utf-8", "backslashreplace").decode() for value in values]
    return values


def whole(value: object) -> int | None:
    """A whole number that float64 holds exactly, None for anything else."""
    found = number(value)
    return int(found) if abs(found) < 2**53 and found.is_integer() else None


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
