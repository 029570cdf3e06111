"""What retries did for a run: whether they helped, whether there were too few, or too many."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from scalable_nb.diagnosis.argument_rates import wilson
from scalable_nb.diagnosis.findings import Finding, kinds_of, measure, who
from scalable_nb.telemetry.aggregates import last_rows
from scalable_nb.telemetry.rows import TaskState

if TYPE_CHECKING:
    import pandas as pd

_ENOUGH: Final = 0.99  # of the tasks are to succeed
_MAX_RETRIES: Final = 10


def retried_tasks(failures: pd.DataFrame, tasks: pd.DataFrame) -> pd.DataFrame:
    """One line per task with a failed attempt.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``task_id``: ``retries`` (those made after a failed attempt; what a
        resubmission ran is none), ``kinds`` (different fingerprints), ``is_final`` (of its last
        failed attempt), ``fingerprint`` (likewise), ``helped`` (succeeded in a retry, not by a
        resubmission), ``retry_s`` (execution time of the retries that failed).
    """
    rows = failures.loc[failures["task_id"] != "", ["task_id", "is_final", "duration_s"]]
    rows = rows.assign(kind=failures["fingerprint"].cat.codes, was_retried=~rows["is_final"])
    by = rows.groupby("task_id", sort=False)
    later = rows[by["was_retried"].shift(fill_value=False)]
    found = by.agg(
        retries=("was_retried", "sum"), kinds=("kind", "nunique"), is_final=("is_final", "last")
    )
    found["fingerprint"] = by["kind"].last()
    seconds = later.groupby("task_id")["duration_s"].sum()
    found["retry_s"] = seconds.reindex(found.index, fill_value=0.0)
    last = last_rows(tasks)
    succeeded = last.loc[last["state"] == TaskState.SUCCEEDED.label, "task_id"]
    found["helped"] = ~found["is_final"] & found.index.isin(succeeded)
    return found


def evaluate_retries(failures: pd.DataFrame, tasks: pd.DataFrame) -> list[Finding]:
    """What is to be said of retries, after the causes."""
    retried = retried_tasks(failures, tasks)
    helped = retried[retried["helped"]]
    exhausted = retried[retried["is_final"] & (retried["retries"] > 0)]
    useful = set(helped["fingerprint"])
    is_useful = exhausted["fingerprint"].isin(useful)
    few = exhausted[is_useful]
    useless = exhausted[~is_useful & (exhausted["kinds"] == 1)]
    found = [
        _too_few(failures, retried, helped, few) if len(few) >= 3 and len(helped) >= 5 else None,
        _useless(failures, useless) if len(useless) else None,
        _helped(failures, helped) if len(helped) else None,
    ]
    return [finding for finding in found if finding is not None]


def _of(failures: pd.DataFrame, tasks: pd.DataFrame) -> pd.DataFrame:
    return failures[failures["task_id"].isin(tasks.index)]


def _helped(failures: pd.DataFrame, helped: pd.DataFrame) -> Finding:
    evidence = measure(_of(failures, helped))
    return Finding(
        "retries_helped",
        f"{who(evidence)} failed and then succeeded in a retry: the cause was temporary.",
        evidence,
        1.0,
        "Nothing: the results are there. Keep the retries.",
    )


def _useless(failures: pd.DataFrame, useless: pd.DataFrame) -> Finding:
    rows = _of(failures, useless)
    evidence = measure(rows)
    retries = evidence["retries"] = int(useless["retries"].sum())
    spent = evidence["spent_s"] = round(float(useless["retry_s"].sum()), 3)
    return Finding(
        "retries_useless",
        f"Retries did not help: {who(evidence)} failed with one and the same error at every "
        f"attempt ({retries:,} retries, {spent:.0f} s).",
        evidence,
        0.8,
        "Mend the cause first; until then `retries=0`, or `policy=TaskPolicy(give_up_on=...)` with "
        "this error, saves the time.",
        "resubmit(futures, retries=0)",
        kinds_of(rows),
    )


def _too_few(
    failures: pd.DataFrame, retried: pd.DataFrame, helped: pd.DataFrame, few: pd.DataFrame
) -> Finding | None:
    """Retries that often help and were used up: how many would do."""
    same = retried[retried["fingerprint"].isin(set(few["fingerprint"]))]
    retries = int(same["retries"].sum())
    rate = wilson(int(same["helped"].sum()), retries)
    if rate.low < 0.1:
        return None
    rows = _of(failures, few)
    evidence: dict[str, Any] = measure(rows)
    had = int(few["retries"].median())
    wanted = math.ceil(math.log(1 - _ENOUGH) / math.log(1 - min(rate.share, 0.99)))
    wanted = min(_MAX_RETRIES, max(had + 1, wanted))
    evidence |= {
        "helped": len(helped), "success_per_retry": [*rate], "had": had, "wanted": wanted
    }  # fmt: skip
    code = f"resubmit(futures, retries={wanted})"
    return Finding(
        "retries_too_few",
        f"{who(evidence)} used up {had} retries with an error that a retry mends in "
        f"{rate.share:.0%} of cases ({rate.low:.0%} to {rate.high:.0%}): {len(helped):,} other "
        "tasks succeeded so.",
        evidence,
        0.8,
        f"Allow more: `{code}`, or `retries: {wanted}` of the task in scalable.yaml.",
        code,
        kinds_of(rows),
        {"retries": wanted},
    )
