"""What one run or several have recorded, as tables that follow the files while they grow."""

from __future__ import annotations

import gc
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from scalable_nb.errors import RunFolderError
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.dataframes import (
    FAILURES,
    TASKS,
    Columns,
    Schema,
    failures_frame,
    tasks_frame,
)
from scalable_nb.telemetry.journal_reader import read_block, read_rows
from scalable_nb.telemetry.jsonl_parser import parse
from scalable_nb.telemetry.rows import GIVEN_UP
from scalable_nb.trusted_paths import open_regular

if TYPE_CHECKING:
    import pandas as pd


class Records(Protocol):
    """Failed attempts and ended tasks, from wherever they come."""

    @property
    def failures(self) -> pd.DataFrame:
        """Failed attempts, see `scalable_nb.telemetry.dataframes.failures_frame`."""

    @property
    def tasks(self) -> pd.DataFrame:
        """Tasks that ended, see `scalable_nb.telemetry.dataframes.tasks_frame`."""

    @property
    def workers(self) -> Sequence[Mapping[str, Any]]:
        """Rows of ``workers.jsonl``."""

    @property
    def problems(self) -> Counter[str]:
        """What was not as it should be in the files, and in how many lines."""

    @property
    def refused(self) -> Sequence[str]:
        """The reasons why files were not read."""

    def poll(self) -> bool:
        """Take in what is new, and tell whether there was anything."""

    def row(self, place: int) -> dict[str, Any]:
        """The whole row of a line of `failures`, with traceback and details."""


class RunRecords:
    """What some runs have recorded so far.

    Parameters
    ----------
    *runs : RunPaths
        Runs of this package or of `scalable`; their files need not exist yet. A file that
        cannot be read is an entry of `refused`, not an error.
    """

    def __init__(self, *runs: RunPaths) -> None:
        self._runs = runs
        self._refused: set[str] = set()
        self._failures = FollowedTable(FAILURES, [run.failures for run in runs])
        self._tasks = FollowedTable(TASKS, [run.tasks for run in runs])

    @property
    def failures(self) -> pd.DataFrame:
        """Failed attempts, in the order of the files, as known by the end of their tasks."""
        return _with_given_up(self._failures.frame, self._tasks.frame)

    @property
    def tasks(self) -> pd.DataFrame:
        """Tasks that ended; one that was resubmitted has several rows, the last one counts."""
        return self._tasks.frame

    @property
    def workers(self) -> list[dict[str, Any]]:
        """Rows of ``workers.jsonl``."""
        return [row for run in self._runs for row in self._workers_of(run)]

    def _workers_of(self, run: RunPaths) -> list[dict[str, Any]]:
        try:
            return read_rows(run.workers).rows
        except OSError as error:
            self._refused.add(_why_not_read(run.workers, error))
            return []

    @property
    def refused(self) -> list[str]:
        """The reasons why files were not read, such as links, FIFOs and devices."""
        of_tables = (*self._failures.refused.values(), *self._tasks.refused.values())
        return sorted({*self._refused, *of_tables})

    @property
    def problems(self) -> Counter[str]:
        """What was not as it should be in the files, and in how many lines."""
        return self._failures.problems + self._tasks.problems

    @property
    def unread(self) -> int:
        """Lines that are no rows, also one at an end that was torn or is being written."""
        return sum(
            table.problems["no JSON object"] + table.problems["line too long"] + table.torn_ends
            for table in (self._failures, self._tasks)
        )

    def poll(self) -> bool:
        """Take in what is new, and tell whether there was anything."""
        return any([self._failures.poll(), self._tasks.poll()])

    def row(self, place: int) -> dict[str, Any]:
        """The whole row of a line of `failures`, as it stands in its file."""
        return self._failures.row(place)


