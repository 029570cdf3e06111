"""Compares what came out, what was written down and what was counted on disk; pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalable_nb.telemetry.rows import utc_iso

from .workload import Expectation, Mark

#: Categories of attempts that were lost with their worker.
_LOST = ("infrastructure", "resource")
_UNKNOWN = "UnknownOutcomeError"


@dataclass(frozen=True)
class Evidence:
    """All there is to know after a storm; keys are tasks' keys as text.

    ``outcomes`` holds results and exceptions, ``executions`` what the functions counted on
    disk, ``failures`` and ``tasks`` the rows of the journal, ``counts`` the ledger's number of
    tasks in each state at the end.
    """

    expected: Mapping[str, Expectation]
    outcomes: Mapping[str, Any]
    executions: Mapping[str, Sequence[Mark]]
    failures: Iterable[Mapping[str, Any]]
    tasks: Iterable[Mapping[str, Any]]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Finding:
    """What the audit found: sums for the table, and what does not agree."""

    sums: dict[str, int]
    faults: list[str]


def audit(evidence: Evidence) -> Finding:
    """Whether every result is right and all records agree with what was counted on disk."""
    failures: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in evidence.failures:
        failures[row["task_id"]].append(row)
    endings: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in evidence.tasks:
        endings[row["task_id"]].append(row)
    faults = []
    for key, expectation in evidence.expected.items():
        marks = evidence.executions[key]
        found = [
            *_wrong_result(expectation, evidence.outcomes[key]),
            *_wrong_records(failures[key], endings[key], len(marks)),
        ]
        if expectation.is_once and len(marks) > 1:
            found.append(f"must not run twice and ran {len(marks)} times")
        if found:
            lines = history(failures[key], endings[key], marks)
            faults.append("\n".join([f"{key}: {', '.join(found)}", *lines]))
    strangers = (failures.keys() | endings.keys()) - evidence.expected.keys()
    faults += [f"{key}: in the journal, though nobody submitted it" for key in strangers]
    states = Counter(endings[key][-1]["state"] for key in evidence.expected if endings[key])
    if states != Counter(evidence.counts):
        faults.append(f"the ledger counts {dict(evidence.counts)}, the journal {dict(states)}")
    rows = [row for rows in failures.values() for row in rows]
    succeeded = [row for rows in endings.values() for row in rows if row["state"] == "succeeded"]
    sums = {
        "tasks": len(evidence.expected),
        "executions on disk": sum(map(len, evidence.executions.values())),
        "attempts in the journal": len(rows) + len(succeeded),
        "  that failed by themselves": sum(row["category"] not in _LOST for row in rows),
        "  lost with a worker": sum(row["category"] in _LOST for row in rows),
        "    after their function had ended": sum("had ended" in row["message"] for row in rows),
        "    or an input": sum("took it back" in row["message"] for row in rows),
        "  that succeeded": len(succeeded),
        "    again, after their result was lost": len(succeeded)
        - len({row["task_id"] for row in succeeded}),
        "tasks that must not run twice": sum(e.is_once for e in evidence.expected.values()),
        "  with an unknown outcome": sum(
            type(outcome).__name__ == _UNKNOWN for outcome in evidence.outcomes.values()
        ),
    }
    return Finding(sums, faults)


def history(
    failures: list[Mapping[str, Any]], endings: list[Mapping[str, Any]], marks: Sequence[Mark]
) -> list[str]:
    """All that was written down of one task and all that it left on disk, in order of time."""
    reported = [
        (row["timestamp"], f"attempt {row['attempt']} {row['category']}: {row['message']} "
         f"(started {row['started_at']}, worker {row['worker']})")
        for row in failures
    ]  # fmt: skip
    reported += [
        (row["timestamp"], f"{row['state']} after {row['attempts']} attempts "
         f"(started {row['started_at']}, worker {row['worker']}, process {row['pid']})")
        for row in endings
    ]  # fmt: skip
    reported += [
        (utc_iso(mark.at), f"ran in process {mark.pid}, Dask's run {mark.run_id}") for mark in marks
    ]
    return [f"    {at}  {what}" for at, what in sorted(reported)]


def _wrong_result(expectation: Expectation, outcome: Any) -> Iterator[str]:
    if expectation.is_once and type(outcome).__name__ == _UNKNOWN:
        return  # it may have been lost while it ran; that it did not run again is seen elsewhere
    if expectation.value is None:
        if not isinstance(outcome, ValueError):
            yield f"should have failed with its own error, but gave {outcome!r}"
    elif outcome != expectation.value:
        yield f"gave {outcome!r} instead of {expectation.value}"


def _wrong_records(
    failures: list[Mapping[str, Any]], endings: list[Mapping[str, Any]], executions: int
) -> Iterator[str]:
    """What does not agree for one task."""
    if not endings:
        yield "has no row in tasks.jsonl"
        return
    succeeded = [row["attempts"] for row in endings if row["state"] == "succeeded"]
    attempts = sorted([*(row["attempt"] for row in failures), *succeeded])
    if attempts != list(range(1, len(attempts) + 1)):
        yield f"has rows for the attempts {attempts}"
    if endings[-1]["attempts"] != len(attempts):
        yield f"had {endings[-1]['attempts']} attempts, but {len(attempts)} have rows"
    least = len(attempts) - sum(map(_may_not_have_run, failures))
    if not least <= executions <= len(attempts):
        yield f"ran {executions} times, but has {len(attempts)} attempts and ran {least} at least"


def _may_not_have_run(failure: Mapping[str, Any]) -> bool:
    """Whether an attempt has one execution on disk or none; every other one has exactly one.

    An attempt is noted by its worker before the function is called, and counted on disk by the
    function's first line. Where the process was ended while the attempt was executing, that may
    have been between the two. Where the function had ended, it had begun. A call that was refused
    because there had been one before never began.
    """
    was_executing = failure["category"] in _LOST and "had ended" not in failure["message"]
    return was_executing or failure["failure_class"] == _UNKNOWN
