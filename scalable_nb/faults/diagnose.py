"""What went wrong and what to do, from the rows of a run.

Pure: rows in, findings out. An attempt belongs to one cause, so that no failure is
explained twice; what is said of retries looks at all attempts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scalable_nb.faults.causes import CAUSES, FAST_FAIL_S
from scalable_nb.faults.findings import Finding, Row, measure, who
from scalable_nb.telemetry.reader import is_final, number
from scalable_nb.telemetry.records import TaskState

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FAST_FAIL_S", "Finding", "diagnose", "helped_by_retry"]


def diagnose(failures: Iterable[Row] | pd.DataFrame, *, tasks: Iterable[Row] = ()) -> list[Finding]:
    """Name the causes of a run's failures, the one that cost most tasks first.

    Parameters
    ----------
    failures : iterable of mapping, or pandas.DataFrame
        Failed attempts: rows of ``failures.jsonl`` in their order, or a table of them.
    tasks : iterable of mapping
        Rows of ``tasks.jsonl``; without them nobody can know which retries helped.

    Returns
    -------
    list of Finding
        Causes, then what is to be said of retries. Attempts with a cause that no rule knows
        appear in no finding.
    """
    rows = _rows(failures)
    claimed: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        name = next((cause.name for cause in CAUSES if cause.claims(row)), None)
        if name is not None:
            claimed[name].append(row)
    findings = [
        cause.explain(cause.name, claimed[cause.name]) for cause in CAUSES if cause.name in claimed
    ]
    findings.sort(key=_cost, reverse=True)
    last = {str(row.get("task_id")): row for row in tasks}
    return findings + _about_retries(rows, last)


def helped_by_retry(failures: Iterable[Row], tasks: Mapping[str, Row]) -> list[str]:
    """Ids of the tasks that failed at first and succeeded in a retry.

    A success that follows a failure for good is a resubmission's, and does not count.

    Parameters
    ----------
    failures : iterable of mapping
        Failed attempts, in the order in which they happened.
    tasks : mapping of str to mapping
        The last row of each task, by its id.
    """
    retried = {str(row.get("task_id")): not is_final(row) for row in failures}
    return [
        key
        for key, was_retried in retried.items()
        if was_retried and tasks.get(key, {}).get("state") == TaskState.SUCCEEDED.label
    ]


def _about_retries(rows: Sequence[Row], tasks: Mapping[str, Row]) -> list[Finding]:
    attempts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.get("task_id"):
            attempts[str(row["task_id"])].append(row)
    helped = [attempts[key] for key in helped_by_retry(rows, tasks) if key in attempts]
    useless = [
        failed
        for failed in attempts.values()
        if len(failed) > 1 and is_final(failed[-1]) and len({_kind(row) for row in failed}) == 1
    ]
    findings = [_retries_helped(helped)] if helped else []
    return [*findings, _retries_useless(useless)] if useless else findings


def _retries_helped(helped: Sequence[Sequence[Row]]) -> Finding:
    evidence = measure([row for failed in helped for row in failed])
    return Finding(
        "retries_helped",
        f"{who(evidence)} failed and then succeeded in a retry: the cause was temporary.",
        evidence,
        1.0,
        "Nothing: the results are there. Keep the retries.",
    )


def _retries_useless(useless: Sequence[Sequence[Row]]) -> Finding:
    evidence = measure([row for failed in useless for row in failed])
    seconds = [number(row.get("duration_s")) for failed in useless for row in failed[1:]]
    retries = evidence["retries"] = len(seconds)
    spent = evidence["spent_s"] = round(sum(s for s in seconds if s > 0), 3)
    return Finding(
        "retries_useless",
        f"Retries did not help: {who(evidence)} failed with one and the same error at every "
        f"attempt ({retries:,} retries, {spent:.0f} s).",
        evidence,
        0.8,
        "Mend the cause first; until then `retries=0`, or `policy=TaskPolicy(give_up_on=...)` with "
        "this error, saves the time.",
    )


def _rows(failures: Any) -> list[Row]:
    if hasattr(failures, "to_dict"):  # a table; asked so, because pandas may not be loaded
        return list(failures.to_dict("records"))
    return list(failures)


def _cost(finding: Finding) -> tuple[int, int, float]:
    return finding.evidence["failed_tasks"], finding.evidence["attempts"], finding.confidence


def _kind(row: Row) -> str:
    return str(row.get("fingerprint") or (row.get("failure_class"), row.get("message")))
