"""Failed attempts counted: by kind, by error class, by time, by place, by attempt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scalable_nb.telemetry.jsonl_parser import times

if TYPE_CHECKING:
    import pandas as pd

#: Lines of a timeline, places and classes of a heat map, attempts that are told apart.
TIME_SPANS: Final = 60
MAX_PLACES: Final = 20
MAX_PLACE_CLASSES: Final = 8
MAX_ATTEMPTS: Final = 10


def last_rows(tasks: pd.DataFrame) -> pd.DataFrame:
    """Of each task that ended the row that counts: it may have been resubmitted."""
    return tasks[~tasks["task_id"].duplicated(keep="last")]


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
        ``frame``: the first one).
    """
    import pandas as pd

    by = frame.groupby("fingerprint", sort=False, observed=True)
    lines = frame.index.to_series().groupby(frame["fingerprint"], sort=False, observed=True)
    example = lines.min()
    in_task = frame[frame["task_id"] != ""]
    groups = pd.DataFrame({"attempts": by.size()}, index=example.index)
    for name, rows in (("tasks", in_task), ("failed_tasks", in_task[in_task["is_final"]])):
        counts = rows.groupby("fingerprint", observed=True)["task_id"].nunique()
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

    counts = frame.groupby("failure_class", sort=False, observed=True)["is_final"].agg(
        ["size", "sum"]
    )
    counts = counts.sort_values("size", ascending=False, kind="stable")
    pairs = frame.groupby(["failure_class", "category"], sort=False, observed=True).size()
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


def timeline_table(
    failures: pd.DataFrame, tasks: pd.DataFrame, workers: Iterable[Mapping[str, Any]] = ()
) -> pd.DataFrame:
    """Attempts that ended, in equal spans of time.

    Returns
    -------
    pandas.DataFrame
        At most `TIME_SPANS` lines: ``begin`` (datetime64[UTC]), ``width_s``, ``ended``,
        ``failed``, ``workers_lost``, ``workers_came`` (int64).
    """
    import pandas as pd

    done = tasks.loc[tasks["state"] == "succeeded", "timestamp"]
    rows = list(workers)
    series = {
        "failed": failures["timestamp"],
        "done": done,
        "workers_lost": _times_of(rows, "worker-left"),
        "workers_came": _times_of(rows, "worker-connected"),
    }
    at = {name: _epoch_s(values) for name, values in series.items()}
    everything = np.concatenate([at["failed"], at["done"]])
    if not len(everything):
        columns = ["width_s", "ended", "failed", "workers_lost", "workers_came"]
        begin = pd.DatetimeIndex([], tz="UTC")
        return pd.DataFrame({"begin": begin, **dict.fromkeys(columns, np.array([], "int64"))})
    low, high = float(everything.min()), float(everything.max())
    edges = np.linspace(low, max(high, low + 1.0), TIME_SPANS + 1)
    counts = {name: np.histogram(seconds, edges)[0] for name, seconds in at.items()}
    return pd.DataFrame(
        {
            "begin": pd.to_datetime((1e3 * edges[:-1]).astype("int64"), unit="ms", utc=True),
            "width_s": edges[1] - edges[0],
            "ended": counts["failed"] + counts["done"],
            "failed": counts["failed"],
            "workers_lost": counts["workers_lost"],
            "workers_came": counts["workers_came"],
        }
    )


def place_kind(failures: pd.DataFrame) -> str:
    """Which of ``host``, ``job_id``, ``worker`` tells places apart, the widest first."""
    for name in ("host", "job_id"):
        if (failures[name] != "").any() and failures[name].nunique() > 1:
            return name
    return "worker"


def place_table(failures: pd.DataFrame, kind: str | None = None) -> pd.DataFrame:
    """Failed attempts by place and error class.

    Parameters
    ----------
    failures : pandas.DataFrame
    kind : str, optional
        ``host``, ``job_id`` or ``worker``; see `place_kind`.

    Returns
    -------
    pandas.DataFrame
        int64; one line per place, one column per class, the most frequent ones first; at
        most `MAX_PLACES` by `MAX_PLACE_CLASSES`.
    """
    import pandas as pd

    kind = kind or place_kind(failures)
    named = failures[failures[kind] != ""]
    table = pd.crosstab(named[kind].astype("str"), named["failure_class"].astype("str"))
    classes = table.sum().sort_values(ascending=False, kind="stable").index[:MAX_PLACE_CLASSES]
    places = table.sum(axis=1).sort_values(ascending=False, kind="stable").index[:MAX_PLACES]
    found = table.loc[places, classes]
    found.index.name = kind.removesuffix("_id")
    return found


