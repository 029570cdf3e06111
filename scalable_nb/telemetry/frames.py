"""Failed attempts as tables: one line per attempt, per kind of failure, per error class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from scalable_nb.faults.fingerprint import fingerprint
from scalable_nb.telemetry.reader import is_final, number
from scalable_nb.telemetry.records import FailureRow

if TYPE_CHECKING:
    import pandas as pd

_COUNTS: Final = ("schema_version", "attempt", "attempts_allowed")
_FLAGS: Final = ("is_final", "will_retry")
_SECONDS: Final = ("retry_in_s", "queued_s", "duration_s")
_INTEGERS: Final = ("exit_code", "memory_bytes", "memory_limit_bytes")


def failures_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of ``failures.jsonl`` as a table with all columns of `FailureRow`.

    Parameters
    ----------
    rows : iterable of mapping
        Failed attempts. Unknown names are left out; a missing value, or one of a wrong
        type, becomes the column's empty value.

    Returns
    -------
    pandas.DataFrame
        One line per row. ``timestamp`` is ``datetime64[UTC]``; ``attempt``,
        ``attempts_allowed``, ``schema_version`` are int64 (1 where missing); ``is_final``,
        ``will_retry`` bool; the columns in seconds float64 (NaN where missing);
        ``exit_code``, ``memory_bytes``, ``memory_limit_bytes`` Int64; ``details`` holds
        dicts; all others are text (empty where missing). A missing ``fingerprint`` is
        computed from class and message, a missing ``category`` is ``"unknown"``.
    """
    import pandas as pd  # here, because it takes longer to import than a report to print

    rows = rows if isinstance(rows, Sequence) else list(rows)
    columns: dict[str, pd.Series[Any]] = {}
    for name in FailureRow.__annotations__:
        values = [row.get(name) for row in rows]
        if name in _COUNTS:
            whole = (_whole(value) for value in values)
            columns[name] = pd.Series([1 if n is None else n for n in whole], dtype="int64")
        elif name in _FLAGS:
            columns[name] = pd.Series([value is True for value in values], dtype="bool")
        elif name in _SECONDS:
            columns[name] = pd.Series([number(value) for value in values], dtype="float64")
        elif name in _INTEGERS:
            columns[name] = pd.Series([_whole(value) for value in values], dtype="Int64")
        elif name == "timestamp":
            columns[name] = pd.Series(
                pd.DatetimeIndex([_time(value) for value in values], dtype="datetime64[us, UTC]")
            )
        elif name == "details":
            details = [value if isinstance(value, dict) else {} for value in values]
            columns[name] = pd.Series(details, dtype="object")
        else:
            columns[name] = _texts(values)
    columns["is_final"] = pd.Series([is_final(row) for row in rows], dtype="bool")
    frame = pd.DataFrame(columns)
    frame.loc[frame["category"] == "", "category"] = "unknown"
    frame.loc[frame["failure_class"] == "", "failure_class"] = "unknown"
    without = frame["fingerprint"] == ""
    frame.loc[without, "fingerprint"] = [
        fingerprint(error, message, ())
        for error, message in frame.loc[without, ["failure_class", "message"]].itertuples(
            index=False
        )
    ]
    return frame


def failure_groups(frame: pd.DataFrame) -> pd.DataFrame:
    """Failed attempts that are one and the same failure, the most frequent first.

    Parameters
    ----------
    frame : pandas.DataFrame
        From `failures_frame`.

    Returns
    -------
    pandas.DataFrame
        One line per fingerprint: ``fingerprint, failure_class, category, message`` (those
        of the example), ``attempts`` (failed ones), ``share`` (of all failed attempts, 0 to
        1), ``tasks``, ``failed_tasks`` (for good), ``workers``, ``hosts`` (lists of names,
        the most frequent first), ``first_at``, ``last_at``, ``example`` (its line in
        ``frame``, one with a traceback where there is one).
    """
    import pandas as pd

    by = frame.groupby("fingerprint", sort=False)
    # `idxmax` of a flag: the first line that has a traceback, else the first line.
    example = (frame["traceback"] != "").groupby(frame["fingerprint"], sort=False).idxmax()
    in_task = frame[frame["task_id"] != ""]
    groups = pd.DataFrame({"attempts": by.size()}, index=example.index)
    for name, rows in (("tasks", in_task), ("failed_tasks", in_task[in_task["is_final"]])):
        counts = rows.groupby("fingerprint")["task_id"].nunique()
        groups[name] = counts.reindex(groups.index, fill_value=0).astype("int64")
    for name, column in (("workers", "worker"), ("hosts", "host")):
        found = _names(frame, column)
        groups[name] = [found.get(key, []) for key in groups.index]
    groups["first_at"], groups["last_at"] = by["timestamp"].min(), by["timestamp"].max()
    groups["example"] = example
    groups.insert(1, "share", groups["attempts"] / max(1, len(frame)))
    for place, name in enumerate(("failure_class", "category", "message")):
        groups.insert(place, name, frame.loc[groups["example"], name].to_numpy())
    return groups.sort_values("attempts", ascending=False, kind="stable").reset_index()


def failure_classes(frame: pd.DataFrame) -> pd.DataFrame:
    """Failed attempts counted by error class, the most frequent first.

    Parameters
    ----------
    frame : pandas.DataFrame
        From `failures_frame`.

    Returns
    -------
    pandas.DataFrame
        One line per class: ``failure_class, category`` (text; the usual category of the
        class), ``final``, ``retried`` (int64; attempts that ended their task, and others).
    """
    import pandas as pd

    counts = frame.groupby("failure_class", sort=False)["is_final"].agg(["size", "sum"])
    counts = counts.sort_values("size", ascending=False, kind="stable")
    pairs = frame.groupby(["failure_class", "category"], sort=False).size()
    usual = pairs.sort_values(ascending=False, kind="stable").reset_index()
    category = usual.drop_duplicates("failure_class").set_index("failure_class")["category"]
    return pd.DataFrame(
        {
            "failure_class": counts.index,
            "category": category.reindex(counts.index).to_numpy(),
            "final": counts["sum"].to_numpy(dtype="int64"),
            "retried": (counts["size"] - counts["sum"]).to_numpy(dtype="int64"),
        }
    )


def _names(frame: pd.DataFrame, column: str) -> dict[Any, list[str]]:
    """Names by fingerprint, the most frequent first."""
    named = frame[frame[column] != ""]
    counts = named.groupby(["fingerprint", column], sort=False).size()
    found: dict[Any, list[str]] = {}
    for key, name in counts.sort_values(ascending=False, kind="stable").index:
        found.setdefault(key, []).append(name)
    return found


def _whole(value: object) -> int | None:
    found = number(value)
    return int(found) if abs(found) < 2**63 and found.is_integer() else None


def _texts(values: list[Any]) -> pd.Series[Any]:
    import pandas as pd

    if not set(map(type, values)) <= {str}:
        values = ["" if value is None else str(value) for value in values]
    try:
        "".join(values).encode()
    except UnicodeEncodeError:  # lone surrogates, which neither a file nor Arrow holds
        values = [text.encode("utf-8", "backslashreplace").decode() for text in values]
    return pd.Series(values, dtype="str")


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
