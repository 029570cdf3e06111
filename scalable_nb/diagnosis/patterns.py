"""What only many failures together show: where, when and with which arguments they happen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from scalable_nb.diagnosis.argument_rates import (
    Argument,
    Level,
    excess_p_value,
    explaining_arguments,
    failing_level,
    outcomes,
    wilson,
)
from scalable_nb.diagnosis.findings import Finding, Row, counted, kinds_of, listed, measure, who
from scalable_nb.telemetry.sanitize import one_line

if TYPE_CHECKING:
    import pandas as pd

#: Of a finding that says where or when: before one that says what.
_WHERE: Final = 2.0
_MIN_FAILURES: Final = 5
_CERTAIN: Final = 1e-4
_CLASSES: Final = 5  # looked at one by one
_WAVE_S: Final = 60.0
_WAVE_WORKERS: Final = 5


class Place(NamedTuple):
    """A host, job or worker: attempts that failed there, and all of them."""

    kind: str
    name: str
    failed: int
    total: int


def find_patterns(
    failures: pd.DataFrame, tasks: pd.DataFrame, workers: Iterable[Row]
) -> list[Finding]:
    """What failures have in common beyond their error.

    Parameters
    ----------
    failures, tasks : pandas.DataFrame
        See `scalable_nb.telemetry.dataframes`.
    workers : iterable of mapping
        Rows of ``workers.jsonl``.
    """
    found = [_unconnected(list(workers))]
    if len(failures):
        found += [
            _bad_place(failures, tasks),
            _preemption_wave(failures),
            _bad_arguments(failures, tasks),
            _systematic(failures, tasks),
        ]
    return [finding for finding in found if finding is not None]


# --- where ----------------------------------------------------------------------------


def attempts_by_place(failures: pd.DataFrame, tasks: pd.DataFrame, kind: str) -> list[Place]:
    """How many attempts failed on each host, job or worker, of how many.

    Attempts that succeeded are known by worker alone; where a worker was is known from its
    failures, and a worker without any counts as a place of its own.
    """
    done = tasks[tasks["state"] == "succeeded"]["worker"].value_counts()
    known = failures[["worker", kind]].astype(str).drop_duplicates("worker")
    place_of = dict(zip(known["worker"], known[kind], strict=True)) if kind != "worker" else {}
    totals: dict[str, int] = {}
    for worker, count in done.items():
        if count:
            name = place_of.get(str(worker)) or str(worker)
            totals[name] = totals.get(name, 0) + int(count)
    failed = {str(k): int(n) for k, n in failures[kind].value_counts().items() if n and k}
    names = {**dict.fromkeys(failed), **dict.fromkeys(totals)}
    return [
        Place(kind, name, failed.get(name, 0), failed.get(name, 0) + totals.get(name, 0))
        for name in names
        if name
    ]


def _bad_place(failures: pd.DataFrame, tasks: pd.DataFrame) -> Finding | None:
    # One error class may come from one place while others come from everywhere.
    classes = failures["failure_class"].value_counts().head(_CLASSES).index
    parts = [failures, *(failures[failures["failure_class"] == name] for name in classes)]
    for kind in ("host", "job_id", "worker"):
        for part in parts:
            places = attempts_by_place(part, tasks, kind)
            bad = [place for place in _outliers(places) if place.name in set(part[kind])]
            if bad:
                return _bad_place_finding(part, places, bad)
    return None


def _outliers(places: list[Place]) -> Iterator[Place]:
    """Places where attempts fail far more often than elsewhere; at most a third of them."""
    if len(places) < 3:
        return
    failed, total = sum(p.failed for p in places), sum(p.total for p in places)
    suspects = sorted(places, key=lambda p: -p.failed)[: len(places) // 3]
    for place in suspects:
        elsewhere = max(1, total - place.total)
        rate = (failed - place.failed + 0.5) / (elsewhere + 1)
        share = place.failed / max(1, place.total)
        p_value = excess_p_value(place.failed, place.total, rate) * len(places)
        # Half of all failures, in a place where it is far worse than in all others.
        is_worse = share > 3 * rate and place.failed > failed / (2 * len(suspects))
        if place.failed >= _MIN_FAILURES and is_worse and p_value < _CERTAIN:
            yield place


def _bad_place_finding(failures: pd.DataFrame, places: list[Place], bad: list[Place]) -> Finding:
    kind = bad[0].kind
    names = [one_line(place.name, 60) for place in bad]
    there = failures[failures[kind].isin([place.name for place in bad])]
    failed, total = sum(p.failed for p in bad), sum(p.total for p in bad)
    other_failed = sum(p.failed for p in places) - failed
    other_total = sum(p.total for p in places) - total
    here, elsewhere = wilson(failed, total), wilson(other_failed, other_total)
    evidence = measure(there) | {
        "places": names,
        "kind": kind,
        "failed_there": failed,
        "attempts_there": total,
        "rate_there": [*here],
        "rate_elsewhere": [*elsewhere],
        "errors": dict(counted(there, "failure_class").most_common(3)),
    }
    word = {"host": "node", "job_id": "job", "worker": "worker"}[kind]
    what = f"the {word} {listed(names)}" if len(bad) == 1 else f"the {word}s {listed(names)}"
    exclude = f"--exclude={','.join(names)}"
    action = (
        f"Keep away from it: on Slurm `job_extra_directives: ['{exclude}']` of the target in "
        "scalable.yaml; tell those who run the cluster. Then `resubmit(futures)`."
        if kind == "host"
        else f"End it, so that another takes its place: `client.retire_workers({names})`; then "
        "`resubmit(futures)`."
    )
    return Finding(
        "bad_node",
        f"{failed:,} of {total:,} attempts on {what} failed ({here.share:.0%}), elsewhere "
        f"{elsewhere.share:.1%}: it is the {word}, not the tasks, mostly with "
        f"{listed([*evidence['errors']][:1])}.",
        evidence,
        0.9,
        action,
        "resubmit(futures)",
        kinds_of(there),
        {},
        _WHERE,
    )


# --- when -----------------------------------------------------------------------------


def _preemption_wave(failures: pd.DataFrame) -> Finding | None:
    lost = failures[(failures["category"] == "infrastructure") & failures["timestamp"].notna()]
    lost = lost[lost["job_state"].isin(["", "PREEMPTED", "CANCELLED", "REQUEUED"])]
    if lost["worker"].nunique() < _WAVE_WORKERS:
        return None
    lost = lost.sort_values("timestamp", kind="stable")
    at = lost["timestamp"].astype("int64").to_numpy() / 1e6
    ends = np.searchsorted(at, at + _WAVE_S, side="right")
    begin = int(np.argmax(ends - np.arange(len(at))))
    wave = lost.iloc[begin : ends[begin]]
    workers = wave["worker"].nunique()
    # A crashing function ends many workers too, but one after the other and the same calls.
    if workers < _WAVE_WORKERS or len(wave) < 0.6 * len(lost) or len(wave) > 4 * workers:
        return None
    is_reported = bool((wave["job_state"] == "PREEMPTED").any()) or any(
        "preempt" in str(text).lower() for text in wave["message"].unique()
    )
    evidence = measure(wave) | {
        "workers": int(workers),
        "began_at": wave["timestamp"].iloc[0].isoformat(),
        "span_s": round(float(at[ends[begin] - 1] - at[begin]), 1),
    }
    by = "preempted" if is_reported else "taken away, as a preemption or a failing switch does it,"
    return Finding(
        "preemption_wave",
        f"{workers:,} workers were {by} within {evidence['span_s']:.0f} s at "
        f"{wave['timestamp'].iloc[0]:%H:%M:%S} UTC, and {who(evidence)} with them. Nothing is "
        "wrong with the tasks.",
        evidence,
        0.95 if is_reported else 0.6,
        "`resubmit(futures)` runs again what is missing; keep results with `cache: true`, or use a "
        "partition that is not preempted.",
        "resubmit(futures)",
        kinds_of(wave),
        {},
        _WHERE,
    )


def _unconnected(rows: list[Row]) -> Finding | None:
    """Jobs that ended, or whose run is long over, without their worker having connected."""
    submitted = {str(r.get("worker")): r for r in rows if r.get("event_type") == "job-submitted"}
    connected = [str(r.get("worker")) for r in rows if r.get("event_type") == "worker-connected"]
    ended = {
        str(r.get("worker")) for r in rows if r.get("event_type") in ("job-ended", "job-failed")
    }
    lost = [
        name
        for name in submitted
        if not any(worker == name or worker.startswith(f"{name}-") for worker in connected)
        and (name in ended or not connected)
    ]
    if len(lost) < 2:
        return None
    jobs = [one_line(submitted[name].get("job_id"), 40) for name in lost]
    evidence = {
        "attempts": 0, "tasks": 0, "failed_tasks": 0, "example": jobs[0],
        "jobs": jobs[:10], "submitted": len(submitted), "connected": len(connected),
    }  # fmt: skip
    return Finding(
        "worker_not_connected",
        f"{len(lost):,} of {len(submitted):,} jobs (e.g. {jobs[0]}) never became a worker: they "
        "wait in the queue, end at once, or cannot reach the scheduler.",
        evidence,
        0.8 if ended else 0.5,
        f"Read the log of one (`%scalable logs {jobs[0]}`): a missing module or container shows "
        "there; where it says that it cannot connect, set `interface:` of the target to a network "
        "that the nodes reach (`!ip -brief address`).",
        f"%scalable logs {jobs[0]}",
        weight=_WHERE,
    )


# --- with which arguments, and all --------------------------------------------------------


def _bad_arguments(failures: pd.DataFrame, tasks: pd.DataFrame) -> Finding | None:
    ended = outcomes(tasks)
    failed = (ended["state"] == "failed").to_numpy()
    if failed.sum() < _MIN_FAILURES or failed.mean() > 0.8:
        return None
    for argument in explaining_arguments(ended["args_preview"].tolist(), failed):
        level = failing_level(argument)
        if argument.information.p_value <= 0.01 and level and _explains(argument, level):
            return _bad_arguments_finding(failures, argument, level)
    return None


def _explains(argument: Argument, level: Level) -> bool:
    """Whether nearly all failures lie there, and most that lies there fails."""
    failed, total = int(argument.failed.sum()), len(argument.failed)
    outside = wilson(failed - level.failed, total - level.total)
    return (
        level.failed >= max(_MIN_FAILURES, 0.7 * failed)
        and level.rate.share >= 0.6
        and level.total < 0.7 * total
        and level.rate.low > 2 * outside.high
    )


def _bad_arguments_finding(failures: pd.DataFrame, argument: Argument, level: Level) -> Finding:
    evidence = measure(failures[failures["is_final"]] if failures["is_final"].any() else failures)
    name, value = one_line(argument.name, 40), one_line(level.label, 80)
    outside = len(argument.failed) - level.total
    failed_outside = int(argument.failed.sum()) - level.failed
    evidence |= {
        "argument": name,
        "values": value,
        "failed_there": level.failed,
        "calls_there": level.total,
        "rate_there": [*level.rate],
        "rate_elsewhere": [*wilson(failed_outside, outside)],
        "explained_share": round(argument.information.share, 3),
        "p_value": argument.information.p_value,
    }
    return Finding(
        "bad_argument_range",
        f"Calls with `{name}` = {value} fail: {level.failed:,} of {level.total:,} "
        f"({level.rate.share:.0%}), of all others {failed_outside:,} of {outside:,}. The argument "
        f"explains {argument.information.share:.0%} of what failed.",
        evidence,
        0.9,
        f"Look at what the function does with `{name}` = {value} (call it here with one of them: "
        f"`{evidence['example']}`), correct it or leave these calls out.",
        evidence["example"],
        kinds_of(failures[failures["is_final"]]),
        weight=0.9,
    )


def _systematic(failures: pd.DataFrame, tasks: pd.DataFrame) -> Finding | None:
    ended = outcomes(tasks)
    failed = ended[ended["state"] == "failed"]
    if len(failed) < 10 or len(failed) < 0.95 * len(ended):
        return None
    counts = failures["fingerprint"].value_counts()
    if counts.iloc[0] < 0.8 * len(failures):
        return None
    same = failures[failures["fingerprint"] == counts.index[0]]
    evidence = measure(same) | {"ended": len(ended), "share": len(failed) / len(ended)}
    error, message = one_line(same["failure_class"].iloc[0]), one_line(same["message"].iloc[0], 120)
    return Finding(
        "systematic_failure",
        f"{len(failed):,} of {len(ended):,} tasks failed, with one and the same error "
        f"({error}: {message}): it is not the single task but what all of them need.",
        evidence,
        0.9,
        f"Try one call here before all others run again: `{evidence['example']}`. Correct the "
        "function, its configuration or the environment, then submit anew.",
        evidence["example"],
        kinds_of(same),
        weight=0.9,
    )