class RowRecords:
    """Rows that are in memory already, with the face of `RunRecords`."""

    def __init__(
        self, failures: Iterable[Mapping[str, Any]], tasks: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        self._rows = list(failures)
        self.failures = failures_frame(self._rows)
        self.tasks = tasks_frame(tasks)
        self.workers: list[dict[str, Any]] = []
        self.problems: Counter[str] = Counter()
        self.refused: list[str] = []

    def poll(self) -> bool:
        """Nothing is ever new."""
        return False

    def row(self, place: int) -> dict[str, Any]:
        """The whole row of a line of `failures`."""
        return dict(self._rows[place])


def _with_given_up(failures: pd.DataFrame, tasks: pd.DataFrame) -> pd.DataFrame:
    """The same as `scalable_nb.telemetry.journal_reader.with_given_up`, for tables."""
    given_up = tasks[tasks["reason"] == GIVEN_UP]
    if given_up.empty:
        return failures
    last = dict(zip(given_up["task_id"], given_up["attempts"], strict=True))
    is_last = failures["attempt"] == failures["task_id"].map(last)
    return failures.assign(
        is_final=failures["is_final"] | is_last, will_retry=failures["will_retry"] & ~is_last
    )


def records_of(source: Any, tasks: Iterable[Mapping[str, Any]] = ()) -> Records:
    """Records of a run, of rows, or those that are given.

    Parameters
    ----------
    source : RunPaths, Records or iterable of mapping
    tasks : iterable of mapping
        Rows of ``tasks.jsonl``, where ``source`` are rows of ``failures.jsonl``.
    """
    records: Records
    if isinstance(source, RunPaths):
        records = RunRecords(source)
    else:
        records = source if hasattr(source, "poll") else RowRecords(source, tasks)
    records.poll()
    return records


class FollowedTable:
    """Some journals of one kind as one table.

    Parameters
    ----------
    schema : Schema
    paths : sequence of Path

    Attributes
    ----------
    refused : dict of Path to str
        Files that cannot be read, such as links and FIFOs, with the reason.
    """

    def __init__(self, schema: Schema, paths: Sequence[Path]) -> None:
        self._schema, self._paths = schema, paths
        self._frame: pd.DataFrame | None = None
        self._begin()

    def _begin(self) -> None:
        self.refused: dict[Path, str] = {}
        self._columns = Columns(self._schema)
        self._offsets = dict.fromkeys(self._paths, 0)
        self._origins: list[tuple[Path, Any]] = []

    @property
    def problems(self) -> Counter[str]:
        """What was not as it should be, and how often."""
        return self._columns.problems

    @property
    def torn_ends(self) -> int:
        """Files whose last line has no end: it is being written, or never was to the end."""
        return sum((_size(path) or 0) > offset for path, offset in self._offsets.items())

    @property
    def frame(self) -> pd.DataFrame:
        """All rows so far."""
        if self._frame is None:
            self._frame = self._columns.frame()
        return self._frame

    def poll(self) -> bool:
        """Read the whole lines that are new, and tell whether there were any."""
        before, refused = self._columns, dict(self.refused)
        sizes = {path: _size(path) for path in self._paths}
        if any(size is not None and size < self._offsets[path] for path, size in sizes.items()):
            self._begin()  # a file that became shorter is another one
        length = len(self._columns)
        with _without_collector():
            for path in self._paths:
                self._read_new(path)
        if self._columns is before and len(self._columns) == length:
            return self.refused != refused
        self._frame = None
        return True

    def _read_new(self, path: Path) -> None:
        try:
            file = open_regular(path)
        except FileNotFoundError:
            return
        except OSError as error:
            self.refused[path] = _why_not_read(path, error)
            return
        self.refused.pop(path, None)
        with file:
            offset = self._offsets[path]
            file.seek(offset)
            while True:
                block = read_block(file)
                lines = block.lines
                starts = np.cumsum([offset, *map(len, lines)])
                if lines:
                    self._origins.append((path, starts[:-1][self._columns.add_lines(lines)]))
                if block.too_long_bytes:
                    self.problems["line too long"] += 1
                offset = self._offsets[path] = int(starts[-1]) + block.too_long_bytes
                if not block.nbytes:
                    return

    def row(self, place: int) -> dict[str, Any]:
        """The whole row of a line of `frame`, as it stands in its file."""
        for path, starts in self._origins:
            if place < len(starts):
                with open_regular(path) as file:
                    file.seek(int(starts[place]))
                    return parse(file.readline()) or {}
            place -= len(starts)
        raise IndexError(place)


def _size(path: Path) -> int | None:
    """Return the size of a file in bytes, 0 if it is missing, None if it cannot be read."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return 0
    except OSError:
        return None
    return info.st_size if stat.S_ISREG(info.st_mode) else None


def _why_not_read(path: Path, error: OSError) -> str:
    if isinstance(error, RunFolderError):
        return str(error)
    return f"{str(path)!r} cannot be read: {error.strerror}"


def unread_notes(records: Records) -> list[str]:
    """Return what could not be read of the files of a run, as sentences."""
    counts = ", ".join(
        f"{problem} in {count:,} {'line' if count == 1 else 'lines'}"
        for problem, count in records.problems.items()
    )
    lines = [f"Not all of the journal could be read: {counts}."] if counts else []
    return [*lines, *records.refused]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Spare the garbage collector a look at millions of values without a cycle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
