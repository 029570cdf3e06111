"""The number of inputs that each task of a run computes, and inputs by state; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from scalable_nb.telemetry.rows import STATE_LABELS, TaskState
from scalable_nb.telemetry.sanitize import one_line

if TYPE_CHECKING:
    import pandas as pd

#: State of inputs whose tasks have not ended, of a run that continues.
UNFINISHED: Final = "unfinished"

_MOST_INPUTS: Final = 2**32


@dataclass(frozen=True)
class RecordedInputs:
    """Numbers of inputs, as a run recorded them.

    Attributes
    ----------
    by_task : dict of str to int
        Task id -> number of inputs; 1 for a task that is not in it.
    total : int
        Inputs of the run; 0 if it did not record them.
    """

    by_task: Mapping[str, int] = field(default_factory=dict)
    total: int = 0

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> RecordedInputs:
        """Return the numbers of rows of ``inputs.jsonl``; what is not one is passed over."""
        by_task: dict[str, int] = {}
        total = 0
        for row in rows:
            inputs = row.get("inputs")
            if isinstance(inputs, dict):
                by_task.update((key, each) for key, each in inputs.items() if _is_number(each))
            if _is_number(row.get("total")):
                total = row["total"]
        return cls(by_task, total)

    def of(self, task_ids: pd.Series[str]) -> pd.Series[int]:
        """Return the number of inputs of each task."""
        return task_ids.map(self.by_task).astype("float64").fillna(1).astype("int64")

    def count_states(
        self, last: pd.DataFrame, attempted: Iterable[str] = (), *, is_over: bool = True
    ) -> dict[str, int]:
        """Return the number of inputs by state.

        Parameters
        ----------
        last : pandas.DataFrame
            The last row of each task that ended.
        attempted : iterable of str
            Tasks with failed attempts.
        is_over : bool
            Whether no further task will end.
        """
        inputs = self.of(last["task_id"]).groupby(last["state"].astype("str")).sum()
        found = {one_line(state, 40): int(count) for state, count in inputs.items() if count}
        counts = Counter(found)
        left = max(0, self.total - counts.total())
        if left and is_over:
            ended = set(last["task_id"])
            between = sum(self.by_task.get(key, 1) for key in set(attempted) - ended)
            counts[TaskState.RETRYING.label] += min(left, between)
            counts[TaskState.NEVER_RAN.label] += max(0, left - between)
        elif left:
            counts[UNFINISHED] = left
        return {state: counts[state] for state in (*STATE_LABELS, *counts) if counts[state]}


def _is_number(value: object) -> bool:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return is_whole and 0 <= value < _MOST_INPUTS  # type: ignore[operator]
