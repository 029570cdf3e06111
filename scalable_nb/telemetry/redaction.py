"""Records without what was computed with: arguments, messages, output, environment, paths.

Rows are redacted before anything is made of them, field by field. A field that is not listed here
is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from scalable_nb.telemetry.dataframes import failures_frame, tasks_frame
from scalable_nb.telemetry.rows import GIVEN_UP, RELEASED, STATE_LABELS
from scalable_nb.telemetry.run_tables import Records

if TYPE_CHECKING:
    import pandas as pd

HIDDEN: Final = "…"

#: The text at the top of a redacted report.
NOTICE: Final = (
    "Redacted: arguments, messages, output, environment, keys, batch names and paths are left out. "
    "What remains: names of project, target, components, functions and error classes, file names "
    "and lines of code, workers, machines and job ids, times and counts."
)

_NUMBERS: Final = frozenset({
    "attempt", "attempts", "attempts_allowed", "bytes", "cores", "duration_s", "exit_code",
    "is_final", "memory_bytes", "memory_limit_bytes", "queued_s", "result_bytes", "retry_in_s",
    "schema_version", "threads", "will_retry",
})  # fmt: skip
_TIMES: Final = frozenset({"ended_at", "started_at", "submitted_at", "timestamp"})
_NAMES: Final = frozenset({
    "category", "component", "error_module", "event_type", "failure_class", "fingerprint",
    "function_name", "host", "job_id", "job_state", "phase", "project", "provider", "run_id",
    "tag", "target", "task_name", "worker",
})  # fmt: skip
_ALIASES: Final = {"task_id": "task", "batch": "batch"}
_WORDS: Final = {"reason": (GIVEN_UP, RELEASED), "state": STATE_LABELS}

_NAME: Final = re.compile(r"[\w.<>-]{1,128}", re.ASCII)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?")
_FRAME: Final = re.compile(r'  File "(?:.*[/\\])?([^/\\"]+)", line (\d+), in ([\w.<>]{1,128})')
_TRACEBACK: Final = "Traceback (most recent call last):"


class Redaction:
    """Redacts the rows of one run; the same key has the same alias in all of them."""

    def __init__(self) -> None:
        self._aliases: dict[tuple[str, str], str] = {}

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with the listed fields only, and only if they are what they should be."""
        kept: dict[str, Any] = {"args_preview": HIDDEN, "message": HIDDEN}
        for field, value in row.items():
            if field in _NAMES:
                kept[field] = redact_name(value)
            elif field in _ALIASES and value:
                kept[field] = self._alias(_ALIASES[field], str(value))
            elif field == "traceback":
                kept[field] = redact_traceback(str(value or ""))
            elif _is_harmless(field, value):
                kept[field] = value
        return kept

    def _alias(self, kind: str, value: str) -> str:
        count = len(self._aliases) + 1
        return self._aliases.setdefault((kind, value), f"{kind}-{count}")


def _is_harmless(field: str, value: object) -> bool:
    if field in _NUMBERS:
        return isinstance(value, int | float)
    if field in _TIMES:
        return isinstance(value, str) and _TIME.fullmatch(value) is not None
    return value in _WORDS.get(field, ())


def redact_name(value: object) -> str:
    """Return a name, or `HIDDEN` for a text that is not one; empty for nothing."""
    if value is None or value == "":
        return ""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else HIDDEN


def redact_traceback(text: str) -> str:
    """Return the frames of a traceback: file name without folder, line and function.

    Source lines and messages may contain values. A message may look like a frame, so nothing
    after the first one is kept.
    """
    kept: list[str] = []
    for line in text.splitlines():
        frame = _FRAME.fullmatch(line)
        if frame is not None:
            name = redact_name(frame[1])
            kept.append(f'  File "{name}", line {frame[2]}, in {frame[3]}')
        elif line[:1] not in (" ", "") and line != _TRACEBACK:
            break  # the first message
    return "\n".join([_TRACEBACK, *kept, HIDDEN]) if kept else ""


class RedactedRecords:
    """Records whose rows are redacted.

    Parameters
    ----------
    records : Records
    redaction : Redaction, optional
    """

    def __init__(self, records: Records, redaction: Redaction | None = None) -> None:
        self._redaction = redaction or Redaction()
        self._records = records
        self.problems: Counter[str] = records.problems
        self.refused: list[str] = []  # they contain paths
        self.workers = self._rows(records.workers)
        failures = records.failures
        whole = self._rows(records.row(place) for place in range(len(failures)))
        self._whole = whole
        self.failures: pd.DataFrame = failures_frame(whole).assign(
            # As known by the end of the tasks; the rows were written before.
            is_final=failures["is_final"].to_numpy(),
            will_retry=failures["will_retry"].to_numpy(),
        )
        self.tasks: pd.DataFrame = tasks_frame(self._rows(_as_rows(records.tasks)))

    def poll(self) -> bool:
        """Return False: nothing is ever new."""
        return False

    def row(self, place: int) -> dict[str, Any]:
        """Return the redacted row of a line of `failures`."""
        return dict(self._whole[place])

    def _rows(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [self._redaction.row(row) for row in rows]


def _as_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table as rows again, with times as text."""
    as_text = {
        name: frame[name].dt.strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")
        for name in frame.columns
        if frame[name].dtype.kind == "M"
    }
    rows: Any = frame.assign(**as_text).to_dict("records")
    return [{name: value for name, value in row.items() if value is not None} for row in rows]
