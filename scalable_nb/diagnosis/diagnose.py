"""What went wrong and what to do, from what a run has recorded.

Pure: tables in, findings out. A kind of failure belongs to one cause, so that no failure is
explained twice; what is said of places, times, arguments and retries looks at all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from scalable_nb.diagnosis.findings import Finding, Row
from scalable_nb.diagnosis.known_causes import CAUSES, FAST_FAIL_S
from scalable_nb.diagnosis.patterns import find_patterns
from scalable_nb.diagnosis.retry_effect import evaluate_retries
from scalable_nb.telemetry.dataframes import failures_frame, tasks_frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FAST_FAIL_S", "Finding", "diagnose"]


def diagnose(
    failures: Iterable[Row] | pd.DataFrame,
    *,
    tasks: Iterable[Row] | pd.DataFrame = (),
    workers: Iterable[Row] = (),
) -> list[Finding]:
    """Name the causes of a run's failures, the one that cost most tasks first.

    Parameters
    ----------
    failures : iterable of mapping, or pandas.DataFrame
        Failed attempts: rows of ``failures.jsonl`` in their order, or a table of them.
    tasks : iterable of mapping, or pandas.DataFrame
        Rows of ``tasks.jsonl``; without them nobody can know which retries helped, nor what
        succeeded elsewhere.
    workers : iterable of mapping
        Rows of ``workers.jsonl``.

    Returns
    -------
    list of Finding
        Causes, then what is to be said of retries where a cause is known. Attempts with a
        cause that no rule knows appear in no finding. Of findings that cost alike, one that
        says where, when or with which arguments comes before one that only says what.
    """
    frame = _table(failures, failures_frame)
    ended = _table(tasks, tasks_frame)
    findings = [*_causes(frame), *find_patterns(frame, ended, workers)]
    explained = {kind for finding in findings for kind in finding.fingerprints}
    afterwards: list[Finding] = []
    for finding in evaluate_retries(frame, ended) if len(frame) else ():
        # Of an error without a known cause, what retries do is the first thing to be said.
        is_first = finding.fingerprints and explained.isdisjoint(finding.fingerprints)
        (findings if is_first else afterwards).append(finding)
    return sorted(findings, key=_cost, reverse=True) + afterwards


def _causes(frame: pd.DataFrame) -> list[Finding]:
    """One finding for each cause that claims some kinds of failure."""
    if not len(frame):
        return []
    names = ["fingerprint", "failure_class", "category", "job_state"]
    by = frame.groupby(names, sort=False, observed=True)
    kinds = by.agg(duration_s=("duration_s", "median"), message=("message", "first"))
    claimed = [_matching_cause(kind) for kind in kinds.reset_index().to_dict("records")]
    # The number of the kind of each attempt, and of the cause of each kind.
    causes = np.array(claimed)[by.ngroup().to_numpy()]
    return [
        cause.explain(cause.name, frame[causes == number])
        for number, cause in enumerate(CAUSES)
        if number in claimed
    ]


def _matching_cause(kind: Any) -> int:
    return next((number for number, cause in enumerate(CAUSES) if cause.matches(kind)), -1)


def _cost(finding: Finding) -> tuple[float, float, float]:
    evidence, weight = finding.evidence, finding.weight
    return evidence["failed_tasks"] * weight, evidence["attempts"] * weight, finding.confidence


def _table(rows: Any, made: Callable[[Iterable[Row]], pd.DataFrame]) -> pd.DataFrame:
    is_table = hasattr(rows, "groupby")  # asked so, because pandas may not be loaded
    return cast("pd.DataFrame", rows) if is_table else made(rows)