def retry_table(failures: pd.DataFrame, tasks: pd.DataFrame) -> pd.DataFrame:
    """What became of first, second, third … attempts.

    Returns
    -------
    pandas.DataFrame
        Indexed by the number of the attempt: ``succeeded``, ``failed`` (int64),
        ``success_rate`` (0 to 1), ``waited_s`` (before it), ``lost_core_h`` (execution time of
        those that failed; one core each).
    """
    import pandas as pd

    done = tasks.loc[tasks["state"] == "succeeded", "attempts"].clip(1, MAX_ATTEMPTS)
    number = failures["attempt"].clip(1, MAX_ATTEMPTS)
    highest = max(int(done.max()) if len(done) else 1, int(number.max()) if len(number) else 1)
    index = pd.RangeIndex(1, highest + 1, name="attempt")
    succeeded = done.value_counts().reindex(index, fill_value=0)
    failed = number.value_counts().reindex(index, fill_value=0)
    waited = failures["retry_in_s"].fillna(0.0).groupby(number + 1).sum()
    lost = failures["duration_s"].fillna(0.0).groupby(number).sum() / 3600
    return pd.DataFrame(
        {
            "succeeded": succeeded,
            "failed": failed,
            "success_rate": (succeeded / (succeeded + failed).clip(lower=1)),
            "waited_s": waited.reindex(index, fill_value=0.0),
            "lost_core_h": lost.reindex(index, fill_value=0.0),
        },
        index=index,
    )


def limits_of(failures: pd.DataFrame) -> tuple[float | None, float | None]:
    """The time limit of an attempt, and the walltime, that the failures themselves show."""

    def longest(rows: pd.DataFrame) -> float | None:
        seconds = rows["duration_s"].dropna()
        return float(seconds.median()) if len(seconds) else None

    return (
        longest(failures[failures["category"] == "timeout"]),
        longest(failures[failures["job_state"] == "TIMEOUT"]),
    )


def _times_of(rows: Iterable[Mapping[str, Any]], event: str) -> Any:
    import pandas as pd

    found = [row.get("timestamp") for row in rows if row.get("event_type") == event]
    return pd.Series(pd.DatetimeIndex(times(found), tz="UTC"))


def _epoch_s(values: Any) -> Any:
    known = values.dropna()
    return known.dt.as_unit("us").astype("int64").to_numpy() / 1e6


def _names(frame: pd.DataFrame, column: str) -> dict[Any, list[str]]:
    """Names by fingerprint, the most frequent first."""
    named = frame[frame[column] != ""]
    counts = named.groupby(["fingerprint", column], sort=False, observed=True).size()
    found: dict[Any, list[str]] = {}
    for key, name in counts.sort_values(ascending=False, kind="stable").index:
        found.setdefault(key, []).append(name)
    return found


def core_hours(rows: Iterable[Mapping[str, Any]], now: float) -> float:
    """Threads of all workers times the hours that they were connected.

    Parameters
    ----------
    rows : iterable of mapping
        Of ``workers.jsonl``, oldest first.
    now : float
        Seconds since the epoch; until then a worker counts that has not left.
    """
    since: dict[str, tuple[float, int]] = {}
    core_seconds = 0.0
    for row in rows:
        address, event = str(row.get("address")), row.get("event_type")
        if event not in ("worker-connected", "worker-left"):
            continue
        at = datetime.fromisoformat(row["timestamp"]).timestamp()
        if address in since:
            begun_at, threads = since.pop(address)
            core_seconds += threads * max(0.0, at - begun_at)
        if event == "worker-connected":
            since[address] = at, int(row.get("threads") or 1)
    core_seconds += sum(threads * max(0.0, now - begun) for begun, threads in since.values())
    return core_seconds / 3600
