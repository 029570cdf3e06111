"""Rows of a journal as columns: a million of them cost little more than their parsing.

A line that is as its writer means it is decoded into the wanted values alone, which msgspec
checks and passes over the rest of (the traceback is half of a line); a block in which a line is
torn, of another version or of another package is taken apart line by line. Texts that repeat are
stored once. What is read for an example alone (the traceback, the details) stays in the file, see
`scalable_nb.telemetry.run_tables`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from scalable_nb.faults.fingerprint import fingerprint
from scalable_nb.telemetry.journal_reader import is_final, number
from scalable_nb.telemetry.jsonl_parser import (
    Array,
    Finite,
    StringTable,
    TextColumn,
    Whole,
    codes,
    encodable,
    numbers,
    parse,
    text,
    times,
    truncate,
    whole,
)
from scalable_nb.telemetry.rows import SCHEMA_VERSION

if TYPE_CHECKING:
    import pandas as pd

MAX_ARGUMENTS: Final = 30
# A name, then a value up to a comma that is in no brackets and no quotes.
_PART: Final = re.compile(
    r"""\s*(?:(?P<name>[^\W\d]\w*)=)?(?P<value>(?:[^,()\[\]{}'"]|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"
    |\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\})*),?""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Schema:
    """The columns of a kind of journal, by what they hold.

    Parameters
    ----------
    repeated : tuple of str
        Texts that stand in many rows: categories of str.
    texts : tuple of str
        Other texts: str.
    counts : tuple of str
        int64, 1 where missing.
    flags : tuple of str
        bool, False where missing.
    numbers : tuple of str
        float64, NaN where missing.
    times : tuple of str
        ``datetime64[us, UTC]``.
    """

    repeated: tuple[str, ...]
    texts: tuple[str, ...]
    counts: tuple[str, ...]
    numbers: tuple[str, ...]
    times: tuple[str, ...]
    flags: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All columns."""
        return (
            *self.repeated, *self.texts, *self.counts, *self.flags, *self.numbers, *self.times
        )  # fmt: skip

    def decoder(self) -> msgspec.json.Decoder[Any]:
        """Of a line into these values; refuses what lacks one or has one of another type."""
        kinds: dict[str, Any] = {
            **dict.fromkeys((*self.repeated, *self.times), str | None),
            **dict.fromkeys(self.texts, str),
            **dict.fromkeys(self.counts, Whole),
            **dict.fromkeys(self.flags, bool),
            **dict.fromkeys(self.numbers, Finite | None),
        }
        row = msgspec.defstruct("Row", [(name, kinds[name]) for name in self.names], gc=False)
        return msgspec.json.Decoder(row)


#: Of ``failures.jsonl``, without ``traceback`` and ``details``.
FAILURES: Final = Schema(
    repeated=(
        "run_id", "failure_class", "message", "provider", "event_type", "task_name",
        "function_name", "component", "tag", "category", "fingerprint", "error_module", "worker",
        "host", "job_id", "job_state",
    ),
    texts=("task_id", "args_preview"),
    counts=("schema_version", "attempt", "attempts_allowed"),
    flags=("is_final", "will_retry"),
    numbers=(
        "retry_in_s", "queued_s", "duration_s", "exit_code", "memory_bytes", "memory_limit_bytes",
    ),
    times=("timestamp",),
)  # fmt: skip
#: Of ``tasks.jsonl``.
TASKS: Final = Schema(
    repeated=(
        "run_id", "task_name", "function_name", "component", "tag", "batch", "state", "worker",
        "failure_class", "reason",
    ),
    texts=("task_id", "args_preview"),
    counts=("schema_version", "attempts", "attempts_allowed"),
    numbers=("duration_s", "result_bytes"),
    times=("timestamp", "submitted_at", "started_at"),
)  # fmt: skip


def failures_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of ``failures.jsonl`` as a table.

    Parameters
    ----------
    rows : iterable of mapping
        Failed attempts. Unknown names are left out; a missing value, or one of a wrong
        type, becomes the column's empty value.

    Returns
    -------
    pandas.DataFrame
        One line per row, with the columns of `FAILURES`; see `Schema` for their types.
        Texts are empty where missing, and cut at `MAX_TEXT_CHARS`. A missing
        ``fingerprint`` is computed from class and message, a missing ``category`` is
        ``"unknown"``.
    """
    columns = Columns(FAILURES)
    columns.add_rows(list(rows))
    return columns.frame()


