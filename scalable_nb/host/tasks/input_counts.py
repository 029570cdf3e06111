"""The number of inputs that each task of a run computes.

Inputs of batches share a task if their calls are equal, and a task that was replaced by one of
corrected code computes no input. Clients record batches. The host counts by their messages: each
task that a client announces stands for one input, and `InputsChanged` contains the differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from time import time
from typing import Final

from scalable_nb.telemetry.journal import JournalFile
from scalable_nb.telemetry.ledger import Ledger
from scalable_nb.telemetry.rows import SCHEMA_VERSION, InputRow, utc_iso

_TASKS_PER_ROW: Final = 10_000


class InputCounts:
    """Keeps the column ``inputs`` of the ledger, and its changes in ``inputs.jsonl``.

    Parameters
    ----------
    ledger : Ledger
    path : Path
        Of ``inputs.jsonl``.
    """

    def __init__(self, ledger: Ledger, path: Path) -> None:
        self._ledger = ledger
        self._journal = JournalFile(path)
        self._total = 0
        self._total_written = 0
        self._pending: dict[str, int] = {}  # of tasks that have no row yet
        self._changed: dict[str, int] = {}  # since the last flush
        self._written: set[str] = set()

    def announce(self, task_ids: Iterable[str], *, is_known: bool = False) -> None:
        """Count an input for each task that a client announces.

        ``is_known``: only for tasks without a row; the others are sent for inputs that count.
        """
        for task_id in task_ids:
            if not (is_known and task_id in self._ledger.row_of):
                self._add(task_id, 1)

    def change(self, changes: Mapping[str, int]) -> None:
        """Change the numbers of tasks that computed, or will compute, other numbers of inputs."""
        for task_id, change in changes.items():
            self._add(task_id, change)

    def take(self, task_id: str) -> int:
        """Return the number for a new row of a task; an older row of it has no inputs then."""
        before = self._ledger.row_of.get(task_id)
        if before is not None:
            number = int(self._ledger.columns["inputs"][before])
            self._ledger.set(before, inputs=0)
            return number
        announced = self._pending.pop(task_id, None)
        if announced is None:  # a plain task of Dask
            self._total += 1
            return 1
        return announced

    def enter(self, task_ids: Iterable[str], *, is_known: bool = False) -> dict[str, int]:
        """Announce tasks that get rows now; return their numbers, except for those that are 1."""
        row_of, pending = self._ledger.row_of, self._pending
        listed = list(task_ids)
        others = [each for each in listed if each in row_of or each in pending]
        self._total += len(listed) - len(others)
        self.announce(others, is_known=is_known)
        return {task_id: self.take(task_id) for task_id in others}

    def flush(self) -> None:
        """Write what has changed.

        Raises
        ------
        OSError
            If the disk refuses. The rows stay queued.
        """
        if self._changed or self._total != self._total_written:
            changed = iter(self._changed.items())
            for _ in range(0, max(1, len(self._changed)), _TASKS_PER_ROW):
                self._journal.append(self._row(dict(islice(changed, _TASKS_PER_ROW))))
            self._total_written = self._total
            self._written.update(self._changed)
            self._changed = {}
        self._journal.flush()

    def close(self) -> None:
        """Flush and close the file."""
        try:
            self.flush()
        finally:
            self._journal.close()

    def _add(self, task_id: str, change: int) -> None:
        row = self._ledger.row_of.get(task_id)
        if row is None:
            before = self._pending.get(task_id, 0)
            number = self._pending[task_id] = max(0, before + change)
        else:
            before = self._ledger.columns["inputs"][row]
            number = max(0, before + change)
            self._ledger.set(row, inputs=number)
        self._total += number - before
        if number != 1 or task_id in self._changed or task_id in self._written:
            self._changed[task_id] = number

    def _row(self, inputs: dict[str, int]) -> InputRow:
        return InputRow(
            run_id=self._ledger.ledger_id,
            schema_version=SCHEMA_VERSION,
            event_type="inputs",
            timestamp=utc_iso(time()),
            total=self._total,
            inputs=inputs,
        )