def tasks_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of ``tasks.jsonl`` as a table with the columns of `TASKS`."""
    columns = Columns(TASKS)
    columns.add_rows(list(rows))
    return columns.frame()


class Columns:
    """Columns that grow by blocks of rows.

    Parameters
    ----------
    schema : Schema

    Attributes
    ----------
    problems : Counter of str
        What was not as it should be, e.g. ``"no JSON object"``, and how often.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._decode = schema.decoder().decode
        self.problems: Counter[str] = Counter()
        self._length = 0
        self._index: dict[str, StringTable] = {name: StringTable() for name in schema.repeated}
        self._texts: dict[str, TextColumn] = {name: TextColumn() for name in schema.texts}
        self._blocks: dict[str, list[Array]] = {
            name: [] for name in schema.names if name not in schema.texts
        }

    def __len__(self) -> int:
        return self._length

    # --- taking in ---------------------------------------------------------------

    def add_lines(self, lines: list[bytes]) -> Array:
        """Take in whole lines of a journal.

        Returns
        -------
        ndarray of bool
            Which of the lines are rows now.
        """
        try:
            values = map(msgspec.structs.astuple, map(self._decode, lines))
            block = list(zip(*values, strict=True))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            rows = [parse(line) for line in lines]
            is_row = np.array([row is not None for row in rows], dtype=bool)
            self._note("no JSON object", int((~is_row).sum()))
            self.add_rows([row for row in rows if row is not None])
            return is_row
        self._add(block)
        return np.ones(len(lines), dtype=bool)

    def add_rows(self, rows: list[Mapping[str, Any]]) -> None:
        """Take in rows of any kind; what has a wrong type counts as missing."""
        if rows:
            self._add([self._column(name, rows) for name in self.schema.names])

    def _column(self, name: str, rows: list[Mapping[str, Any]]) -> list[Any]:
        values = [row.get(name) for row in rows]
        schema = self.schema
        if name == "is_final":
            return [is_final(row) for row in rows]
        if name in schema.flags:
            return [value is True for value in values]
        if name in schema.times:
            return values
        if name in schema.counts:
            return [1 if (n := whole(value)) is None else n for value in values]
        if name in schema.numbers:
            return [number(value) for value in values]
        odd = sum(not isinstance(value, str | None) for value in values)
        self._note("a value of another type", odd)
        return encodable([text(value) for value in values])

    def _add(self, block: Sequence[Sequence[Any]]) -> None:
        if not block:
            return
        schema = self.schema
        columns = dict(zip(schema.names, block, strict=True))
        parts: dict[str, Array] = {}
        for name in schema.counts:
            parts[name] = np.array(columns[name], dtype="int64")
        for name in schema.flags:
            parts[name] = np.array(columns[name], dtype="bool")
        for name in schema.numbers:
            parts[name] = numbers(columns[name])
        for name in schema.times:
            parts[name] = times(columns[name])
        for name in schema.repeated:
            parts[name] = codes(columns[name], self._index[name])
        for name, part in parts.items():
            self._blocks[name].append(part)
        for name in schema.texts:
            self._texts[name].extend(columns[name])
        self._length += len(block[0])
        newer = int((parts["schema_version"] > SCHEMA_VERSION).sum())
        self._note("a newer schema version", newer)

    def _note(self, problem: str, count: int) -> None:
        if count:
            self.problems[problem] += count

    # --- giving out --------------------------------------------------------------

    def frame(self) -> pd.DataFrame:
        """All rows so far; see `Schema` for the types of the columns."""
        import pandas as pd  # here, because it takes longer to import than a report to print

        schema = self.schema
        columns: dict[str, Any] = {name: self._categories(name) for name in schema.repeated}
        for name in schema.texts:
            columns[name] = self._texts[name].joined()
        for name in schema.counts:
            columns[name] = self._joined(name, "int64")
        for name in schema.flags:
            columns[name] = self._joined(name, "bool")
        for name in schema.numbers:
            columns[name] = self._joined(name, "float64")
        for name in schema.times:
            columns[name] = pd.DatetimeIndex(self._joined(name, "datetime64[us]"), tz="UTC")
        frame = pd.DataFrame(columns)
        if "fingerprint" in columns:
            _fill_fingerprints(frame)
        return frame

    def _joined(self, name: str, kind: str) -> Array:
        # As one block from now on: the next call has less to join.
        blocks = self._blocks[name]
        blocks[:] = [np.concatenate(blocks) if blocks else np.array([], dtype=kind)]
        return blocks[0]

    def _categories(self, name: str) -> pd.Categorical:
        import pandas as pd

        values = truncate([text(value) for value in self._index[name]])
        if name in ("category", "failure_class"):
            values = [value or "unknown" for value in values]
        places = self._joined(name, "int32")
        if len(set(values)) < len(values):  # texts that became equal: None and "", 1 and "1"
            merged = StringTable()
            places = np.array([merged[value] for value in values], dtype="int32")[places]
            values = list(merged)
        return pd.Categorical.from_codes(
            places, categories=pd.Index(values, dtype="str"), validate=False
        )


def _fill_fingerprints(frame: pd.DataFrame) -> None:
    without = (frame["fingerprint"] == "").to_numpy()
    if not without.any():
        return
    import pandas as pd

    kinds = frame.loc[without, ["failure_class", "message"]].drop_duplicates()
    made = {
        (error, message): fingerprint(error, message, ())
        for error, message in kinds.itertuples(index=False)
    }
    texts = frame["fingerprint"].astype("str").to_numpy(dtype=object, copy=True)
    pairs = zip(frame.loc[without, "failure_class"], frame.loc[without, "message"], strict=True)
    texts[without] = [made[pair] for pair in pairs]
    frame["fingerprint"] = pd.Categorical(pd.array(texts, dtype="str"))


def parse_preview(preview: str) -> Iterable[tuple[str, str]]:
    """The arguments of a call as it is shown: names (``#1`` where there is none) and values."""
    place = 0
    for position in range(1, MAX_ARGUMENTS + 1):
        match = _PART.match(preview, place)
        if match is None or match.end() == place:
            return
        place = match.end()
        if match["value"].strip():
            yield match["name"] or f"#{position}", match["value"].strip()
